#include "load.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blocks.h"

#define SECTOR_BYTES 512u
#define CONNECT_PAUSE_US 10000u

enum {
    NOTHING = -1,
    WRONG = -2,
};

struct slot {
    uint64_t block;
    uint64_t submitted_ns;
    uint32_t type;
    uint32_t version; /* that the block has after this request, or that a read expects */
    uint64_t sweep;   /* verify, at the end: the next block to read */
};

struct worker {
    struct load *load;
    struct queue *queue;
    unsigned first_slot; /* of all slots of all queues */
    struct slot *slots;
    pthread_t thread;
    uint64_t random;
    uint64_t next_block;
    uint64_t end_ns;
    uint64_t bytes;
    struct latency latency;
    bool failed;
};

struct load {
    struct front *front;
    const struct load_options *options;
    struct worker *workers;
    uint32_t *versions; /* verify: of each block */
    uint64_t blocks;
    unsigned slot_count;
    int finished_fd; /* the last worker is done */
    atomic_bool lost;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    unsigned running; /* workers that are not done */
    unsigned paused;  /* of these, those that wait for another connection */
    bool given_up;    /* there will be none */
};

static volatile sig_atomic_t ended_early;

void load_end(void)
{
    ended_early = 1;
}

static bool is_over(const struct worker *worker, uint64_t at_ns)
{
    return at_ns >= worker->end_ns || ended_early;
}

/* ---- the requests of a slot -------------------------------------------------------------------------------------- */

static uint64_t step_of(const struct worker *worker)
{
    return worker->load->slot_count;
}

/* One of the blocks of the slot: no two slots share a block. */
static uint64_t own_block(struct worker *worker, unsigned number)
{
    uint64_t own = worker->first_slot + number;

    return own + next_random(&worker->random) % ((worker->load->blocks - own + step_of(worker) - 1) / step_of(worker)) *
                     step_of(worker);
}

static uint32_t verify_type(struct worker *worker, uint32_t version)
{
    uint64_t dice = next_random(&worker->random) % 16;

    if (dice == 0 && front_has(worker->load->front, VIRTIO_BLK_F_FLUSH)) {
        return VIRTIO_BLK_T_FLUSH;
    }
    if (dice == 1 && front_has(worker->load->front, VIRTIO_BLK_F_WRITE_ZEROES)) {
        return VIRTIO_BLK_T_WRITE_ZEROES;
    }
    return version == BLOCK_UNKNOWN || dice < 8 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
}

/* The next block that the slot has written; false if there is none. */
static bool next_of_sweep(struct worker *worker, unsigned number)
{
    struct slot *slot = &worker->slots[number];

    while (slot->sweep < worker->load->blocks) {
        slot->block = slot->sweep;
        slot->sweep += step_of(worker);
        slot->version = worker->load->versions[slot->block];
        slot->type = VIRTIO_BLK_T_IN;
        if (slot->version != BLOCK_UNKNOWN) {
            return true;
        }
    }
    return false;
}

static bool next_verified(struct worker *worker, unsigned number, uint64_t at_ns)
{
    struct slot *slot = &worker->slots[number];
    uint32_t version;

    if (is_over(worker, at_ns)) {
        return next_of_sweep(worker, number);
    }
    slot->block = own_block(worker, number);
    version = worker->load->versions[slot->block];
    slot->type = verify_type(worker, version);
    slot->version = version;
    if (slot->type == VIRTIO_BLK_T_OUT) {
        slot->version = version == BLOCK_ZEROES ? 1 : version + 1;
    } else if (slot->type == VIRTIO_BLK_T_WRITE_ZEROES) {
        slot->version = BLOCK_ZEROES;
    }
    return true;
}

static bool next_plain(struct worker *worker, unsigned number, uint64_t at_ns)
{
    const struct load_options *options = worker->load->options;
    struct slot *slot = &worker->slots[number];
    bool reads = options->reads_percent == 100 ||
                 (options->reads_percent > 0 && next_random(&worker->random) % 100 < options->reads_percent);

    if (is_over(worker, at_ns)) {
        return false;
    }
    slot->block = (options->random_order ? next_random(&worker->random) : worker->next_block++) % worker->load->blocks;
    slot->type = reads ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
    return true;
}

static size_t fill_data(struct worker *worker, unsigned number)
{
    const struct load_options *options = worker->load->options;
    struct slot *slot = &worker->slots[number];
    uint8_t *data = queue_data(worker->queue, number);

    if (slot->type == VIRTIO_BLK_T_FLUSH) {
        return 0;
    }
    if (slot->type == VIRTIO_BLK_T_WRITE_ZEROES) {
        struct virtio_blk_discard_write_zeroes range = {.sector = slot->block * options->block_bytes / SECTOR_BYTES,
                                                        .num_sectors = (uint32_t)(options->block_bytes / SECTOR_BYTES)};

        memcpy(data, &range, sizeof(range));
        return sizeof(range);
    }
    if (options->verify && slot->type == VIRTIO_BLK_T_OUT) {
        block_fill(data, options->block_bytes, slot->block, slot->version);
    } else if (options->verify) {
        memset(data, 0xa5, options->block_bytes);
    }
    return options->block_bytes;
}

