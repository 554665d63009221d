/*
 * resuming.c - a program with libaiod whose engines go away, for test_libaiod_resume.py. It executes commands from its standard
 * input, or generates load until its standard input ends.
 *
 *     resuming TIMEOUT_MS[:CALL_TIMEOUT_MS]   a command each line, answered by a line
 *     resuming TIMEOUT_MS threads             load by threads that wait, each with a file of its own
 *     resuming TIMEOUT_MS loop                load by an event loop with requests in flight
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../patience.h"
#include "aiod.h"

#define BLOCK 4096u
#define BLOCKS 8u
#define THREADS 3u
#define WORDS (BLOCK / sizeof(uint64_t))

static struct aiod_client *client;
static atomic_bool stopping;
static atomic_ulong writes, unknowns, reads, flushes, restarted;

static void die(const char *step)
{
    printf("{\"failed\": \"%s: %s\"}\n", step, aiod_error());
    fflush(stdout);
    _exit(1);
}

/* ---- a block and its expected contents ----------------------------------------------------------------------------- */

struct block {
    uint32_t handle;
    uint64_t offset;
    uint64_t was; /* the value of its words before a write of unknown outcome; else the same as `is` */
    uint64_t is;
    uint64_t *buffer;
    struct aiod_op op;
};

static void submit(struct block *block, uint16_t op)
{
    struct aiod_op *ops[1] = {&block->op};

    if (op == AIOD_RING_WRITE) {
        block->is++;
        for (unsigned i = 0; i < WORDS; i++) {
            block->buffer[i] = block->is;
        }
    }
    block->op = (struct aiod_op){.op = op,
                                 .handle = block->handle,
                                 .offset = op == AIOD_RING_FLUSH ? 0 : block->offset,
                                 .length = op == AIOD_RING_FLUSH ? 0 : BLOCK,
                                 .buffer = op == AIOD_RING_FLUSH ? NULL : block->buffer,
                                 .user = block};
    if (aiod_submit(client, ops, 1) != 1) {
        die("submit");
    }
}

static void check_write(struct block *block)
{
    writes++;
    if (block->op.result == BLOCK) {
        block->was = block->is;
    } else if (block->op.result == -EIO && block->op.reason == AIOD_RING_UNKNOWN) {
        unknowns++;
    } else {
        die(aiod_reason_text(block->op.reason));
    }
}

static void check_read(struct block *block)
{
    reads++;
    if (block->op.result != BLOCK) {
        die(aiod_reason_text(block->op.reason));
    }
    for (unsigned i = 0; i < WORDS; i++) {
        if (block->buffer[i] != block->is && block->buffer[i] != block->was) {
            die("unexpected data");
        }
    }
}

static void check_flush(const struct block *block)
{
    flushes++;
    if (block->op.result == -EIO && block->op.reason == AIOD_RING_RESTARTED) {
        restarted++;
    } else if (block->op.result != 0) {
        die(aiod_reason_text(block->op.reason));
    }
}

/* A read follows each write, so that at most one write is in doubt. */
static uint16_t next_of(const struct block *block)
{
    switch (block->op.op) {
    case AIOD_RING_WRITE:
        return AIOD_RING_READ;
    case AIOD_RING_READ:
        return block->was == block->is ? AIOD_RING_FLUSH : AIOD_RING_WRITE;
    default:
        return AIOD_RING_WRITE;
    }
}

static void check(struct block *block)
{
    switch (block->op.op) {
    case AIOD_RING_WRITE:
        check_write(block);
        break;
    case AIOD_RING_READ:
        check_read(block);
        if (block->was != block->is) { /* the block may hold half of each write: forget its contents */
            block->was = block->is;
            memset(block->buffer, 0, BLOCK);
        }
        break;
    default:
        check_flush(block);
    }
}

static void open_blocks(struct block *blocks, const char *path)
{
    int64_t handle = aiod_open(client, path, AIOD_OPEN_READ | AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, 0644);

    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] =
            (struct block){.handle = (uint32_t)handle, .offset = i * BLOCK, .buffer = aiod_alloc(client, BLOCK)};
        if (handle < 0 || blocks[i].buffer == NULL) {
            die("open");
        }
    }
}

/* ---- load ----------------------------------------------------------------------------------------------------------- */

