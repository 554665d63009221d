/*
 * burst.c - the only program of a guest with one vcpu: a busy loop that measures its own interruptions, first with no
 * I/O, then while a burst of reads is out.
 *
 * env READS, WINDOW_MS, BLOCKS, SEED come from the kernel's command line. The first eight bytes of each block of the disk
 * are the block's number. Console: "guest: idle {...}", "guest: burst {...}", or "guest: FAILED ...".
 */
#include <linux/aio_abi.h>
#include <time.h>

#include "boot.h"

#define BLOCK_BYTES 4096u
#define READS_MAX 256u
#define GAP_NS UINT64_C(2000)
/* For the kernel's own work after the start; QEMU's workers that have read the partition table end after 10 s. */
#define SETTLE_S 12

struct seen {
    uint64_t submit_ns;
    uint64_t done_ns;
    uint64_t longest_gap_ns;
    uint64_t stolen_ns;
    uint64_t gaps;
};

static struct iocb reads[READS_MAX];
static struct iocb *pointers[READS_MAX];
static aio_context_t context;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *step)
{
    say("FAILED %s: %s", step, strerror(errno));
    end_machine();
}

static void prepare(unsigned count, uint64_t blocks, uint64_t state)
{
    int disk = open(DISK, O_RDONLY | O_DIRECT);

    if (disk < 0 || syscall(SYS_io_setup, READS_MAX, &context) < 0) {
        fail("prepare");
    }
    for (unsigned i = 0; i < count; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        reads[i] = (struct iocb){.aio_lio_opcode = IOCB_CMD_PREAD,
                                 .aio_fildes = (uint32_t)disk,
                                 .aio_buf = (uintptr_t)aligned_alloc(BLOCK_BYTES, BLOCK_BYTES),
                                 .aio_nbytes = BLOCK_BYTES,
                                 .aio_offset = (int64_t)((state >> 33) % blocks * BLOCK_BYTES)};
        pointers[i] = &reads[i];
        memset((void *)(uintptr_t)reads[i].aio_buf, 1, BLOCK_BYTES);
    }
}

static void verify(const struct io_event *event)
{
    const struct iocb *read = (const struct iocb *)(uintptr_t)event->obj;
    const uint64_t *number = (const uint64_t *)(uintptr_t)read->aio_buf;

    if (event->res != BLOCK_BYTES || *number != (uint64_t)read->aio_offset / BLOCK_BYTES) {
        errno = EIO;
        fail("a read");
    }
}

static unsigned reap(void)
{
    struct io_event events[READS_MAX];
    struct timespec at_once = {0};
    long count = syscall(SYS_io_getevents, context, 0, READS_MAX, events, &at_once);

    for (long i = 0; i < count; i++) {
        verify(&events[i]);
    }
    return count > 0 ? (unsigned)count : 0;
}

/* The burst of `count` reads, and the loop for `window_ns` at least. */
static struct seen run(unsigned count, uint64_t window_ns)
{
    struct seen seen = {0};
    uint64_t began_ns = now_ns();
    uint64_t last_ns;
    uint64_t at_ns;
    unsigned out = count;

    if (count > 0 && syscall(SYS_io_submit, context, count, pointers) != count) {
        fail("io_submit");
    }
    last_ns = at_ns = now_ns();
    seen.submit_ns = at_ns - began_ns;
    while (out > 0 || at_ns - began_ns < window_ns) {
        at_ns = now_ns();
        if (at_ns - last_ns > GAP_NS) {
            seen.gaps++;
            seen.stolen_ns += at_ns - last_ns;
            seen.longest_gap_ns = at_ns - last_ns > seen.longest_gap_ns ? at_ns - last_ns : seen.longest_gap_ns;
        }
        last_ns = at_ns;
        if (out > 0) {
            out -= reap();
            seen.done_ns = out == 0 ? at_ns - began_ns : 0;
        }
    }
    return seen;
}

static void report(const char *name, const struct seen *seen)
{
    say("%s {\"submit_us\": %.3f, \"done_us\": %.3f, \"longest_gap_us\": %.3f, \"stolen_us\": %.3f, \"gaps\": %llu}",
        name, (double)seen->submit_ns / 1e3, (double)seen->done_ns / 1e3, (double)seen->longest_gap_ns / 1e3,
        (double)seen->stolen_ns / 1e3, (unsigned long long)seen->gaps);
}

int main(void)
{
    unsigned count = (unsigned)number_from("READS", 64);
    uint64_t window_ns = number_from("WINDOW_MS", 50) * 1000000u;
    struct seen seen;

    start_machine();
    if (count > READS_MAX) {
        errno = EINVAL;
        fail("READS");
    }
    prepare(count, number_from("BLOCKS", 1), number_from("SEED", 1));
    sleep(SETTLE_S);
    seen = run(0, window_ns);
    report("idle", &seen);
    seen = run(count, window_ns);
    report("burst", &seen);
    end_machine();
}
