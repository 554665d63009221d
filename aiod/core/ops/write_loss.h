/*
 * write_loss.h - reports once per handle that writes may have been lost when the whole daemon was killed, or when the
 * server of a mount was.
 *
 * If the supervisor died too, nobody knows whether unflushed writes reached the disk. A flush covers the file,
 * whichever handle wrote to it, so the next flush of each handle that was open before fails once, even of a handle that
 * wrote nothing. A new handle's flush fails as well until the loss was reported to some handle, because some client
 * must repeat its writes.
 */
#ifndef AIOD_WRITE_LOSS_H
#define AIOD_WRITE_LOSS_H

#include <stdbool.h>
#include <stdint.h>

/* The state of a file. Accessed by atomic operations. */
struct aiod_write_loss {
    uint32_t losses;   /* 0: none */
    uint32_t reported; /* so many of them to at least one handle */
};

/* The state of a handle. Accessed by atomic operations. */
struct aiod_write_loss_reader {
    uint32_t reported; /* so many losses were reported to this handle, or need not be */
};

enum aiod_handle_origin {
    AIOD_HANDLE_NEW,
    AIOD_HANDLE_RESUMED, /* the handle was open in an earlier engine */
    AIOD_HANDLE_SUSPECT, /* resumed, and writes of the handle may be lost */
};

/* Add a handle of the file. Main loop. */
void aiod_write_loss_add_handle(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader,
                                enum aiod_handle_origin origin);

/* Writes may be lost again, while the file is open. Any thread. */
void aiod_write_loss_add(struct aiod_write_loss *loss);

/* Must the next flush of the handle report the loss? Any thread. */
bool aiod_write_loss_unreported(const struct aiod_write_loss *loss, const struct aiod_write_loss_reader *reader);

/* The same for a flush that reports it now: true once per handle. Any thread. */
bool aiod_write_loss_report(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader);

#endif
