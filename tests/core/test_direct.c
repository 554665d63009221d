/* O_DIRECT on a real file: any offset, length and memory; several writers in one block; the end of the file; errors. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "ops/direct.h"
#include "ops/worker_io.h"
#include "scratch.h"

enum {
    THREADS = 4,
    SPACE = 1 << 20, /* the maximum size of a file in this test */
};

static struct aiod_buffers buffers;
static struct aiod_range_locks range_locks;
static char *memory; /* aligned; SPACE and a page */
static char wanted[SPACE + 8192];

/* With at least the given alignment: a multiple of the file's own alignment works as well. */
static struct aiod_direct open_direct(uint32_t alignment)
{
    struct aiod_direct file = {.fd = scratch_file(O_DIRECT), .buffers = &buffers, .range_locks = &range_locks};

    CHECK(aiod_alignment_find(file.fd, &file.alignment) == 0);
    if (alignment > file.alignment.memory) {
        file.alignment.memory = alignment;
    }
    if (alignment > file.alignment.offset) {
        file.alignment.offset = alignment;
    }
    return file;
}

/* The same file through a handle that uses the page cache. */
static struct aiod_direct open_buffered(const struct aiod_direct *direct)
{
    struct aiod_direct file = *direct;

    file.fd = open_again(direct->fd, 0);
    file.alignment = (struct aiod_alignment){1, 1};
    return file;
}

static uint64_t written; /* of the last write_bytes() */

static int64_t write_bytes(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset, int flags)
{
    struct iovec parts[3];
    uint64_t first = length / 3, second = length / 2;

    parts[0] = (struct iovec){.iov_base = data, .iov_len = first};
    parts[1] = (struct iovec){.iov_base = data + first, .iov_len = second - first};
    parts[2] = (struct iovec){.iov_base = data + second, .iov_len = length - second};
    return aiod_direct_write(file, parts, 3, offset, flags, &written);
}

/* A read into three parts, as a guest's: aligned or not, up to the end of the file, with interruptions. */
static void read_in_parts(const struct aiod_direct *file, uint64_t first, uint64_t second, uint64_t offset,
                          uint64_t size)
{
    uint64_t length = 12288;
    struct iovec parts[] = {
        {.iov_base = memory, .iov_len = first},
        {.iov_base = memory + 16384 + first % 512, .iov_len = second},
        {.iov_base = memory + 65536, .iov_len = length - first - second},
    };
    const struct iovec into[] = {parts[0], parts[1], parts[2]};
    uint64_t there = offset < size ? size - offset : 0;
    uint64_t had = 0;

    there = there < length ? there : length;
    memset(memory, 0, 131072);
    CHECK(aiod_direct_readv(file, parts, 3, offset) == (int64_t)there);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t bytes = there - had < into[i].iov_len ? there - had : into[i].iov_len;

        CHECK(memcmp(into[i].iov_base, wanted + offset + had, bytes) == 0);
        had += bytes;
    }
}

static void reads_go_to_parts(void)
{
    struct aiod_direct direct = open_direct(0);
    struct aiod_direct buffered = open_buffered(&direct);
    const struct aiod_direct *files[] = {&direct, &buffered};

    CHECK(pwrite(buffered.fd, wanted, 40000, 0) == 40000 && fsync(buffered.fd) == 0);
    for (unsigned i = 0; i < 2; i++) {
        faults_reset();
        atomic_store(&faults.interrupts, 3);
        read_in_parts(files[i], 4096, 4096, 8192, 40000);
        read_in_parts(files[i], 4096, 4096, 32768, 40000); /* the end of the file in the second part */
        read_in_parts(files[i], 100, 5000, 512, 40000);
        read_in_parts(files[i], 1, 1, 39999, 40000);
        read_in_parts(files[i], 4096, 4096, 49152, 40000);
    }
    faults_reset();
    close(direct.fd);
    close(buffered.fd);
}

/* ---- compared with a model --------------------------------------------------------------------------------------- */

static uint64_t some(unsigned *seed, uint64_t limit)
{
    return (uint64_t)rand_r(seed) % limit;
}

