/*
 * write_loss.h - after the daemon was killed: may what was written to a file, and not flushed, be lost? Nobody can know.
 *
 * A flush covers the file, whichever handle has written. So the next flush of each handle that was there before fails, once:
 * also of one that has written nothing. A new handle is told as long as no other was, since somebody has to write again.
 */
#ifndef AIOD_WRITE_LOSS_H
#define AIOD_WRITE_LOSS_H

#include <stdbool.h>

/* Of a file. By atomic operations. */
struct aiod_write_loss {
    bool possible; /* never taken back */
    bool reported; /* to one handle, at least */
};

/* Of a handle. By atomic operations. */
struct aiod_write_loss_reader {
    bool reported; /* or none of its business */
};

enum aiod_handle_origin {
    AIOD_HANDLE_NEW,
    AIOD_HANDLE_RESUMED, /* it was open in an engine before */
    AIOD_HANDLE_SUSPECT, /* and what was written by it may be lost */
};

/* A handle of the file comes. Main loop. */
void aiod_write_loss_add_handle(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader,
                                enum aiod_handle_origin origin);

/* Is the handle's next flush to tell of it? Any thread. */
bool aiod_write_loss_unreported(const struct aiod_write_loss *loss, const struct aiod_write_loss_reader *reader);

/* The same, of the flush that tells: true once. Any thread. */
bool aiod_write_loss_report(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader);

#endif
