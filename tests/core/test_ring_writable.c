/* Files that a ring opens for writing: what the descriptor store hears of each, in which order, and what is refused. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define AREA_BYTES 65536u
#define DATA_AT 8192u
#define LENT 8u
#define CREATE (AIOD_OPEN_WRITE | AIOD_OPEN_CREATE)

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static struct raw_ring ring;
static uint32_t names;
static int store;
static unsigned collected_before; /* the supervisor's end */

static char *area(void)
{
    return ring.base + ring.header->area_offset;
}

static struct aiod_ring_cqe submit(struct aiod_ring_sqe entry)
{
    return raw_carry_out(&ring, entry);
}

static struct aiod_ring_cqe try_to_open(const char *path, uint32_t flags, uint32_t mode)
{
    const struct aiod_ring_open_file wanted = {.flags = flags, .mode = mode};
    size_t path_bytes = strlen(path);

    memcpy(area(), &wanted, sizeof(wanted));
    memcpy(area() + sizeof(wanted), path, path_bytes);
    return submit((struct aiod_ring_sqe){.op = AIOD_RING_OPEN_WRITABLE,
                                         .handle = names,
                                         .source = (uint32_t)(sizeof(wanted) + path_bytes),
                                         .length = sizeof(struct aiod_ring_opened)});
}

/* A number is free, or will be when the main loop has collected. */
static struct aiod_ring_opened open_file(const char *path, uint32_t flags)
{
    struct aiod_ring_opened opened;
    struct aiod_ring_cqe end;

    do {
        end = try_to_open(path, flags, 0640);
    } while (end.result == -EAGAIN && end.reason == AIOD_RING_LIMIT);
    CHECK(end.result == sizeof(opened));
    memcpy(&opened, area(), sizeof(opened));
    return opened;
}

static int64_t io(enum aiod_ring_op op, uint64_t handle, uint64_t offset, uint64_t length)
{
    return submit((struct aiod_ring_sqe){.op = (uint16_t)op,
                                         .handle = (uint32_t)handle,
                                         .offset = offset,
                                         .length = length,
                                         .buffer = DATA_AT})
        .result;
}

static int64_t close_file(uint64_t handle)
{
    return submit((struct aiod_ring_sqe){.op = AIOD_RING_CLOSE_FILE, .handle = (uint32_t)handle}).result;
}

/* ---- the store --------------------------------------------------------------------------------------------------- */

struct notice {
    unsigned char bytes[256];
    size_t count;
    int fd; /* -1: none */
};