/* A random offset: aligned every second time, and sometimes near the end. */
static uint64_t some_offset(unsigned *seed, uint64_t size)
{
    switch (some(seed, 4)) {
    case 0:
        return some(seed, SPACE / 2);
    case 1:
        return size > 5000 ? size - some(seed, 5000) : size;
    default:
        return some(seed, SPACE / 2) & ~UINT64_C(4095);
    }
}

static uint64_t some_length(unsigned *seed)
{
    switch (some(seed, 4)) {
    case 0:
        return some(seed, SPACE / 2);
    case 1:
        return some(seed, SPACE / 2) & ~UINT64_C(4095);
    default:
        return some(seed, 3000);
    }
}

static void random_transfers_match_a_model(uint32_t alignment)
{
    struct aiod_direct file = open_direct(alignment);
    unsigned seed = 7;
    uint64_t size = 0;

    memset(wanted, 0, sizeof(wanted));
    for (int i = 0; i < 600; i++) {
        uint64_t offset = some_offset(&seed, size), length = some_length(&seed);
        char *data = memory + (some(&seed, 2) == 0 ? 0 : some(&seed, 4096));

        length = length < SPACE - offset ? length : SPACE - offset;
        if (i % 16 == 15) {
            size = some(&seed, 20000);
            memset(wanted + size, 0, sizeof(wanted) - size);
            CHECK(ftruncate(file.fd, (off_t)size) == 0);
        }
        if (some(&seed, 2) == 0) {
            uint64_t there = offset >= size ? 0 : size - offset < length ? size - offset : length;

            data[length] = 'r';
            CHECK(aiod_direct_read(&file, data, length, offset) == (int64_t)there);
            CHECK(memcmp(data, wanted + offset, there) == 0);
            CHECK(data[length] == 'r');
            continue;
        }
        for (uint64_t at = 0; at < length; at++) {
            data[at] = wanted[offset + at] = pattern((uint64_t)i * SPACE + at);
        }
        CHECK(write_bytes(&file, data, length, offset, 0) == (int64_t)length && written == length);
        size = length > 0 && offset + length > size ? offset + length : size;
        check_size(file.fd, (int64_t)size);
    }
    check_bytes(file.fd, wanted, size, 0);
    close(file.fd);
}

/* ---- several writers --------------------------------------------------------------------------------------------- */

struct writer {
    pthread_t thread;
    const struct aiod_direct *file;
    uint64_t index;
    char *data;
};