/* Fill the slot's next request into the ring; false if there is none. */
static bool submit(struct worker *worker, unsigned number, uint64_t at_ns)
{
    const struct load_options *options = worker->load->options;
    struct slot *slot = &worker->slots[number];
    bool moves_data;
    size_t bytes;

    if (!(options->verify ? next_verified(worker, number, at_ns) : next_plain(worker, number, at_ns))) {
        return false;
    }
    bytes = fill_data(worker, number);
    moves_data = slot->type == VIRTIO_BLK_T_IN || slot->type == VIRTIO_BLK_T_OUT;
    slot->submitted_ns = at_ns;
    queue_fill(worker->queue, number, slot->type, moves_data ? slot->block * options->block_bytes / SECTOR_BYTES : 0,
               bytes);
    return true;
}

static bool check(struct worker *worker, unsigned number, uint8_t status)
{
    const struct load_options *options = worker->load->options;
    struct slot *slot = &worker->slots[number];

    if (status != VIRTIO_BLK_S_OK) {
        fprintf(stderr, "vhost-bench: request of type %u at block %llu: status %u\n", slot->type,
                (unsigned long long)slot->block, status);
        return false;
    }
    if (!options->verify || slot->type == VIRTIO_BLK_T_FLUSH) {
        return true;
    }
    if (slot->type != VIRTIO_BLK_T_IN) {
        worker->load->versions[slot->block] = slot->version;
        return true;
    }
    return block_check(queue_data(worker->queue, number), options->block_bytes, slot->block, slot->version);
}

static bool complete(struct worker *worker, unsigned number, uint8_t status, uint64_t at_ns)
{
    struct slot *slot = &worker->slots[number];

    latency_add(&worker->latency, at_ns - slot->submitted_ns);
    if (slot->type == VIRTIO_BLK_T_IN || slot->type == VIRTIO_BLK_T_OUT) {
        worker->bytes += worker->load->options->block_bytes;
    }
    return check(worker, number, status);
}

/* ---- the thread of a queue --------------------------------------------------------------------------------------- */

/* Wait for another connection; false if there will be none. */
static bool pause_here(struct load *load)
{
    bool carries_on;

    pthread_mutex_lock(&load->lock);
    load->paused++;
    pthread_cond_broadcast(&load->changed);
    while (atomic_load(&load->lost) && !load->given_up) {
        pthread_cond_wait(&load->changed, &load->lock);
    }
    load->paused--;
    carries_on = !load->given_up;
    pthread_mutex_unlock(&load->lock);
    return carries_on;
}

/*
 * Take completions, and submit as many requests. Returns the number of slots that have ended, NOTHING if there was no
 * completion, WRONG after a failure, which is printed.
 */
static int turn(struct worker *worker)
{
    uint64_t at_ns = 0;
    uint8_t status = 0;
    int ended = 0;
    int number;

    while ((number = queue_reap(worker->queue, &status)) >= 0) {
        at_ns = at_ns == 0 ? now_ns() : at_ns;
        if (!complete(worker, (unsigned)number, status, at_ns)) {
            return WRONG;
        }
        ended += submit(worker, (unsigned)number, at_ns) ? 0 : 1;
    }
    if (number == QUEUE_NO_SLOT) {
        fprintf(stderr, "vhost-bench: the device has completed a descriptor that is no request\n");
        return WRONG;
    }
    queue_publish(worker->queue);
    return at_ns == 0 ? NOTHING : ended;
}

static bool work(struct worker *worker)
{
    unsigned busy = 0;
    uint64_t at_ns = now_ns();

    for (unsigned i = 0; i < worker->queue->depth; i++) {
        busy += submit(worker, i, at_ns) ? 1 : 0;
    }
    queue_publish(worker->queue);
    while (busy > 0) {
        int ended = turn(worker);

        if (ended == WRONG) {
            return false;
        }
        if (ended != NOTHING) {
            busy -= (unsigned)ended;
            continue;
        }
        if (atomic_load_explicit(&worker->load->lost, memory_order_relaxed) && !pause_here(worker->load)) {
            return false;
        }
        if (worker->queue->polls) {
            queue_pause();
        } else {
            queue_wait(worker->queue);
        }
    }
    return true;
}

static void *thread(void *argument)
{
    struct worker *worker = argument;
    struct load *load = worker->load;
    uint64_t one = 1;

    worker->failed = !work(worker);
    pthread_mutex_lock(&load->lock);
    load->running--;
    if (load->running == 0 && write(load->finished_fd, &one, sizeof(one)) < 0) {
        abort();
    }
    pthread_cond_broadcast(&load->changed);
    pthread_mutex_unlock(&load->lock);
    return NULL;
}

/* ---- the connection ---------------------------------------------------------------------------------------------- */

