/*
 * loop.h - the descriptors that wake an event loop, aiod_fd() among them (loop.c). The client's lock is held, or no
 * other thread knows the client yet.
 */
#ifndef LIBAIOD_LOOP_H
#define LIBAIOD_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_client;

struct aiod_loop {
    int epoll;        /* aiod_fd(): the socket while an engine is connected, `bell` and `timer`; -1: not used so far */
    int bell;         /* an eventfd; -1 */
    int timer;        /* wakes the loop regularly while no engine is connected; -1: the client does not reconnect */
    bool armed;       /* the event loop sleeps on aiod_fd(), or is about to */
    bool notified;    /* since it was armed: by `bell`, or by the byte that the engine sends */
    bool bell_set;    /* `bell` is readable */
    bool answer_left; /* aiod_disarm() has left an answer on the socket to the thread that receives */
};

void aiod_loop_init(struct aiod_loop *loop);
void aiod_loop_destroy(struct aiod_loop *loop);

/* Create the descriptors of aiod_fd(). 0, or -errno with its message. */
int aiod_loop_open(struct aiod_client *client);

/* Create the timer. 0, or -errno with its message. */
int aiod_loop_create_timer(struct aiod_loop *loop);

/* Wake the loop each `period_ns`, less than a second; 0: not any more. */
void aiod_loop_set_timer(const struct aiod_loop *loop, uint64_t period_ns);

/* Ignore the socket while no engine is connected: it would be readable all the time. */
void aiod_loop_watch_socket(const struct aiod_client *client);
void aiod_loop_ignore_socket(const struct aiod_client *client);

/* Make aiod_fd() readable; make it unreadable, unless the session has ended. */
void aiod_loop_ring(struct aiod_loop *loop);
void aiod_loop_silence(struct aiod_client *client);

/* Another thread has taken a completion, or the engine's byte off the socket: wake an armed loop that sleeps for it. */
void aiod_loop_completion_taken(struct aiod_loop *loop);
void aiod_loop_byte_taken(struct aiod_loop *loop);

/*
 * Give `client_waits` to a leader; take it back when no thread leads: the loop must look at the completions after
 * that.
 */
void aiod_loop_yield_client_waits(struct aiod_client *client);
void aiod_loop_take_client_waits(struct aiod_client *client);

#endif
