/*
 * vhost_front.h - an engine that serves a scratch file to a guest, and the VMM with its guest's driver, in one thread: what the
 * test waits for is waited for by turns of the engine's main loop.
 */
#ifndef VHOST_FRONT_H
#define VHOST_FRONT_H

#include <stdbool.h>
#include <stdint.h>

#include "check.h"
#include "vhost/protocol.h"

#define FRONT_BYTES (UINT64_C(1) << 20)
#define FRONT_GUEST UINT64_C(0x40000000)
#define FRONT_USER UINT64_C(0x7f0000000000)
#define FRONT_SIZE 16u
#define FRONT_SECTORS 256u

/* Where the guest's things lie in its memory. */
enum {
    FRONT_DESCRIPTORS = 0,
    FRONT_AVAILABLE = 0x1000,
    FRONT_USED = 0x2000,
    FRONT_HEADERS = 0x3000,  /* 16 bytes for each head */
    FRONT_STATUSES = 0x4000, /* a byte */
    FRONT_DATA = 0x10000,    /* 4096 bytes */
};

struct aiod_core;

struct front {
    int socket;
    int memory_fd;
    char *memory;
    int kick;
    int call;
    int inflight_fd; /* -1: none */
    struct aiod_vhost_inflight inflight;
    uint16_t available;
    uint16_t used;
    uint64_t features; /* to accept */
};

/* Start an engine with `inline_read_max` bytes. The file, which has FRONT_SECTORS sectors. */
int front_engine_start(uint64_t inline_read_max);
struct aiod_core *front_core(void);

/* One turn of the engine's main loop. Lines for its log are counted, and the last one is kept. */
void front_turn(void);
const char *front_last_line(void);

/* Turns until `done(argument)`, or a failed test. */
void front_until(bool (*done)(void *argument), void *argument);

/* Stop the engine: nothing is left. */
void front_engine_stop(void);

/* Connect, and start a queue (0) as QEMU does. `front` is zeroes, or was disconnected. */
void front_connect(struct front *front);
void front_set_up(struct front *front);

/* Close the connection; the guest's memory stays. Then all. */
void front_disconnect(struct front *front);
void front_destroy(struct front *front);

/* Send a message; the answer to one that has one: its payload's bytes, -1: the connection was ended. */
void front_send(struct front *front, uint32_t kind, const void *payload, size_t bytes, int fd);
int front_ask(struct front *front, uint32_t kind, void *payload, size_t bytes, int fd, int *answer_fd);
bool front_is_connected(struct front *front);

/* A request: its head is `number`, with a page of data. It is only made available, with or without a kick. */
void front_submit(struct front *front, uint16_t number, uint32_t type, uint64_t sector, uint32_t bytes);
void front_kick(struct front *front);
char *front_data(struct front *front, uint16_t number);

/* Wait for the next used entry: its head. */
uint16_t front_next_used(struct front *front);
bool front_has_used(struct front *front);

/* Submit, and wait: the status. */
int front_run(struct front *front, uint16_t number, uint32_t type, uint64_t sector, uint32_t bytes);

#endif
