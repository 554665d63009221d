/*
 * session.c - a session's birth and end: what comes by the socket, and what is given back.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"

#define ENTRIES 256u
#define AREA_BYTES (UINT64_C(8) << 20)
#define SPIN_MAX_NS UINT64_C(100000)
#define CALL_TIMEOUT_MS 30000u

/* ---- attaching ------------------------------------------------------------------------------------------------------ */

static int send_attach(int socket, const struct aiod_options *options, uint64_t deadline_ns)
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
    }
    snprintf(attach.software, sizeof(attach.software), "%s", options->software != NULL ? options->software : "libaiod");
    error = aiod_send(socket, &attach, sizeof(attach), deadline_ns);
    return error < 0 ? aiod_fail(error, "ATTACH: %s", strerror(-error)) : 0;
}

int aiod_refused(const union aiod_answer *answer, size_t length)
{
    if (length < sizeof(answer->reply) || answer->reply.type != AIOD_RING_REPLY || answer->reply.result >= 0) {
        return aiod_fail(-EPROTO, "the engine's answer makes no sense: is it of another version?");
    }
    return aiod_fail((int)answer->reply.result, "%.*s", (int)(length - sizeof(answer->reply)),
                     answer->bytes + sizeof(answer->reply));
}

/* The engine's answer to ATTACH: two descriptors come along, or none. */
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
        return aiod_fail(got < 0 ? (int)got : -ECONNRESET, "the engine has not answered ATTACH");
    }
    if (header == NULL || header->cmsg_type != SCM_RIGHTS) {
        return aiod_refused(answer, (size_t)got);
    }
    if (header->cmsg_len != CMSG_LEN(2 * sizeof(int))) {
        memcpy(fds, CMSG_DATA(header), sizeof(int));
        close(fds[0]);
        return aiod_refused(answer, (size_t)got);
    }
    memcpy(fds, CMSG_DATA(header), 2 * sizeof(int));
    if ((size_t)got < sizeof(answer->attached) || answer->type != AIOD_RING_ATTACHED) {
        close(fds[0]);
        close(fds[1]);
        return aiod_refused(answer, (size_t)got);
    }
    return 0;
}

/* Nobody can cut it or let it grow, and it is as large as was said: so no access can fault because it was cut. */
static int check_seals(int memory_fd, uint64_t bytes)
{
    const int wanted = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;
    int seals = fcntl(memory_fd, F_GET_SEALS);
    struct stat status;

    if (seals < 0 || (seals & wanted) != wanted || fstat(memory_fd, &status) < 0 || (uint64_t)status.st_size != bytes) {
        return aiod_fail(-EPROTO, "the ring's memory is not sealed, or not as large as the engine says");
    }
    return 0;
}

static bool is_power_of_two(uint32_t number)
{
    return number != 0 && (number & (number - 1)) == 0;
}

/* Do the queues and the area lie in the memory, one after the other? */
static bool makes_sense(const struct aiod_ring_header *header, uint64_t bytes)
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

/* Map the memory, and look whether it is what we know. */
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
        return aiod_fail(-errno, "the ring's memory cannot be mapped: %s", strerror(errno));
    }
    if (madvise(attachment->base, attachment->bytes, MADV_DONTFORK) < 0) {
        return aiod_fail(-errno, "the ring's memory cannot be kept from forked children: %s", strerror(errno));
    }
    header = (const struct aiod_ring_header *)(const void *)attachment->base;
    if (header->magic != AIOD_RING_MAGIC || header->version != AIOD_RING_VERSION) {
        return aiod_fail(-EPROTO, "the ring's memory is not of version %u", AIOD_RING_VERSION);
    }
    return makes_sense(header, attachment->bytes) ? 0 : aiod_fail(-EPROTO, "the ring's memory makes no sense");
}

static int take_over(struct aiod_attachment *attachment, const struct aiod_options *options, uint64_t deadline_ns)
{
    union aiod_answer answer;
    int fds[2];
    int error = send_attach(attachment->socket, options, deadline_ns);

    if (error == 0) {
        error = receive_attached(attachment->socket, &answer, fds, deadline_ns);
    }
    if (error < 0) {
        return error;
    }
    attachment->doorbell = fds[1];
    attachment->bytes = answer.attached.memory_bytes;
    attachment->request_bytes_max = answer.attached.request_bytes_max;
    error = map_memory(attachment, fds[0]);
    close(fds[0]);
    return error;
}

int aiod_get_attached(struct aiod_attachment *attachment, const char *path, const char *directory,
                      const struct aiod_options *options, uint64_t deadline_ns)
{
    int error;

    *attachment = (struct aiod_attachment){.doorbell = -1, .base = MAP_FAILED};
    error = attachment->socket = aiod_dial(path, deadline_ns);
    if (error >= 0 && directory != NULL) {
        error = aiod_check_server(attachment->socket, path, directory);
    }
    if (error >= 0) {
        error = take_over(attachment, options, deadline_ns);
    }
    if (error < 0) {
        aiod_give_back(attachment);
        return error;
    }
    return 0;
}

void aiod_give_back(const struct aiod_attachment *attachment)
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

/* ---- birth and end -------------------------------------------------------------------------------------------------- */