/* The next message that is there already; an empty one if there is none. */
static struct notice receive(void)
{
    struct notice notice = {.fd = -1};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = notice.bytes, .iov_len = sizeof(notice.bytes)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    ssize_t count = recvmsg(store, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    notice.count = count > 0 ? (size_t)count : 0;
    if (count > 0 && CMSG_FIRSTHDR(&message) != NULL) {
        memcpy(&notice.fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    }
    return notice;
}

static uint64_t number_at(const unsigned char *bytes)
{
    uint64_t number = 0;

    CHECK(bytes[0] == 0xcf);
    for (unsigned i = 1; i <= 8; i++) {
        number = number << 8 | bytes[i];
    }
    return number;
}

/* The message is there as soon as the client knows of the file: before it can write. The file's descriptor. */
static int check_kept(const struct aiod_ring_opened *opened, uint32_t flags)
{
    static const char head[] = "\x94\xa4keep\xc4\x02tk";
    struct notice kept = receive();
    struct stat status;

    CHECK(kept.fd >= 0 && kept.count == sizeof(head) - 1 + 9 + 2 + 27);
    CHECK(memcmp(kept.bytes, head, sizeof(head) - 1) == 0);
    CHECK(number_at(kept.bytes + sizeof(head) - 1) == opened->handle);
    CHECK(memcmp(kept.bytes + sizeof(head) + 8, "\x96p", 2) == 0);
    CHECK(number_at(kept.bytes + kept.count - 27) == flags);
    CHECK(fstat(kept.fd, &status) == 0 && status.st_ino == opened->inode && status.st_dev == opened->device);
    CHECK(number_at(kept.bytes + kept.count - 9) == status.st_ino);
    return kept.fd;
}

static void check_dropped(uint64_t handle)
{
    static const char head[] = "\x93\xa4"
                               "drop\xc4\x02tk";
    struct notice dropped = receive();

    CHECK(dropped.fd < 0 && dropped.count == sizeof(head) - 1 + 9);
    CHECK(memcmp(dropped.bytes, head, sizeof(head) - 1) == 0);
    CHECK(number_at(dropped.bytes + sizeof(head) - 1) == handle);
}

/* Close it: the ring tells the store, or, if the main loop has collected the file, that one would (not this engine's). */
static void close_and_check_dropped(uint64_t handle)
{
    unsigned collected = collected_before;

    CHECK(close_file(handle) == 0);
    collected_before = engine_collected();
    if (collected_before == collected) {
        check_dropped(handle);
    }
}

static void drain_store(void)
{
    struct notice notice;

    while ((notice = receive()).count > 0) {
        if (notice.fd >= 0) {
            close(notice.fd);
        }
    }
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static void a_file_is_kept_before_it_is_written_to(void)
{
    struct aiod_ring_opened opened = open_file("new", CREATE | AIOD_OPEN_READ);
    int kept = check_kept(&opened, AIOD_OPEN_WRITE | AIOD_OPEN_READ);
    char data[5];

    CHECK(opened.size == 0);
    memcpy(area() + DATA_AT, "12345", 5);
    CHECK(io(AIOD_RING_WRITE, opened.handle, 0, 5) == 5);
    CHECK(submit((struct aiod_ring_sqe){.op = AIOD_RING_FLUSH, .handle = (uint32_t)opened.handle}).result == 0);
    CHECK(io(AIOD_RING_READ, opened.handle, 0, 5) == 5);
    CHECK(pread(kept, data, 5, 0) == 5 && memcmp(data, "12345", 5) == 0);
    close(kept);
    close_and_check_dropped(opened.handle);
    CHECK(io(AIOD_RING_READ, opened.handle, 0, 5) == -EBADF);
    CHECK(receive().count == 0);
}

static void files_come_and_go(void)
{
    for (unsigned i = 0; i < 300; i++) {
        struct aiod_ring_opened opened = open_file("cycle", CREATE | AIOD_OPEN_TRUNCATE);

        close(check_kept(&opened, AIOD_OPEN_WRITE));
        CHECK(io(AIOD_RING_READ, opened.handle, 0, 5) == -EBADF);
        CHECK(io(AIOD_RING_WRITE, opened.handle, i, 5) == 5);
        close_and_check_dropped(opened.handle);
    }
}

/* The descriptor for flushes belongs to the handle that was first, and stays while others are open. */
static void handles_of_one_file_are_closed_in_any_order(void)
{
    for (unsigned round = 0; round < 3; round++) {
        struct aiod_ring_opened opened[3];

        for (unsigned i = 0; i < 3; i++) {
            opened[i] = open_file("shared", CREATE);
        }
        for (unsigned i = 0; i < 3; i++) {
            uint64_t handle = opened[(i + round) % 3].handle;

            CHECK(io(AIOD_RING_WRITE, handle, 0, 5) == 5);
            CHECK(submit((struct aiod_ring_sqe){.op = AIOD_RING_FLUSH, .handle = (uint32_t)handle}).result == 0);
            close_file(handle);
        }
        drain_store();
    }
}

static void flags_have_their_effects(void)
{
    struct aiod_ring_opened opened = open_file("flags", CREATE | AIOD_OPEN_EXCLUSIVE);
    struct stat status;
    char path[256];

    snprintf(path, sizeof(path), "%s/flags", base);
    CHECK(stat(path, &status) == 0 && (status.st_mode & 0777) == (0640 & ~022));
    CHECK(io(AIOD_RING_WRITE, opened.handle, 0, 5) == 5);
    CHECK(try_to_open("flags", CREATE | AIOD_OPEN_EXCLUSIVE, 0600).result == -EEXIST);
    opened = open_file("flags", AIOD_OPEN_WRITE | AIOD_OPEN_APPEND);
    CHECK(opened.size == 5 && io(AIOD_RING_WRITE, opened.handle, 0, 5) == -EBADF);
    CHECK(io(AIOD_RING_APPEND, opened.handle, 0, 5) == 5);
    opened = open_file("flags", AIOD_OPEN_WRITE | AIOD_OPEN_TRUNCATE);
    CHECK(opened.size == 0 && stat(path, &status) == 0 && status.st_size == 0);
    drain_store();
}

static void check_refused(struct aiod_ring_cqe end)
{
    CHECK(end.result == -EINVAL && end.reason == AIOD_RING_BAD_ENTRY);
}

static void wrong_requests_are_refused(void)
{
    static char long_path[4097];
    struct aiod_ring_sqe short_record = {
        .op = AIOD_RING_OPEN_WRITABLE, .handle = names, .source = 7, .length = sizeof(struct aiod_ring_opened)};

    check_refused(try_to_open("a", AIOD_OPEN_READ, 0));
    check_refused(try_to_open("a", 0, 0));
    check_refused(try_to_open("a", AIOD_OPEN_WRITE | AIOD_OPEN_EXCLUSIVE, 0));
    check_refused(try_to_open("a", AIOD_OPEN_WRITE | AIOD_OPEN_DIRECT, 0));
    check_refused(try_to_open("a", AIOD_OPEN_WRITE | AIOD_OPEN_NAMES, 0));
    check_refused(try_to_open("a", AIOD_OPEN_WRITE | 1u << 31, 0));
    check_refused(try_to_open("a", CREATE, 01777));
    check_refused(try_to_open("\xff", CREATE, 0));
    check_refused(submit(short_record));
    memset(long_path, 'p', sizeof(long_path) - 1);
    check_refused(try_to_open(long_path, CREATE, 0));
    CHECK(try_to_open("missing", AIOD_OPEN_WRITE, 0).result == -ENOENT);
    CHECK(try_to_open("../a", CREATE, 0).result == -EACCES && try_to_open("", CREATE, 0).result == -EISDIR);
    CHECK(receive().count == 0);
}

/*
 * A file that the store could not get, since nobody reads, is passed on by the main loop: the ring does not close it. On a slow
 * machine the main loop has it already.
 */
static void a_file_that_is_not_kept_is_left_to_the_main_loop(void)
{
    int full;
    unsigned collected = engine_collected();
    struct aiod_ring_opened opened;

    CHECK((full = fcntl(store, F_DUPFD_CLOEXEC, 0)) >= 0);
    CHECK(shutdown(store, SHUT_RD) == 0);
    opened = open_file("unkept", CREATE);
    CHECK(io(AIOD_RING_WRITE, opened.handle, 0, 5) == 5);
    CHECK(close_file(opened.handle) == -EAGAIN || engine_collected() > collected);
    close(full);
}

int main(void)
{
    struct engine_config config = {
        .inline_read_max = 65536,
        .poll_max_ns = 50000,
        .max_threads = 2,
        .handles_max = 64,
        .root = base,
        .lent = LENT,
        .keeping = {.token = "\xc4\x02tk", .token_bytes = 4, .record = "\x96p", .record_bytes = 2},
    };
    const char *socket_path;
    int ends[2];
    int file;

    umask(022);
    CHECK(mkdtemp(base) != NULL);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    store = ends[0];
    config.notice_socket = ends[1];
    file = scratch_file(O_RDWR);
    socket_path = engine_start(&config);
    engine_add_file("open", file);
    raw_attach(&ring, socket_path, 16, AREA_BYTES, "open");
    names = raw_open_names(&ring);
    a_file_is_kept_before_it_is_written_to();
    files_come_and_go();
    handles_of_one_file_are_closed_in_any_order();
    flags_have_their_effects();
    wrong_requests_are_refused();
    a_file_that_is_not_kept_is_left_to_the_main_loop();
    raw_detach(&ring); /* with files open */
    engine_wait_empty();
    engine_stop();
    close(ends[0]);
    close(ends[1]);
    close(file);
    scratch_remove_tree(base);
    return 0;
}