static void each_in_a_thread(void *(*run)(void *writer), const struct aiod_direct *const files[THREADS])
{
    struct writer writers[THREADS];

    for (uint64_t i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){.file = files[i], .index = i, .data = aligned_alloc(4096, SPACE)};
        CHECK(writers[i].data != NULL);
        CHECK(pthread_create(&writers[i].thread, NULL, run, &writers[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(writers[i].thread, NULL);
        free(writers[i].data);
    }
}

enum {
    PIECE = 777,
    PIECES = 600,
    ALIGNED_EVERY = 8, /* one of this many blocks of 4096 bytes is written whole, by a thread of its own */
};

/* Pieces that share blocks, each written several times and last with the expected bytes; not in the whole blocks. */
static void write_pieces(const struct writer *writer, bool (*mine)(uint64_t piece, uint64_t index))
{
    for (uint64_t round = 0; round < 3; round++) {
        for (uint64_t piece = 0; piece < PIECES; piece++) {
            uint64_t offset = piece * PIECE;
            struct iovec part = {.iov_base = writer->data, .iov_len = PIECE};
            uint64_t put;

            if (!mine(piece, writer->index)) {
                continue;
            }
            for (uint64_t at = 0; at < PIECE; at++) {
                writer->data[at] = round == 2 ? wanted[offset + at] : '?';
            }
            CHECK(aiod_direct_write(writer->file, &part, 1, offset, 0, &put) == PIECE);
        }
    }
}

static bool is_whole_block(uint64_t block)
{
    return block % ALIGNED_EVERY == 0;
}

static bool touches_whole_block(uint64_t piece)
{
    return is_whole_block(piece * PIECE / 4096) || is_whole_block((piece * PIECE + PIECE - 1) / 4096);
}

static bool in_turn(uint64_t piece, uint64_t index)
{
    return !touches_whole_block(piece) && piece % (THREADS - 1) == index;
}

static void write_whole_blocks(const struct writer *writer)
{
    for (uint64_t round = 0; round < 3; round++) {
        for (uint64_t block = 0; block < PIECES * PIECE / 4096; block += ALIGNED_EVERY) {
            struct iovec part = {.iov_base = writer->data, .iov_len = 4096};
            uint64_t put;

            memcpy(writer->data, wanted + block * 4096, 4096);
            CHECK(aiod_direct_write(writer->file, &part, 1, block * 4096, 0, &put) == 4096);
        }
    }
}

static void *write_among_others(void *argument)
{
    const struct writer *writer = argument;

    if (writer->index == THREADS - 1) {
        write_whole_blocks(writer);
    } else {
        write_pieces(writer, in_turn);
    }
    return NULL;
}

/* Two writers use O_DIRECT, one the page cache, and one writes whole blocks; in a large file, or in an empty one. */
static void writers_that_share_blocks_lose_no_bytes(uint32_t alignment, bool empty)
{
    struct aiod_direct direct = open_direct(alignment), buffered = open_buffered(&direct);
    const struct aiod_direct *files[THREADS] = {&direct, &direct, &buffered, &direct};
    uint64_t bytes = (uint64_t)PIECES * PIECE;

    for (uint64_t i = 0; i < bytes; i++) {
        wanted[i] = pattern(i);
    }
    CHECK(empty || ftruncate(direct.fd, SPACE) == 0);
    each_in_a_thread(write_among_others, files);
    check_size(direct.fd, empty ? (int64_t)bytes : SPACE);
    for (uint64_t piece = 0; piece < PIECES; piece++) { /* pieces in whole blocks that no writer has written whole */
        if (!touches_whole_block(piece)) {
            check_bytes(direct.fd, wanted + piece * PIECE, PIECE, piece * PIECE);
        }
    }
    for (uint64_t block = 0; block < bytes / 4096; block += ALIGNED_EVERY) {
        check_bytes(direct.fd, wanted + block * 4096, 4096, block * 4096);
    }
    close(buffered.fd);
    close(direct.fd);
}

static bool every_fourth(uint64_t piece, uint64_t index)
{
    return piece % THREADS == index;
}

static void *write_my_pieces(void *argument)
{
    write_pieces(argument, every_fourth);
    return NULL;
}

/* Several writers at the end of a file, which they make grow. */
static void concurrent_writers_grow_a_file(uint32_t alignment)
{
    struct aiod_direct direct = open_direct(alignment);
    const struct aiod_direct *files[THREADS] = {&direct, &direct, &direct, &direct};

    for (uint64_t i = 0; i < PIECES * PIECE; i++) {
        wanted[i] = pattern(i + 1);
    }
    each_in_a_thread(write_my_pieces, files);
    check_size(direct.fd, PIECES * PIECE);
    check_bytes(direct.fd, wanted, PIECES * PIECE, 0);
    close(direct.fd);
}

/* ---- the end of the file ----------------------------------------------------------------------------------------- */

static _Atomic bool grown;

static void *grow_by_pieces(void *argument)
{
    const struct writer *writer = argument;

    for (uint64_t piece = 0; piece < PIECES; piece++) {
        struct iovec part = {.iov_base = wanted + piece * PIECE, .iov_len = PIECE};
        uint64_t put;

        CHECK(aiod_direct_write(writer->file, &part, 1, piece * PIECE, 0, &put) == PIECE);
    }
    grown = true;
    return NULL;
}

/* A concurrent reader sees whole pieces and no padding. */
static void readers_of_a_growing_file_see_no_padding(void)
{
    struct aiod_direct direct = open_direct(4096);
    struct writer writer = {.file = &direct};
    int64_t got;

    grown = false;
    CHECK(pthread_create(&writer.thread, NULL, grow_by_pieces, &writer) == 0);
    do {
        got = aiod_direct_read(&direct, memory + 1, SPACE, 0);
        CHECK(got >= 0 && got % PIECE == 0);
        CHECK(memcmp(memory + 1, wanted, (size_t)got) == 0);
    } while (!grown);
    pthread_join(writer.thread, NULL);
    CHECK(aiod_direct_read(&direct, memory, SPACE, 0) == PIECES * PIECE);
    close(direct.fd);
}

static void reads_end_at_the_end_of_the_file(void)
{
    struct aiod_direct direct = open_direct(512);

    memset(memory, 'a', 10000);
    CHECK(aiod_direct_read(&direct, memory, 100, 0) == 0);
    CHECK(write_bytes(&direct, memory, 10000, 0, 0) == 10000);
    CHECK(aiod_direct_read(&direct, memory, 8192, 0) == 8192);
    CHECK(aiod_direct_read(&direct, memory, 8192, 8192) == 10000 - 8192);
    CHECK(aiod_direct_read(&direct, memory, 8192, 9999) == 1);
    CHECK(aiod_direct_read(&direct, memory, 8192, 10000) == 0);
    CHECK(aiod_direct_read(&direct, memory, 8192, 12288) == 0);
    CHECK(aiod_direct_read(&direct, memory, 5, 1000001) == 0);
    CHECK(aiod_direct_read(&direct, memory, 0, 0) == 0);
    close(direct.fd);
}

static void *write_hundred(void *argument)
{
    const struct writer *writer = argument;
    struct iovec part = {.iov_base = wanted, .iov_len = 100};
    uint64_t put;

    CHECK(aiod_direct_write(writer->file, &part, 1, 100, 0, &put) == 100);
    return NULL;
}

static void wait_for_a_waiting_range(void)
{
    size_t waiting;

    do {
        pthread_mutex_lock(&range_locks.lock);
        waiting = range_locks.waiting;
        pthread_mutex_unlock(&range_locks.lock);
    } while (waiting == 0);
}

/* The file is truncated while a write in its middle waits for its turn. */
static void a_truncation_before_a_waiting_write_is_respected(void)
{
    struct aiod_direct direct = open_direct(4096);
    struct aiod_range_lock all = {.start = 0, .end = AIOD_RANGE_END};
    struct writer writer = {.file = &direct};

    memset(memory, 'a', 8192);
    CHECK(write_bytes(&direct, memory, 8192, 0, 0) == 8192);
    aiod_range_lock_acquire(&range_locks, &all);
    CHECK(pthread_create(&writer.thread, NULL, write_hundred, &writer) == 0);
    wait_for_a_waiting_range();
    CHECK(ftruncate(direct.fd, 50) == 0);
    aiod_range_lock_release(&range_locks, &all);
    pthread_join(writer.thread, NULL);
    check_size(direct.fd, 200);
    memset(memory + 50, 0, 50);
    check_bytes(direct.fd, memory, 100, 0);
    check_bytes(direct.fd, wanted, 100, 100);
    close(direct.fd);
}

/* ---- another writer at the end, while the file's size is wrong --------------------------------------------------- */

static struct gate at_truncation;

static int gated_ftruncate(int fd, off_t size)
{
    gate_pass(&at_truncation);
    return aiod_os_real.ftruncate(fd, size);
}

static void *append_hundred(void *argument)
{
    const struct writer *writer = argument;
    struct aiod_range_lock end = {.start = AIOD_RANGE_END - 1, .end = AIOD_RANGE_END};
    struct iovec part = {.iov_base = wanted + 200, .iov_len = 100};
    uint64_t put;

    aiod_range_lock_acquire(&range_locks, &end);
    CHECK(aiod_io_append(writer->file->fd, &part, 1, &put) == 200);
    aiod_range_lock_release(&range_locks, &end);
    return NULL;
}

static void an_append_follows_a_padded_write(void)
{
    const struct aiod_os *usual = aiod_os;
    struct aiod_direct direct = open_direct(4096), buffered = open_buffered(&direct);
    struct writer writer = {.file = &direct}, appender = {.file = &buffered};
    struct aiod_os os = *aiod_os;

    gate_init(&at_truncation, false);
    os.ftruncate = gated_ftruncate;
    aiod_os = &os;
    CHECK(pthread_create(&writer.thread, NULL, write_hundred, &writer) == 0);
    gate_wait_for(&at_truncation, 1);
    check_size(direct.fd, direct.alignment.offset); /* wrong at this moment, and hidden by the range lock */
    CHECK(pthread_create(&appender.thread, NULL, append_hundred, &appender) == 0);
    wait_for_a_waiting_range();
    gate_open(&at_truncation);
    pthread_join(writer.thread, NULL);
    pthread_join(appender.thread, NULL);
    aiod_os = usual;
    check_size(direct.fd, 300);
    check_bytes(direct.fd, wanted, 100, 100);
    check_bytes(direct.fd, wanted + 200, 100, 200);
    close(buffered.fd);
    close(direct.fd);
}

static ssize_t crowded_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    ssize_t put = aiod_os_real.pwritev2(fd, iov, count, offset, flags);
    int other = open_again(fd, 0);

    CHECK(pwrite(other, "end", 3, 50000) == 3);
    close(other);
    return put;
}

/* Another process, which takes no range locks. */
static void another_process_keeps_its_appended_bytes(void)
{
    const struct aiod_os *usual = aiod_os;
    struct aiod_direct direct = open_direct(4096);
    struct aiod_os os = *aiod_os;

    os.pwritev2 = crowded_pwritev2;
    aiod_os = &os;
    CHECK(write_bytes(&direct, wanted, 100, 0, 0) == 100);
    aiod_os = usual;
    check_size(direct.fd, 50003);
    check_bytes(direct.fd, "end", 3, 50000);
    close(direct.fd);
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

static uint64_t writable; /* bytes that the disk accepts before it fails */

static ssize_t failing_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    struct iovec cut = *iov;

    CHECK(count == 1);
    if (writable == 0) {
        errno = EIO;
        return -1;
    }
    cut.iov_len = cut.iov_len < writable ? cut.iov_len : writable;
    writable -= cut.iov_len;
    return aiod_os_real.pwritev2(fd, &cut, 1, offset, flags);
}

static void a_failed_write_reports_bytes_and_leaves_no_padding(void)
{
    const struct aiod_os *usual = aiod_os;
    struct aiod_direct direct = open_direct(512);
    uint64_t block = direct.alignment.offset;
    struct aiod_os os = *aiod_os;

    os.pwritev2 = failing_pwritev2;
    memset(memory, 'a', SPACE);
    CHECK(write_bytes(&direct, memory, 1000, 0, 0) == 1000);
    aiod_os = &os;

    writable = 2 * block; /* the second and the third block */
    CHECK(write_bytes(&direct, memory, 5 * block, block + 388, 0) == -EIO && written == 2 * block - 388);
    check_size(direct.fd, (int64_t)(3 * block));
    writable = 0;
    CHECK(write_bytes(&direct, memory, 5000, 100 * block + 3, 0) == -EIO && written == 0);
    check_size(direct.fd, (int64_t)(3 * block)); /* no hole behind it */
    writable = block;
    CHECK(write_bytes(&direct, memory, 5000, 100 * block + 1, 0) == -EIO && written == block - 1);
    check_size(direct.fd, (int64_t)(101 * block));
    writable = AIOD_DIRECT_STEP_BYTES + 2 * block; /* up to the second step */
    CHECK(write_bytes(&direct, memory + 1, 2 * AIOD_DIRECT_STEP_BYTES, 0, 0) == -EIO);
    CHECK(written == AIOD_DIRECT_STEP_BYTES + 2 * block);

    aiod_os = usual;
    close(direct.fd);
}

static ssize_t put_before_failing;

/* During a write that fails, another writer puts bytes between the end of the file and the blocks of that write. */
static ssize_t overtaken_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    struct aiod_range_lock range = {.start = 100, .end = 4096};
    int other = open_again(fd, 0);
    ssize_t put = put_before_failing;

    (void)flags;
    CHECK(count == 1 && offset >= 8192);
    aiod_range_lock_acquire(&range_locks, &range);
    CHECK(pwrite(other, wanted + 100, 3996, 100) == 3996);
    aiod_range_lock_release(&range_locks, &range);
    if (put > 0) {
        CHECK(pwrite(other, iov->iov_base, (size_t)put, offset) == put);
    }
    close(other);
    put_before_failing = 0;
    errno = EIO;
    return put > 0 ? put : -1;
}