static bool start_again(struct load *load)
{
    uint64_t end_ns = now_ns() + (uint64_t)(load->options->reconnect_s * 1e9);

    if (load->options->reconnect_s <= 0 || !front_resumes(load->front)) {
        fprintf(stderr, "vhost-bench: the server has closed the connection%s\n",
                load->options->reconnect_s > 0 ? ", and does not share its requests in flight" : "");
        return false;
    }
    while (!front_start(load->front)) {
        if (now_ns() >= end_ns) {
            fprintf(stderr, "vhost-bench: no new connection: %s: %s\n", load->front->failed, strerror(errno));
            return false;
        }
        usleep(CONNECT_PAUSE_US);
    }
    return true;
}

/* The server is lost: stop the workers, connect again, and let them go on. */
static bool reconnect(struct load *load)
{
    bool connected;

    atomic_store(&load->lost, true);
    for (unsigned i = 0; i < load->front->options.queue_count; i++) {
        queue_wake(&load->front->queues[i]);
    }
    pthread_mutex_lock(&load->lock);
    while (load->paused < load->running) {
        pthread_cond_wait(&load->changed, &load->lock);
    }
    pthread_mutex_unlock(&load->lock);
    connected = start_again(load);
    pthread_mutex_lock(&load->lock);
    load->given_up = !connected;
    atomic_store(&load->lost, false);
    pthread_cond_broadcast(&load->changed);
    pthread_mutex_unlock(&load->lock);
    return connected;
}

/* Until the workers are done. */
static bool watch(struct load *load, struct load_result *result)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = load->finished_fd, .events = POLLIN},
                               {.fd = load->front->socket, .events = POLLIN | POLLRDHUP}};

        if (poll(fds, 2, -1) < 0 && errno != EINTR) {
            return false;
        }
        if (fds[0].revents != 0) {
            return true;
        }
        if (fds[1].revents != 0) {
            if (!reconnect(load)) {
                return false;
            }
            result->reconnects++;
        }
    }
}

/* ---- start and end ----------------------------------------------------------------------------------------------- */

static bool prepare(struct load *load)
{
    unsigned queues = load->front->options.queue_count;
    unsigned depth = load->front->options.queue.depth;
    uint64_t end_ns = now_ns() + (uint64_t)(load->options->seconds * 1e9);

    load->slot_count = queues * depth;
    load->blocks = load->options->size_bytes / load->options->block_bytes;
    load->workers = calloc(queues, sizeof(*load->workers));
    load->versions = calloc(load->options->verify ? load->blocks : 1, sizeof(*load->versions));
    load->finished_fd = eventfd(0, EFD_CLOEXEC);
    if (load->workers == NULL || load->versions == NULL || load->finished_fd < 0) {
        fprintf(stderr, "vhost-bench: no memory\n");
        return false;
    }
    if (load->blocks < (load->options->verify ? load->slot_count : 1)) {
        fprintf(stderr, "vhost-bench: the disk has %llu blocks only\n", (unsigned long long)load->blocks);
        return false;
    }
    for (unsigned i = 0; i < queues; i++) {
        struct worker *worker = &load->workers[i];

        *worker = (struct worker){.load = load,
                                  .queue = &load->front->queues[i],
                                  .first_slot = i * depth,
                                  .slots = calloc(depth, sizeof(*worker->slots)),
                                  .random = UINT64_C(0x9e3779b97f4a7c15) * (i + 1),
                                  .end_ns = end_ns};
        for (unsigned j = 0; worker->slots != NULL && j < depth; j++) {
            worker->slots[j].sweep = worker->first_slot + j;
        }
    }
    return true;
}

static bool start_workers(struct load *load)
{
    load->running = load->front->options.queue_count;
    for (unsigned i = 0; i < load->front->options.queue_count; i++) {
        if (load->workers[i].slots == NULL ||
            pthread_create(&load->workers[i].thread, NULL, thread, &load->workers[i])) {
            fprintf(stderr, "vhost-bench: no memory\n");
            return false; /* the program ends */
        }
    }
    return true;
}

bool load_run(struct front *front, const struct load_options *options, struct load_result *result)
{
    struct load load = {
        .front = front, .options = options, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    uint64_t start_ns;
    bool fine;

    *result = (struct load_result){0};
    if (!prepare(&load)) {
        return false;
    }
    start_ns = now_ns();
    if (!start_workers(&load)) {
        return false;
    }
    fine = watch(&load, result);
    for (unsigned i = 0; i < front->options.queue_count; i++) {
        struct worker *worker = &load.workers[i];

        pthread_join(worker->thread, NULL);
        fine = fine && !worker->failed;
        latency_merge(&result->latency, &worker->latency);
        result->bytes += worker->bytes;
        result->kicks += worker->queue->kicks;
        result->waits += worker->queue->waits;
        free(worker->slots);
    }
    result->seconds = (double)(now_ns() - start_ns) / 1e9;
    free(load.workers);
    free(load.versions);
    close(load.finished_fd);
    return fine;
}
