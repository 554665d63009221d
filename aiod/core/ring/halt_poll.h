/*
 * halt_poll.h - decides how long the leader polls before it sleeps.
 *
 * Algorithm: KVM's halt polling (virt/kvm/kvm_main.c, kvm_vcpu_halt): the polling time grows if work arrived soon after
 * the thread went to sleep, and shrinks if it did not.
 *
 * Extension: after several failed polls in a row, polls are skipped for a while. KVM's rule does not notice that the
 * poll itself may keep the client from submitting: a client with low priority, or with a small share of the CPU,
 * submits as soon as the leader sleeps, so the polling time would grow with each failed poll.
 *
 * No clock, no threads, no locks: the thread that leads owns it.
 */
#ifndef AIOD_HALT_POLL_H
#define AIOD_HALT_POLL_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_halt_poll {
    uint64_t max_ns;  /* the longest polling time; 0: no polling */
    uint64_t now_ns;  /* the current polling time; all fields from here are 0 initially */
    unsigned failed;  /* failed polls in a row */
    unsigned skipped; /* polls to skip */
};

/* There is no work: the time to poll, 0: sleep at once. */
uint64_t aiod_halt_poll_begin(struct aiod_halt_poll *poll);

/* Work arrived `idle_ns` after aiod_halt_poll_begin(), which returned `polled_ns`. `found`: during the poll. */
void aiod_halt_poll_end(struct aiod_halt_poll *poll, uint64_t polled_ns, bool found, uint64_t idle_ns);

#endif
