#include "ways.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../vhost/front.h"
#include "aiod.h"
#include "pool.h"

#define SECTOR_BYTES 512u

static unsigned count;
static unsigned completed;

_Noreturn void die(const char *way, const char *step)
{
    fprintf(stderr, "vcpu: %s: %s: %s\n", way, step, strerror(errno));
    exit(1);
}

/* ---- no reads: the control --------------------------------------------------------------------------------------- */

static void start_idle(const char *target, const char *file, const uint64_t *blocks, unsigned reads)
{
    (void)target;
    (void)file;
    (void)blocks;
    count = reads;
}

static void submit_nothing(void)
{
}

static unsigned all_done(void)
{
    return count;
}

const struct way way_idle = {"idle", start_idle, submit_nothing, all_done};

/* ---- the pool of 2011, in this process --------------------------------------------------------------------------- */

static struct pool_read pool_reads[BURST_MAX];

static void start_pool(const char *target, const char *file, const uint64_t *blocks, unsigned reads)
{
    int fd = open(target, O_RDONLY | O_CLOEXEC);

    (void)file;
    if (fd < 0) {
        die("pool", target);
    }
    count = reads;
    for (unsigned i = 0; i < reads; i++) {
        pool_reads[i] = (struct pool_read){.fd = fd,
                                           .buffer = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES),
                                           .bytes = BLOCK_BYTES,
                                           .offset = (off_t)(blocks[i] * BLOCK_BYTES)};
        if (pool_reads[i].buffer == NULL) {
            die("pool", "memory");
        }
        memset(pool_reads[i].buffer, 1, BLOCK_BYTES);
    }
}

static void submit_to_pool(void)
{
    for (unsigned i = 0; i < count; i++) {
        pool_submit(&pool_reads[i]);
    }
}

const struct way way_pool = {"pool", start_pool, submit_to_pool, pool_done};

/* ---- a vhost-user-blk server ------------------------------------------------------------------------------------- */

static struct front front;
static uint64_t sectors[BURST_MAX];

static void start_vhost(const char *target, const char *file, const uint64_t *blocks, unsigned reads)
{
    struct front_options options = {
        .socket = target,
        .queue_count = 1,
        .queue = {.depth = reads, .block_bytes = BLOCK_BYTES, .event_index = true, .polls = true}};

    (void)file;
    count = reads;
    if (!front_init(&front, &options) || !front_start(&front)) {
        die("vhost", front.failed);
    }
    memset(queue_data(&front.queues[0], 0), 1, (size_t)reads * BLOCK_BYTES);
    for (unsigned i = 0; i < reads; i++) {
        sectors[i] = blocks[i] * (BLOCK_BYTES / SECTOR_BYTES);
    }
}

static void submit_by_vhost(void)
{
    for (unsigned i = 0; i < count; i++) {
        queue_fill(&front.queues[0], i, VIRTIO_BLK_T_IN, sectors[i], BLOCK_BYTES);
    }
    queue_publish(&front.queues[0]);
}

static unsigned done_by_vhost(void)
{
    uint8_t status = 0;

    while (queue_reap(&front.queues[0], &status) >= 0) {
        if (status != VIRTIO_BLK_S_OK) {
            errno = EIO;
            die("vhost", "read");
        }
        completed++;
    }
    return completed;
}

const struct way way_vhost = {"vhost", start_vhost, submit_by_vhost, done_by_vhost};

/* ---- aiod's ring ------------------------------------------------------------------------------------------------- */

static struct aiod_client *client;
static struct aiod_op ops[BURST_MAX];
static struct aiod_op *op_pointers[BURST_MAX];

static _Noreturn void die_of_aiod(const char *step)
{
    fprintf(stderr, "vcpu: ring: %s: %s\n", step, aiod_error());
    exit(1);
}

static void start_ring(const char *target, const char *file, const uint64_t *blocks, unsigned reads)
{
    struct aiod_options options = {.endpoint = target, .software = "vcpu"};
    char export_name[256];
    int64_t handle;

    snprintf(export_name, sizeof(export_name), "%.*s", (int)strcspn(file, "/"), file);
    if (aiod_connect(&client, export_name, &options) < 0) {
        die_of_aiod("connect");
    }
    handle = aiod_open(client, file, AIOD_OPEN_READ, 0);
    if (handle < 0) {
        die_of_aiod(file);
    }
    count = reads;
    for (unsigned i = 0; i < reads; i++) {
        ops[i] = (struct aiod_op){.op = AIOD_RING_READ,
                                  .handle = (uint32_t)handle,
                                  .offset = blocks[i] * BLOCK_BYTES,
                                  .length = BLOCK_BYTES,
                                  .buffer = aiod_alloc(client, BLOCK_BYTES)};
        op_pointers[i] = &ops[i];
        if (ops[i].buffer == NULL) {
            die_of_aiod("memory");
        }
        memset(ops[i].buffer, 1, BLOCK_BYTES);
    }
}

static void submit_by_ring(void)
{
    if (aiod_submit(client, op_pointers, count) != (int)count) {
        die_of_aiod("submit");
    }
}

static unsigned done_by_ring(void)
{
    struct aiod_op *reaped[BURST_MAX];
    unsigned number = aiod_reap(client, reaped, BURST_MAX);

    for (unsigned i = 0; i < number; i++) {
        if (reaped[i]->result != BLOCK_BYTES) {
            die_of_aiod("read");
        }
    }
    completed += number;
    return completed;
}

const struct way way_ring = {"ring", start_ring, submit_by_ring, done_by_ring};
