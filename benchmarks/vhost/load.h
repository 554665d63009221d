/* The load: a thread for each queue keeps all its slots busy, until the time is up. */
#ifndef VHOST_LOAD_H
#define VHOST_LOAD_H

#include "front.h"
#include "latency.h"

struct load_options {
    unsigned reads_percent;
    bool random_order;
    bool verify; /* reads, writes, flushes and zeroes of blocks that are verified; not reads_percent */
    size_t block_bytes;
    uint64_t size_bytes; /* of the disk that is used */
    double seconds;
    double reconnect_s; /* how long a lost server is waited for; 0: that is an error */
};

struct load_result {
    struct latency latency;
    uint64_t bytes;
    uint64_t kicks;
    uint64_t waits;
    unsigned reconnects;
    double seconds;
};

/* Run it on a front end that is started. Prints a sentence and returns false if a request fails or is wrong. */
bool load_run(struct front *front, const struct load_options *options, struct load_result *result);

/* End the run early. For a signal handler. */
void load_end(void);

#endif
