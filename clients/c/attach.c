/*
 * attach.c - attach to an engine: connect to its socket, receive the ring's memory and doorbell, and check the memory.
 */
#include "attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "endpoint.h"
#include "error.h"
#include "wire.h"

#define ENTRIES 256u
#define AREA_BYTES (UINT64_C(8) << 20)

static int send_attach(int socket, const struct aiod_options *options, const struct aiod_token *resumed,
                       uint64_t deadline_ns)
{
    int error;
    struct aiod_ring_attach attach = {
        .type = AIOD_RING_ATTACH,
        .version = AIOD_RING_VERSION,
        .entries = options->entries != 0 ? options->entries : ENTRIES,
        .area_bytes = options->area_bytes != 0 ? options->area_bytes : AREA_BYTES,
    };

    if (options->ticket != NULL) {
        memcpy(attach.ticket, options->ticket, sizeof(attach.ticket));
    } else if (resumed != NULL) {
        attach.flags = AIOD_RING_RESUMABLE | (resumed->known ? AIOD_RING_RESUMES : 0);
        memcpy(attach.ticket, resumed->bytes, sizeof(attach.ticket));
    }
    snprintf(attach.software, sizeof(attach.software), "%s", options->software != NULL ? options->software : "libaiod");
    error = aiod_send(socket, &attach, sizeof(attach), deadline_ns);
    return error < 0 ? aiod_fail(error, "cannot send ATTACH: %s", strerror(-error)) : 0;
}

/* Receive the answer to ATTACH, which carries two descriptors: the memory's and the doorbell's. */
static int receive_attached(int socket, union aiod_answer *answer, int fds[2], uint64_t deadline_ns)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = answer, .iov_len = sizeof(*answer)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    ssize_t got = aiod_receive_by(socket, &message, deadline_ns);
    struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    if (got <= 0) {
        return aiod_fail(got < 0 ? (int)got : -ECONNRESET, "no answer to ATTACH from the engine");
    }
    if (header == NULL || header->cmsg_type != SCM_RIGHTS) {
        return aiod_fail_refused(answer, (size_t)got);
    }
    if (header->cmsg_len != CMSG_LEN(2 * sizeof(int))) {
        memcpy(fds, CMSG_DATA(header), sizeof(int));
        close(fds[0]);
        return aiod_fail_refused(answer, (size_t)got);
    }
    memcpy(fds, CMSG_DATA(header), 2 * sizeof(int));
    if ((size_t)got < sizeof(answer->attached) || answer->type != AIOD_RING_ATTACHED) {
        close(fds[0]);
        close(fds[1]);
        return aiod_fail_refused(answer, (size_t)got);
    }
    return 0;
}

/* The memory is as large as announced, and sealed, so that no access can fault because the file was cut. */
static int check_seals(int memory_fd, uint64_t bytes)
{
    const int wanted = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;
    int seals = fcntl(memory_fd, F_GET_SEALS);
    struct stat status;

    if (seals < 0 || (seals & wanted) != wanted || fstat(memory_fd, &status) < 0 || (uint64_t)status.st_size != bytes) {
        return aiod_fail(-EPROTO,
                         "the ring's memory is not sealed, or does not have the size that the engine announced");
    }
    return 0;
}

static bool is_power_of_two(uint32_t number)
{
    return number != 0 && (number & (number - 1)) == 0;
}

/* Do the queues and the buffer area lie in the memory, in order? */
static bool is_consistent(const struct aiod_ring_header *header, uint64_t bytes)
{
    return header->memory_bytes == bytes && is_power_of_two(header->entries) &&
           header->entries <= AIOD_RING_ENTRIES_MAX && header->sq_offset >= sizeof(*header) &&
           header->sq_offset % AIOD_RING_LINE_BYTES == 0 && header->cq_offset % AIOD_RING_LINE_BYTES == 0 &&
           header->area_offset % 4096 == 0 && header->area_offset <= bytes &&
           header->area_bytes <= bytes - header->area_offset && header->cq_offset <= header->area_offset &&
           header->sq_offset <= header->cq_offset &&
           header->entries * sizeof(struct aiod_ring_sqe) <= header->cq_offset - header->sq_offset &&
           header->entries * sizeof(struct aiod_ring_cqe) <= header->area_offset - header->cq_offset;
}

