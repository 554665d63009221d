/* The ways in which a vcpu's reads can be carried out. Each way serves one burst; the vcpu's thread calls it. */
#ifndef GUEST_WAYS_H
#define GUEST_WAYS_H

#include <stdbool.h>
#include <stdint.h>

#define BLOCK_BYTES 4096u
#define BURST_MAX 256u

struct way {
    const char *name;
    /* Prepare `count` reads of the blocks `blocks` of `target`. Exits with a sentence if that fails. */
    void (*start)(const char *target, const char *file, const uint64_t *blocks, unsigned count);
    void (*submit)(void);   /* all of them */
    unsigned (*done)(void); /* how many are done; does not block */
};

extern const struct way way_idle;
extern const struct way way_pool;
extern const struct way way_vhost;
extern const struct way way_ring;

/* Print a sentence with errno's text, and exit. */
_Noreturn void die(const char *way, const char *step);

#endif
