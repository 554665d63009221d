/*
 * halt_poll.h - how long the poller looks on before it sleeps, as KVM's halt polling (virt/kvm/kvm_main.c, kvm_vcpu_halt): the
 * while grows when something came soon after it had gone to sleep, and shrinks when nothing did.
 *
 * Looks that keep failing are left out for a while. KVM's rule alone does not see that a look can be what keeps the client from
 * submitting: a client of low priority, or of a small share of the CPU, comes as soon as the poller sleeps, so the while grows
 * with each look in vain.
 *
 * Pure: no clock, no threads.
 */
#ifndef AIOD_HALT_POLL_H
#define AIOD_HALT_POLL_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_halt_poll {
    uint64_t max_ns;   /* 0: never */
    uint64_t now_ns;   /* the while; all below is 0 at first */
    unsigned failed;   /* looks in a row that saw nothing */
    unsigned left_out; /* how many more times to sleep at once */
};

/* There is nothing to do: how long to look on, 0: not at all. */
uint64_t aiod_halt_poll_begin(struct aiod_halt_poll *poll);

/*
 * Something came `idle_ns` after that. `looked_ns`: what begin() said. `found`: while looking.
 */
void aiod_halt_poll_end(struct aiod_halt_poll *poll, uint64_t looked_ns, bool found, uint64_t idle_ns);

#endif