static void a_failed_write_truncates_no_other_write(ssize_t put_first, int64_t size)
{
    const struct aiod_os *usual = aiod_os;
    struct aiod_direct direct = open_direct(4096);
    struct aiod_os os = *aiod_os;

    CHECK(write_bytes(&direct, wanted, 100, 0, 0) == 100);
    os.pwritev2 = overtaken_pwritev2;
    aiod_os = &os;
    put_before_failing = put_first;
    CHECK(write_bytes(&direct, memory, 5000, 8192 + 1000, 0) == -EIO && written == 0);
    aiod_os = usual;
    check_size(direct.fd, size);
    check_bytes(direct.fd, wanted, 4096, 0);
    close(direct.fd);
}

static void interrupted_and_short_transfers_continue(void)
{
    struct aiod_direct direct = open_direct(512);

    for (size_t i = 0; i < 30000; i++) {
        memory[i] = pattern(i);
    }
    faults.interrupts = 5;
    faults.transfer_max = (size_t)2 * direct.alignment.offset;
    CHECK(write_bytes(&direct, memory, 20000, 777, 0) == 20000);
    CHECK(write_bytes(&direct, memory, 8192, 65536, 0) == 8192);
    faults.interrupts = 5;
    CHECK(aiod_direct_read(&direct, memory + 40001, 20000, 777) == 20000);
    CHECK(memcmp(memory, memory + 40001, 20000) == 0);
    CHECK(aiod_direct_read(&direct, memory + 65536, 8192, 65536) == 8192);
    CHECK(memcmp(memory, memory + 65536, 8192) == 0);
    faults_reset();
    check_size(direct.fd, 65536 + 8192);
    close(direct.fd);
}

