/* CANCEL ends the request of that cookie alone; of several with one cookie the last; of none that has ended. */
#include <errno.h>
#include <fcntl.h>

#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define ENTRIES 256u
#define QUEUED 100u
#define COOKIE(i) ((uint64_t)(i) << 48 | (i)) /* i from 1 on */
#define TWICE UINT64_C(1234)

static struct raw_ring ring;
static uint32_t submitted;
static uint32_t completed;

static void put(uint16_t op, uint64_t cookie, uint64_t offset)
{
    raw_put(&ring, submitted++,
            &(struct aiod_ring_sqe){
                .cookie = cookie, .op = op, .handle = op == AIOD_RING_CANCEL ? 0 : ring.handle, .offset = offset});
    raw_submit(&ring, submitted);
    raw_ring_doorbell(&ring);
}

static const struct aiod_ring_cqe *next_completion(void)
{
    const struct aiod_ring_cqe *completion = &ring.cqes[completed % ENTRIES];

    raw_wait_completed(&ring, ++completed);
    return completion;
}

static void check_next(uint64_t cookie, int64_t result)
{
    const struct aiod_ring_cqe *completion = next_completion();

    CHECK(completion->cookie == cookie && completion->result == result);
    __atomic_store_n(&ring.header->cq_head, completed, __ATOMIC_RELEASE);
}

/* The request ends first, then it is said that it has been ended. */
static void cancel(uint64_t cookie, bool ends)
{
    put(AIOD_RING_CANCEL, 99, cookie);
    if (ends) {
        check_next(cookie, -ECANCELED);
    }
    check_next(99, ends);
}

int main(void)
{
    struct gate gate;
    const char *path;
    int file;

    faults_install();
    path = engine_start(&(struct engine_config){.inline_read_max = 0, .max_threads = 1, .handles_max = 16});
    file = scratch_file(O_RDWR);
    engine_add_file("file", file);
    raw_attach(&ring, path, ENTRIES, 4096, "file");
    engine_block_worker(&gate);
    for (uint32_t i = 1; i <= QUEUED; i++) {
        put(AIOD_RING_SIZE, COOKIE(i), 0);
    }
    put(AIOD_RING_SIZE, TWICE, 0);
    put(AIOD_RING_SIZE, TWICE, 0);
    engine_wait_taken(QUEUED + 2);

    for (uint32_t i = QUEUED; i >= 2; i -= 2) { /* those between stay */
        cancel(COOKIE(i), true);
        cancel(COOKIE(i), false);
    }
    cancel(COOKIE(QUEUED + 1), false);
    cancel(TWICE, true);
    cancel(TWICE, true);
    cancel(TWICE, false);
    gate_open(&gate);
    for (uint32_t i = 1; i <= QUEUED; i += 2) {
        check_next(COOKIE(i), 0);
    }
    cancel(COOKIE(1), false);
    raw_detach(&ring);
    engine_stop();
    close(file);
    return 0;
}
