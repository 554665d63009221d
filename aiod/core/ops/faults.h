/*
 * faults.h - faults that an export's configuration asks for, so that programs can be tested against them.
 *
 * A fault applies to every Nth request of its operations on one open file, counted from the file's opening, on the worker
 * that carries out the request. Requests of such a file are neither answered from the page cache where they are submitted
 * nor started by io_uring.
 */
#ifndef AIOD_FAULTS_H
#define AIOD_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#define AIOD_FAULTS_MAX 8u /* of an export */

struct aiod_fault {
    uint32_t operations;  /* 1 << enum aiod_op */
    uint32_t every;       /* 1: each request */
    uint32_t delay_ms;    /* before the request is carried out */
    int error;            /* errno; 0: none */
    uint64_t after_bytes; /* of a WRITE or APPEND with an error: so many bytes are written before */
};

/* The faults of an open file, and how many requests each has seen; `seen` is accessed by atomic operations. */
struct aiod_faults {
    struct aiod_fault items[AIOD_FAULTS_MAX];
    uint32_t seen[AIOD_FAULTS_MAX];
    unsigned count;
};

/*
 * Wait as the faults of a request of `op` (enum aiod_op) say. Returns the errno with which it ends; 0: none.
 * *after_bytes of its payload are to be written before. Blocks: for workers.
 */
int aiod_faults_apply(struct aiod_faults *faults, unsigned op, uint64_t *after_bytes);

#endif