static void read_errors_are_reported(void)
{
    struct aiod_direct direct = open_direct(512);
    int fd = direct.fd;

    CHECK(write_bytes(&direct, memory, 8192, 0, 0) == 8192);
    faults.error = EIO;
    CHECK(aiod_direct_read(&direct, memory, 4096, 0) == -EIO);
    CHECK(aiod_direct_read(&direct, memory, 100, 5) == -EIO);
    CHECK(write_bytes(&direct, memory, 100, 5, 0) == -EIO && written == 0);
    faults_reset();
    direct.fd = -1;
    CHECK(aiod_direct_read(&direct, memory, 100, 5) == -EBADF);
    CHECK(write_bytes(&direct, memory, 100, 5, 0) == -EBADF && written == 0);
    CHECK(write_bytes(&direct, memory, 0, 5, 0) == 0 && written == 0);
    CHECK(range_locks.first == NULL); /* all range locks are released */
    close(fd);
}

/* ---- durable writes ---------------------------------------------------------------------------------------------- */

static char calls[16]; /* calls for the last write: w, W (with RWF_DSYNC), t (truncate), f (flush) */

static void note(char call)
{
    size_t count = strlen(calls);

    CHECK(count + 1 < sizeof(calls));
    calls[count] = call;
}

static ssize_t noting_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    note(flags == RWF_DSYNC ? 'W' : 'w');
    return aiod_os_real.pwritev2(fd, iov, count, offset, flags);
}

