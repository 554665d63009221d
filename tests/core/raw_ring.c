#include "raw_ring.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "check.h"

static void map(struct raw_ring *ring)
{
    ring->base = mmap(NULL, ring->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring->memory, 0);
    CHECK(ring->base != MAP_FAILED);
    ring->header = (struct aiod_ring_header *)(void *)ring->base;
    ring->sqes = (struct aiod_ring_sqe *)(void *)(ring->base + ring->header->sq_offset);
    ring->cqes = (struct aiod_ring_cqe *)(void *)(ring->base + ring->header->cq_offset);
}

static void receive_fds(struct raw_ring *ring)
{
    struct aiod_ring_attached answer;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = &answer, .iov_len = sizeof(answer)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    int fds[2];

    CHECK(recvmsg(ring->socket, &message, MSG_CMSG_CLOEXEC) == sizeof(answer));
    memcpy(fds, CMSG_DATA(&control.header), sizeof(fds));
    ring->memory = fds[0];
    ring->doorbell = fds[1];
    ring->bytes = answer.memory_bytes;
    map(ring);
}

static uint32_t open_file(const struct raw_ring *ring, const char *name, uint32_t flags)
{
    struct {
        struct aiod_ring_open open;
        char path[32];
    } open = {.open = {.type = AIOD_RING_OPEN, .flags = flags}};
    int length = snprintf(open.path, sizeof(open.path), "x/%s", name);
    struct aiod_ring_reply reply;

    CHECK(send(ring->socket, &open, sizeof(open.open) + (size_t)length, 0) > 0);
    CHECK(recv(ring->socket, &reply, sizeof(reply), 0) == sizeof(reply) && reply.result > 0);
    return (uint32_t)reply.result;
}

uint32_t raw_open_names(const struct raw_ring *ring)
{
    return open_file(ring, "", AIOD_OPEN_NAMES);
}

void raw_begin_attach(struct raw_ring *ring, const char *path, uint32_t entries, uint64_t area_bytes)
{
    struct aiod_ring_attach attach = {
        .type = AIOD_RING_ATTACH, .version = AIOD_RING_VERSION, .entries = entries, .area_bytes = area_bytes};
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    ring->entries = entries;
    ring->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(connect(ring->socket, (const struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(send(ring->socket, &attach, sizeof(attach), 0) == sizeof(attach));
}

void raw_finish_attach(struct raw_ring *ring, const char *name)
{
    receive_fds(ring);
    ring->handle = open_file(ring, name, AIOD_OPEN_READ | AIOD_OPEN_WRITE);
}

void raw_attach(struct raw_ring *ring, const char *path, uint32_t entries, uint64_t area_bytes, const char *name)
{
    raw_begin_attach(ring, path, entries, area_bytes);
    raw_finish_attach(ring, name);
}

int raw_refused(struct raw_ring *ring)
{
    struct aiod_ring_reply reply;

    CHECK(recv(ring->socket, &reply, sizeof(reply), 0) == sizeof(reply) && reply.type == AIOD_RING_REPLY &&
          reply.result < 0);
    close(ring->socket);
    return (int)-reply.result;
}

void raw_put(const struct raw_ring *ring, uint32_t index, const struct aiod_ring_sqe *entry)
{
    uint64_t *to = (uint64_t *)(void *)&ring->sqes[index % ring->entries];
    uint64_t words[sizeof(*entry) / sizeof(uint64_t)];

    memcpy(words, entry, sizeof(*entry));
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        __atomic_store_n(&to[i], words[i], __ATOMIC_RELAXED);
    }
}

void raw_submit(const struct raw_ring *ring, uint32_t tail)
{
    __atomic_store_n(&ring->header->sq_tail, tail, __ATOMIC_SEQ_CST);
}

struct aiod_ring_withdrawal *raw_withdrawal(const struct raw_ring *ring)
{
    return (struct aiod_ring_withdrawal *)(void *)(ring->header + 1);
}

void raw_ring_doorbell(const struct raw_ring *ring)
{
    uint64_t one = 1;

    CHECK(write(ring->doorbell, &one, sizeof(one)) == sizeof(one));
}

bool raw_has_ended(const struct raw_ring *ring)
{
    char byte;
    ssize_t got = recv(ring->socket, &byte, 1, MSG_DONTWAIT);

    return got == 0 || (got < 0 && errno != EAGAIN);
}

void raw_wait_ended(const struct raw_ring *ring)
{
    struct pollfd fd = {.fd = ring->socket, .events = POLLIN};

    CHECK(poll(&fd, 1, (int)WAIT_MS) == 1 && raw_has_ended(ring));
}

void raw_wait_completed(const struct raw_ring *ring, uint32_t tail)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

    while ((int32_t)(__atomic_load_n(&ring->header->cq_tail, __ATOMIC_SEQ_CST) - tail) < 0) {
        CHECK(aiod_now_ns() < end_ns);
        sched_yield();
    }
}

struct aiod_ring_cqe raw_carry_out(const struct raw_ring *ring, struct aiod_ring_sqe entry)
{
    uint32_t tail = ring->header->sq_tail;

    entry.cookie = tail;
    raw_put(ring, tail, &entry);
    raw_submit(ring, tail + 1);
    raw_ring_doorbell(ring);
    raw_wait_completed(ring, tail + 1);
    __atomic_store_n(&ring->header->cq_head, tail + 1, __ATOMIC_RELEASE);
    return ring->cqes[tail % ring->entries];
}

void raw_detach(struct raw_ring *ring)
{
    close(ring->socket);
    close(ring->doorbell);
    close(ring->memory);
    munmap(ring->base, ring->bytes);
}
