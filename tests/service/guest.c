/*
 * guest.c - the only program of a guest: writes numbered, checksummed blocks to its disk, flushes, reads them back, and
 * says on the console how far it is.
 *
 * env ROUNDS, WRITERS, BLOCKS come from the kernel's command line. Each writer is a process with BLOCKS blocks of its
 * own; block B belongs to writer B % WRITERS. A round writes every block once, flushes, and verifies the round's blocks.
 * The version of a block is the number of the round. Console: "guest: round N" when the first writer has ended round N,
 * "guest: verified BLOCKS blocks" at the end, or "guest: FAILED ...".
 */
#include <sys/wait.h>

#include "../../benchmarks/guest/inside/boot.h"

#define BLOCK_BYTES 4096u
#define WORDS (BLOCK_BYTES / sizeof(uint64_t))

/* FNV-1a of the other words, so that a reader needs nothing but the block. */
struct block {
    uint64_t number;
    uint64_t version;
    uint64_t checksum;
    uint64_t words[WORDS - 3];
};

static struct block *block; /* aligned for O_DIRECT */

static void fail(const char *step, uint64_t number)
{
    say("FAILED %s, block %llu: %s", step, (unsigned long long)number, strerror(errno));
    _exit(1);
}

static uint64_t checksum_of(const struct block *of)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325) ^ of->number;

    sum = (sum ^ of->version) * UINT64_C(0x100000001b3);
    for (size_t i = 0; i < sizeof(of->words) / sizeof(of->words[0]); i++) {
        sum = (sum ^ of->words[i]) * UINT64_C(0x100000001b3);
    }
    return sum;
}

static void write_block(int disk, uint64_t number, uint64_t version)
{
    uint64_t state = number << 20 | version;

    block->number = number;
    block->version = version;
    for (size_t i = 0; i < sizeof(block->words) / sizeof(block->words[0]); i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        block->words[i] = state;
    }
    block->checksum = checksum_of(block);
    if (pwrite(disk, block, BLOCK_BYTES, (off_t)(number * BLOCK_BYTES)) != BLOCK_BYTES) {
        fail("write", number);
    }
}

static void verify_block(int disk, uint64_t number, uint64_t version)
{
    memset(block, 0, BLOCK_BYTES);
    if (pread(disk, block, BLOCK_BYTES, (off_t)(number * BLOCK_BYTES)) != BLOCK_BYTES) {
        fail("read", number);
    }
    if (block->number != number || block->version != version || block->checksum != checksum_of(block)) {
        say("FAILED verify: block %llu of version %llu expected, found %llu of %llu, checksum %s",
            (unsigned long long)number, (unsigned long long)version, (unsigned long long)block->number,
            (unsigned long long)block->version, block->checksum == checksum_of(block) ? "right" : "wrong");
        _exit(1);
    }
}

static void run_writer(uint64_t writer, uint64_t writers, uint64_t blocks, uint64_t rounds)
{
    int disk = open(DISK, O_RDWR | O_DIRECT);

    if (disk < 0) {
        fail("open", 0);
    }
    for (uint64_t round = 1; round <= rounds; round++) {
        for (uint64_t i = 0; i < blocks; i++) {
            write_block(disk, i * writers + writer, round);
        }
        if (fsync(disk) < 0) {
            fail("flush", writer);
        }
        for (uint64_t i = 0; i < blocks; i++) {
            verify_block(disk, i * writers + writer, round);
        }
        if (writer == 0) {
            say("round %llu", (unsigned long long)round);
        }
    }
    _exit(0);
}

/* Run the writers; false if one of them has failed. */
static bool run_writers(uint64_t writers, uint64_t blocks, uint64_t rounds)
{
    bool fine = true;
    int status;

    for (uint64_t i = 0; i < writers; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            run_writer(i, writers, blocks, rounds);
        }
        fine = fine && pid > 0;
    }
    while (wait(&status) > 0) {
        fine = fine && status == 0;
    }
    return fine;
}

int main(void)
{
    uint64_t writers = number_from("WRITERS", 4);
    uint64_t blocks = number_from("BLOCKS", 64);
    uint64_t rounds = number_from("ROUNDS", 4);
    int disk;

    start_machine();
    block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    say("starts");
    if (block != NULL && run_writers(writers, blocks, rounds)) {
        disk = open(DISK, O_RDONLY | O_DIRECT);
        for (uint64_t number = 0; number < writers * blocks; number++) {
            verify_block(disk, number, rounds); /* ends the guest's program, and so its kernel, if it is wrong */
        }
        say("verified %llu blocks", (unsigned long long)(writers * blocks));
    }
    end_machine();
}