static int noting_ftruncate(int fd, off_t size)
{
    note('t');
    return aiod_os_real.ftruncate(fd, size);
}

static int noting_fdatasync(int fd)
{
    note('f');
    return aiod_os_real.fdatasync(fd);
}

static void check_calls(const struct aiod_direct *file, uint64_t length, uint64_t offset, int flags, const char *as)
{
    memset(calls, 0, sizeof(calls));
    CHECK(write_bytes(file, memory, length, offset, flags) == (int64_t)length);
    if (strcmp(calls, as) != 0) {
        fprintf(stderr, "%s, not %s\n", calls, as);
        abort();
    }
}

static void a_durable_write_flushes_its_size(void)
{
    const struct aiod_os *usual = aiod_os;
    struct aiod_direct direct = open_direct(512);
    struct aiod_os os = aiod_os_real;

    os.pwritev2 = noting_pwritev2;
    os.ftruncate = noting_ftruncate;
    os.fdatasync = noting_fdatasync;
    aiod_os = &os;
    check_calls(&direct, 8192, 0, RWF_DSYNC, "W");
    check_calls(&direct, 100, 10, RWF_DSYNC, "W");     /* within the file */
    check_calls(&direct, 100, 8192, RWF_DSYNC, "Wtf"); /* the padded write, the truncation, and its flush */
    check_calls(&direct, 100, 8300, 0, "wt");
    check_calls(&direct, 1024, 10240 - 1024 + 100, 0, "wt");
    check_size(direct.fd, 10240 + 100);
    aiod_os = usual;
    close(direct.fd);
}