static void *run_thread(void *name)
{
    struct block blocks[BLOCKS];

    open_blocks(blocks, name);
    for (unsigned i = 0; i < BLOCKS; i++) {
        submit(&blocks[i], AIOD_RING_WRITE);
    }
    while (!stopping) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            while (aiod_wait(client, &blocks[i].op, 1000000) == -ETIMEDOUT) {
            }
            check(&blocks[i]);
            submit(&blocks[i], next_of(&blocks[i]));
        }
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        aiod_wait(client, &blocks[i].op, AIOD_NO_TIMEOUT);
        check(&blocks[i]);
        aiod_free(client, blocks[i].buffer);
    }
    if (aiod_close(client, blocks[0].handle) < 0) {
        die("close");
    }
    return NULL;
}

static void *stop_at_end(void *nothing)
{
    while (getchar() != EOF) {
    }
    stopping = true;
    return nothing;
}

static void run_threads(void)
{
    static char names[THREADS][32];
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        snprintf(names[i], sizeof(names[i]), "scratch/thread%u", i);
        pthread_create(&threads[i], NULL, run_thread, names[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void run_loop(void)
{
    struct block blocks[BLOCKS];
    struct aiod_op *done[4];
    unsigned inflight = BLOCKS;

    open_blocks(blocks, "scratch/loop");
    for (unsigned i = 0; i < BLOCKS; i++) {
        submit(&blocks[i], AIOD_RING_WRITE);
    }
    while (inflight > 0) {
        struct pollfd fd = {.fd = aiod_fd(client), .events = POLLIN};
        unsigned count;

        if (aiod_arm(client) && poll(&fd, 1, (int)scaled_ms(30000)) == 0) {
            die("nothing for 30 s");
        }
        aiod_disarm(client);
        count = aiod_reap(client, done, 4);
        for (unsigned i = 0; i < count; i++) {
            struct block *block = done[i]->user;

            check(block);
            if (stopping) {
                inflight--;
            } else {
                submit(block, next_of(block));
            }
        }
    }
}

/* ---- commands ------------------------------------------------------------------------------------------------------- */

static char *kept; /* a buffer */
static uint64_t kept_bytes;

static void perform_kept(uint16_t code, uint32_t handle, uint64_t offset)
{
    struct aiod_op op = {
        .op = code, .handle = handle, .offset = offset, .length = kept_bytes, .buffer = kept, .awaited = true};
    struct aiod_op *ops[1] = {&op};

    if (aiod_submit(client, ops, 1) != 1 || aiod_wait(client, &op, AIOD_NO_TIMEOUT) < 0) {
        die("kept");
    }
    printf("%" PRId64 " %u\n", op.result, op.reason);
}

/* Submit a request at offset 0 without waiting for it. */
static struct aiod_op *begin(uint16_t code, uint32_t handle, uint64_t bytes, char filling)
{
    static struct aiod_op ops[16];
    static unsigned count;
    struct aiod_op *op = &ops[count++];

    *op = (struct aiod_op){
        .op = code, .handle = handle, .length = bytes, .buffer = aiod_alloc(client, bytes), .awaited = true};
    memset(op->buffer, filling, bytes);
    if (aiod_submit(client, &op, 1) != 1) {
        die("begin");
    }
    return op;
}

static void end(struct aiod_op *op)
{
    aiod_wait(client, op, AIOD_NO_TIMEOUT);
    printf("%" PRId64 " %u\n", op->result, op->reason);
    aiod_free(client, op->buffer);
}

static bool all_are(const char *data, uint64_t bytes, char wanted)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (data[i] != wanted) {
            return false;
        }
    }
    return true;
}

static void execute(const char *word, const char *name, uint64_t one, uint64_t two)
{
    static char data[1 << 16];
    static struct aiod_op *begun[16];
    static unsigned ended_count;
    static unsigned begun_count;
    uint32_t handle = (uint32_t)one;
    int64_t result = 0;

    if (strcmp(word, "open") == 0) {
        result = aiod_open(client, name, (unsigned)one, 0644);
    } else if (strcmp(word, "close") == 0) {
        result = aiod_close(client, handle);
    } else if (strcmp(word, "write") == 0) {
        memset(data, name[0], sizeof(data));
        result = aiod_pwrite(client, handle, data, two, 0, AIOD_NO_TIMEOUT);
    } else if (strcmp(word, "read") == 0) {
        result = aiod_pread(client, handle, data, two, 0, AIOD_NO_TIMEOUT);
        if (result > 0 && !all_are(data, (uint64_t)result, name[0])) {
            die("read");
        }
    } else if (strcmp(word, "write-file") == 0) {
        memset(data, name[0], sizeof(data));
        result = aiod_write_file(client, handle, name, data, two, 0, AIOD_NO_TIMEOUT);
    } else if (strcmp(word, "read-file") == 0) {
        result = aiod_read_file(client, handle, name, data, sizeof(data) - 4096, NULL, AIOD_NO_TIMEOUT);
        if (result > 0 && !all_are(data, (uint64_t)result, name[0])) {
            die("read-file");
        }
    } else if (strcmp(word, "stat-name") == 0) {
        struct aiod_ring_stat stat = {0};

        result = aiod_stat_name(client, handle, name, &stat, AIOD_NO_TIMEOUT);
        result = result < 0 ? result : (int64_t)stat.size;
    } else if (strcmp(word, "flush") == 0) {
        result = aiod_flush(client, handle, AIOD_NO_TIMEOUT);
    } else if (strcmp(word, "lock") ==
               0) { /* "x:MS": exclusive, for MS milliseconds; "s:MS": shared; from 0, `two` bytes */
        unsigned flags = name[0] == 'x' ? AIOD_LOCK_EXCLUSIVE : AIOD_LOCK_SHARED;
        int64_t timeout_ms = strtol(name + 2, NULL, 10);

        result = aiod_lock(client, handle, flags, 0, two, timeout_ms < 0 ? AIOD_NO_TIMEOUT : timeout_ms * 1000000);
    } else if (strcmp(word, "unlock") == 0) {
        result = aiod_unlock(client, handle, 0, two);
    } else if (strcmp(word, "begin-write") == 0) {
        begun[begun_count++] = begin(AIOD_RING_WRITE, handle, two, name[0]);
    } else if (strcmp(word, "begin-read") == 0) {
        begun[begun_count++] = begin(AIOD_RING_READ, handle, two, 0);
    } else if (strcmp(word, "end") == 0) { /* the oldest request that was begun */
        end(begun[ended_count++]);
        return;
    } else if (strcmp(word, "wait") == 0) {
        result = aiod_wait_any(client, (int64_t)one);
    } else if (strcmp(word, "ended") == 0) {
        result = aiod_ended(client);
    } else if (strcmp(word, "alloc") == 0) {
        kept_bytes = one;
        kept = aiod_alloc(client, one);
        result = kept != NULL && aiod_in_area(client, kept, one);
        if (kept != NULL) {
            memset(kept, name[0], one);
        }
    } else if (strcmp(word, "is") == 0) {
        result = all_are(kept, kept_bytes, name[0]) && aiod_in_area(client, kept, kept_bytes);
    } else if (strcmp(word, "free") == 0) {
        aiod_free(client, kept);
    } else if (strcmp(word, "kwrite") == 0) {
        perform_kept(AIOD_RING_WRITE, handle, two);
        return;
    } else if (strcmp(word, "kread") == 0) {
        perform_kept(AIOD_RING_READ, handle, two);
        return;
    } else {
        die(word);
    }
    printf("%" PRId64 " %s%s\n", result, result < 0 ? aiod_error() : "",
           result < 0 && aiod_reason() == AIOD_RING_LOCK_LOST ? " [LOCK_LOST]" : "");
}

static void run_lines(void)
{
    char line[256];
    char word[32];
    char name[128];
    uint64_t one;
    uint64_t two;

    while (fgets(line, sizeof(line), stdin) != NULL) {
        name[0] = '\0';
        one = two = 0;
        sscanf(line, "%31s %127s %" SCNu64 " %" SCNu64, word, name, &one, &two);
        execute(word, name, one, two);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    struct aiod_options options = {.area_bytes = 1 << 20};
    pthread_t stopper;

    sscanf(argv[1], "%" SCNu32 ":%" SCNu32, &options.reconnect_timeout_ms, &options.call_timeout_ms);
    if (aiod_connect(&client, "scratch", &options) < 0) {
        die("connect");
    }
    if (argc == 2) {
        run_lines();
    } else {
        pthread_create(&stopper, NULL, stop_at_end, NULL);
        (strcmp(argv[2], "loop") == 0 ? run_loop : run_threads)();
        pthread_join(stopper, NULL);
        printf("{\"writes\": %lu, \"unknowns\": %lu, \"reads\": %lu, \"flushes\": %lu, \"restarted\": %lu}\n", writes,
               unknowns, reads, flushes, restarted);
    }
    aiod_disconnect(client);
    return 0;
}
