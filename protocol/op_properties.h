/*
 * op_properties.h - the properties that operations.def gives its operations.
 *
 * An operation that is not in the list has to be taken for one that changes the file and may not be repeated.
 */
#ifndef AIOD_OP_PROPERTIES_H
#define AIOD_OP_PROPERTIES_H

enum aiod_op_property {
    OP_CHARGED = 1 << 0,    /* its length counts against the session's credit, and is at most request_bytes_max */
    OP_BOUNDED = 1 << 1,    /* its length is at most AIOD_RANGE_BYTES_MAX */
    OP_PAYLOAD = 1 << 2,    /* the request brings `length` bytes along */
    OP_REPLIES = 1 << 3,    /* the result is a number of bytes that come with the completion */
    OP_COSTS = 1 << 4,      /* its length is what the disk has to do: it counts against rates */
    OP_MOVES = 1 << 5,      /* its bytes are counted in the statistics */
    OP_ENLARGES = 1 << 6,   /* the file may reach up to offset + length */
    OP_CHANGES = 1 << 7,    /* it may change the file */
    OP_REPEATABLE = 1 << 8, /* it changes the file, and does the same when it is executed twice */
    OP_GROUPED = 1 << 9,    /* those of one file are executed once for all */
    OP_PATH = 1 << 10,      /* it brings a path along, at the beginning of its buffer: by ring only */
    OP_RING_ONLY = 1 << 11, /* without a path, and by ring only */
};

#endif