static ssize_t full_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    int buffered = open_again(fd, 0);
    ssize_t put = calls[0] == '\0' ? pwrite(buffered, iov->iov_base, 2048, offset) : -1;

    CHECK(count == 1);
    close(buffered);
    note(flags == RWF_DSYNC ? 'W' : 'w');
    errno = ENOSPC;
    return put;
}

/* Its fdatasync() could consume an error that another client's flush must report. */
static void a_failed_durable_write_does_not_flush(void)
{
    const struct aiod_os *usual = aiod_os;
    struct aiod_direct direct = open_direct(4096);
    struct aiod_os os = aiod_os_real;

    os.pwritev2 = full_pwritev2;
    os.ftruncate = noting_ftruncate;
    os.fdatasync = noting_fdatasync;
    aiod_os = &os;
    memset(calls, 0, sizeof(calls));
    CHECK(write_bytes(&direct, memory, 1000, 100, RWF_DSYNC) == -ENOSPC && written == 1000);
    CHECK(strcmp(calls, "WWt") == 0);
    aiod_os = usual;
    check_size(direct.fd, 1100);
    close(direct.fd);
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static unsigned step_count;

static ssize_t stepping_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    step_count++;
    return aiod_os_real.pwritev2(fd, iov, count, offset, flags);
}

static int64_t write_in_one(const struct aiod_direct *file, uint64_t length)
{
    struct iovec whole = {.iov_base = memory, .iov_len = length};

    step_count = 0;
    return aiod_direct_write(file, &whole, 1, 0, 0, &written);
}

static void shared_writes_go_in_steps(void)
{
    const struct aiod_os *usual = aiod_os;
    struct aiod_direct file = open_direct(1);
    struct aiod_os os = *aiod_os;

    os.pwritev2 = stepping_pwritev2;
    aiod_os = &os;
    memset(memory, 'a', SPACE);
    CHECK(write_in_one(&file, SPACE) == SPACE && step_count == 1);
    memset(memory, 'b', SPACE);
    file.in_steps = true;
    CHECK(write_in_one(&file, SPACE) == SPACE && step_count == 2 && written == SPACE);
    memset(memory, 0, SPACE);
    memset(wanted, 'b', SPACE);
    CHECK(aiod_direct_read(&file, memory, SPACE, 0) == SPACE && memcmp(memory, wanted, SPACE) == 0);

    os.pwritev2 = failing_pwritev2;
    writable = SPACE * 3 / 4;
    CHECK(write_in_one(&file, SPACE) == -EIO && written == SPACE * 3 / 4);
    aiod_os = usual;
    close(file.fd);
}

int main(void)
{
    faults_install();
    aiod_buffers_init(&buffers, 1 << 20);
    aiod_range_locks_init(&range_locks);
    memory = aligned_alloc(4096, SPACE + 8192);
    CHECK(memory != NULL);
    for (size_t i = 0; i < SPACE; i++) {
        wanted[i] = pattern(i);
    }
    reads_end_at_the_end_of_the_file();
    reads_go_to_parts();
    readers_of_a_growing_file_see_no_padding();
    a_truncation_before_a_waiting_write_is_respected();
    an_append_follows_a_padded_write();
    another_process_keeps_its_appended_bytes();
    a_failed_write_reports_bytes_and_leaves_no_padding();
    a_failed_write_truncates_no_other_write(0, 4096);
    a_failed_write_truncates_no_other_write(512, 8192);
    interrupted_and_short_transfers_continue();
    read_errors_are_reported();
    shared_writes_go_in_steps();
    a_durable_write_flushes_its_size();
    a_failed_durable_write_does_not_flush();
    random_transfers_match_a_model(0);
    random_transfers_match_a_model(4096);
    concurrent_writers_grow_a_file(0);
    concurrent_writers_grow_a_file(4096);
    writers_that_share_blocks_lose_no_bytes(0, false);
    writers_that_share_blocks_lose_no_bytes(4096, false);
    writers_that_share_blocks_lose_no_bytes(4096, true);
    aiod_range_locks_destroy(&range_locks);
    aiod_buffers_destroy(&buffers);
    free(memory);
    return 0;
}