/* Map the memory and check its header. */
static int map_memory(struct aiod_attachment *attachment, int memory_fd)
{
    const struct aiod_ring_header *header;
    int error = check_seals(memory_fd, attachment->bytes);

    if (error < 0) {
        return error;
    }
    if (attachment->bytes < sizeof(*header)) {
        return aiod_fail(-EPROTO, "the ring's memory is too small");
    }
    attachment->base = mmap(NULL, attachment->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    if (attachment->base == MAP_FAILED) {
        return aiod_fail(-errno, "cannot map the ring's memory: %s", strerror(errno));
    }
    if (madvise(attachment->base, attachment->bytes, MADV_DONTFORK) < 0) {
        return aiod_fail(-errno, "cannot exclude the ring's memory from forked children: %s", strerror(errno));
    }
    header = (const struct aiod_ring_header *)(const void *)attachment->base;
    if (header->magic != AIOD_RING_MAGIC || header->version != AIOD_RING_VERSION) {
        return aiod_fail(-EPROTO, "the ring's memory is not that of a ring of version %u", AIOD_RING_VERSION);
    }
    return is_consistent(header, attachment->bytes)
               ? 0
               : aiod_fail(-EPROTO, "the header of the ring's memory is inconsistent");
}

/* A token of zeros: an older engine, which sends none. */
static void take_token(struct aiod_attachment *attachment, const struct aiod_ring_session *session)
{
    static const uint8_t none[AIOD_RING_TICKET_BYTES];

    memcpy(attachment->token.bytes, session->token, sizeof(session->token));
    attachment->token.known = memcmp(session->token, none, sizeof(none)) != 0;
    attachment->grace = attachment->token.known && (session->flags & AIOD_RING_IN_GRACE) != 0;
}

static int negotiate(struct aiod_attachment *attachment, const struct aiod_options *options,
                     const struct aiod_token *resumed, uint64_t deadline_ns)
{
    union aiod_answer answer = {.bytes = {0}};
    int fds[2];
    int error = send_attach(attachment->socket, options, resumed, deadline_ns);

    if (error == 0) {
        error = receive_attached(attachment->socket, &answer, fds, deadline_ns);
    }
    if (error < 0) {
        return error;
    }
    attachment->doorbell = fds[1];
    attachment->bytes = answer.attached.memory_bytes;
    attachment->request_bytes_max = answer.attached.request_bytes_max;
    attachment->features = answer.attached.features;
    take_token(attachment, &answer.session);
    error = map_memory(attachment, fds[0]);
    close(fds[0]);
    return error;
}

int aiod_attachment_get(struct aiod_attachment *attachment, const char *path, const char *directory,
                        const struct aiod_options *options, const struct aiod_token *resumed, uint64_t deadline_ns)
{
    int error;

    *attachment = (struct aiod_attachment){.doorbell = -1, .base = MAP_FAILED};
    error = attachment->socket = aiod_socket_connect(path, deadline_ns);
    if (error >= 0 && directory != NULL) {
        error = aiod_check_server(attachment->socket, path, directory);
    }
    if (error >= 0) {
        error = negotiate(attachment, options, resumed, deadline_ns);
    }
    if (error < 0) {
        aiod_attachment_release(attachment);
        return error;
    }
    return 0;
}

void aiod_attachment_release(const struct aiod_attachment *attachment)
{
    if (attachment->socket >= 0) {
        close(attachment->socket);
    }
    if (attachment->doorbell >= 0) {
        close(attachment->doorbell);
    }
    if (attachment->base != MAP_FAILED) {
        munmap(attachment->base, attachment->bytes);
    }
}
