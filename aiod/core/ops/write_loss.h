/*
 * write_loss.h - reports once per handle that writes may have been lost when the whole daemon was killed.
 *
 * If the supervisor died too, nobody knows whether unflushed writes reached the disk. A flush covers the file,
 * whichever handle wrote to it, so the next flush of each handle that was open before fails once, even of a handle that
 * wrote nothing. A new handle's flush fails as well until the loss was reported to some handle, because some client
 * must repeat its writes.
 */
#ifndef AIOD_WRITE_LOSS_H
#define AIOD_WRITE_LOSS_H

#include <stdbool.h>

/* The state of a file. Accessed by atomic operations. */
struct aiod_write_loss {
    bool possible; /* never reset */
    bool reported; /* to at least one handle */
};

/* The state of a handle. Accessed by atomic operations. */
struct aiod_write_loss_reader {
    bool reported; /* or need not be reported to this handle */
};

enum aiod_handle_origin {
    AIOD_HANDLE_NEW,
    AIOD_HANDLE_RESUMED, /* the handle was open in an earlier engine */
    AIOD_HANDLE_SUSPECT, /* resumed, and writes of the handle may be lost */
};

/* Add a handle of the file. Main loop. */
void aiod_write_loss_add_handle(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader,
                                enum aiod_handle_origin origin);

/* Must the next flush of the handle report the loss? Any thread. */
bool aiod_write_loss_unreported(const struct aiod_write_loss *loss, const struct aiod_write_loss_reader *reader);

/* The same for a flush that reports it now: true once per handle. Any thread. */
bool aiod_write_loss_report(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader);

#endif