static void adopt(struct aiod_client *client, const struct aiod_attachment *attachment)
{
    struct aiod_ring_header *header = (struct aiod_ring_header *)(void *)attachment->base;

    client->socket = attachment->socket;
    client->doorbell = attachment->doorbell;
    client->engine_pid = aiod_peer(client->socket);
    client->base = attachment->base;
    client->request_bytes_max = attachment->request_bytes_max;
    client->header = header;
    client->entries = header->entries;
    client->sqes = (struct aiod_ring_sqe *)(void *)(client->base + header->sq_offset);
    client->cqes = (struct aiod_ring_cqe *)(void *)(client->base + header->cq_offset);
    client->queue_bytes = header->area_offset;
    client->area_base = client->base + header->area_offset;
    client->area_bytes = header->area_bytes;
}

static int make_books(struct aiod_client *client)
{
    client->places = calloc(client->entries, sizeof(struct aiod_op *));
    client->free_places = calloc(client->entries, sizeof(*client->free_places));
    if (client->places == NULL || client->free_places == NULL || !aiod_area_init(&client->area, client->area_bytes)) {
        client->entries = 0; /* for the end */
        return aiod_fail(-ENOMEM, "no memory");
    }
    for (uint32_t i = 0; i < client->entries; i++) {
        client->free_places[i] = client->entries - 1 - i;
    }
    client->done_tail = &client->done;
    return 0;
}

static uint64_t call_timeout(const struct aiod_options *options)
{
    uint64_t timeout_ms = options->call_timeout_ms != 0 ? options->call_timeout_ms : CALL_TIMEOUT_MS;

    return timeout_ms == UINT32_MAX ? AIOD_NEVER : timeout_ms * 1000000;
}

static int attach(struct aiod_client **result, const char *socket_path, const char *directory,
                  const struct aiod_options *options)
{
    struct aiod_client *client = calloc(1, sizeof(*client));
    uint64_t timeout_ns = call_timeout(options);
    struct aiod_attachment attachment;
    int error;

    if (client == NULL) {
        return aiod_fail(-ENOMEM, "no memory");
    }
    error = aiod_get_attached(&attachment, socket_path, directory, options, aiod_deadline(timeout_ns));
    if (error < 0) {
        free(client);
        return error;
    }
    client->epoll = client->bell = -1;
    aiod_remember_process(client);
    adopt(client, &attachment);
    client->call_timeout_ns = timeout_ns;
    client->looking.max_ns = options->never_spin ? 0 : options->spin_max_ns != 0 ? options->spin_max_ns : SPIN_MAX_NS;
    pthread_mutex_init(&client->lock, NULL);
    pthread_mutex_init(&client->socket_lock, NULL);
    error = make_books(client);
    if (error == 0 && options->reconnect_timeout_ms != 0 && options->ticket == NULL) {
        error = aiod_resume_init(client, socket_path, directory, options);
    }
    if (error < 0) {
        aiod_disconnect(client);
        return error;
    }
    *result = client;
    return 0;
}

static const struct aiod_options defaults;

int aiod_attach(struct aiod_client **client, const char *socket_path, const struct aiod_options *options)
{
    return attach(client, socket_path, NULL, options != NULL ? options : &defaults);
}

int aiod_connect(struct aiod_client **client, const char *export_name, const struct aiod_options *given)
{
    const struct aiod_options *options = given != NULL ? given : &defaults;
    char directory[AIOD_DIRECTORY_BYTES];
    char path[sizeof(directory) + 256];
    bool named;
    int error = aiod_find_directory(directory, options->endpoint, &named);

    if (error < 0) {
        return error;
    }
    if (strlen(export_name) > 128 || strchr(export_name, '/') != NULL) {
        return aiod_fail(-EINVAL, "\"%.128s\" is no export's name", export_name);
    }
    snprintf(path, sizeof(path), "%s/ring/%s", directory, export_name);
    return attach(client, path, named ? NULL : directory, options);
}

void aiod_shutdown(struct aiod_client *client)
{
    struct aiod_ring_goodbye goodbye = {.type = AIOD_RING_GOODBYE};

    if (aiod_forked(client)) {
        return;
    }
    /* Under the lock: else it might be another engine's socket by the time that the session is said to have ended. */
    pthread_mutex_lock(&client->lock);
    (void)aiod_send_now(client->socket, &goodbye, sizeof(goodbye));
    shutdown(client->socket, SHUT_RDWR);
    aiod_end_session(client, ESHUTDOWN);
    pthread_mutex_unlock(&client->lock);
}

void aiod_disconnect(struct aiod_client *client)
{
    aiod_shutdown(client);
    if (client->resume != NULL) {
        aiod_resume_destroy(client);
    }
    aiod_loop_destroy(client);
    close(client->socket);
    close(client->doorbell);
    if (!aiod_forked(client)) { /* there it may be another mapping's place by now */
        munmap(client->area_base, client->area_bytes);
        munmap(client->base, client->queue_bytes);
    }
    if (client->area.blocks != NULL) {
        aiod_area_destroy(&client->area);
    }
    free(client->places);
    free(client->free_places);
    pthread_mutex_destroy(&client->lock);
    pthread_mutex_destroy(&client->socket_lock);
    free(client);
}

int aiod_ended(struct aiod_client *client)
{
    int ended;

    if (aiod_forked(client)) {
        return EBADF;
    }
    pthread_mutex_lock(&client->lock);
    ended = client->ended;
    pthread_mutex_unlock(&client->lock);
    return ended;
}

unsigned aiod_last_word(const struct aiod_client *client)
{
    return aiod_forked(client) ? 0 : __atomic_load_n(&client->header->last_word, __ATOMIC_ACQUIRE);
}

uint64_t aiod_request_bytes_max(const struct aiod_client *client)
{
    uint64_t largest = aiod_area_largest(&client->area);

    return client->request_bytes_max < largest ? client->request_bytes_max : largest;
}
