/*
 * doubt.h - after the daemon was killed: may what was written to a file, and not flushed, be lost? Nobody can know.
 *
 * A flush covers the file, whichever handle has written. So the next flush of each handle that was there before fails, once:
 * also of one that has written nothing. A new handle is told as long as no other was, since somebody has to write again.
 */
#ifndef AIOD_DOUBT_H
#define AIOD_DOUBT_H

#include <stdbool.h>

/* Of a file. By atomic operations. */
struct aiod_doubt {
    bool exists; /* never taken back */
    bool told;   /* to one handle, at least */
};

/* Of a handle. By atomic operations. */
struct aiod_doubter {
    bool heard; /* or none of its business */
};

enum aiod_comer {
    AIOD_COMER_NEW,
    AIOD_COMER_BACK,    /* it was open in an engine before */
    AIOD_COMER_SUSPECT, /* and what was written by it may be lost */
};

/* A handle of the file comes. Main loop. */
void aiod_doubt_enter(struct aiod_doubt *doubt, struct aiod_doubter *doubter, enum aiod_comer comer);

/* Is the handle's next flush to tell of it? Any thread. */
bool aiod_doubt_is(const struct aiod_doubt *doubt, const struct aiod_doubter *doubter);

/* The same, of the flush that tells: true once. Any thread. */
bool aiod_doubt_tell(struct aiod_doubt *doubt, struct aiod_doubter *doubter);

#endif
