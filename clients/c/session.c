/*
 * session.c - the beginning and the end of a client.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "attach.h"
#include "client.h"
#include "clock.h"
#include "endpoint.h"
#include "error.h"
#include "forks.h"
#include "resume.h"
#include "ring_files.h"
#include "session_end.h"
#include "wire.h"

#define SPIN_MAX_NS UINT64_C(100000)
#define SHORT_SPIN_MAX_NS UINT64_C(5000)
#define CALL_TIMEOUT_MS 30000u

static void connection_lost(struct aiod_client *client)
{
    aiod_end_session(client, ECONNRESET);
}

static bool completed(struct aiod_client *client, struct aiod_op *op)
{
    aiod_ring_file_call_completed(client, op);
    return true;
}

/* Of a client whose session ends with its engine. */
static const struct aiod_queue_hooks hooks = {.completed = completed, .connection_lost = connection_lost};

static const struct aiod_token no_token;

/* ---- beginning --------------------------------------------------------------------------------------------------- */

static void adopt(struct aiod_client *client, const struct aiod_attachment *attachment)
{
    struct aiod_ring_header *header = (struct aiod_ring_header *)(void *)attachment->base;

    client->socket = attachment->socket;
    client->doorbell = attachment->doorbell;
    client->engine_pid = aiod_socket_peer(client->socket);
    client->base = attachment->base;
    client->request_bytes_max = attachment->request_bytes_max;
    client->features = attachment->features;
    client->header = header;
    client->entries = header->entries;
    client->sqes = (struct aiod_ring_sqe *)(void *)(client->base + header->sq_offset);
    client->cqes = (struct aiod_ring_cqe *)(void *)(client->base + header->cq_offset);
    client->queue_bytes = header->area_offset;
}

static int allocate(struct aiod_client *client)
{
    const struct aiod_ring_header *header = client->header;
    bool has_areas = aiod_areas_init(&client->areas, client->base + header->area_offset, header->area_bytes);

    if (!aiod_queue_init(client) || !has_areas) {
        client->entries = 0; /* aiod_disconnect() finds no slots */
        return aiod_fail(-ENOMEM, "out of memory");
    }
    return 0;
}

static uint64_t call_timeout_ns(const struct aiod_options *options)
{
    uint64_t timeout_ms = options->call_timeout_ms != 0 ? options->call_timeout_ms : CALL_TIMEOUT_MS;

    return timeout_ms == UINT32_MAX ? AIOD_NEVER : timeout_ms * AIOD_NS_PER_MS;
}

static int attach(struct aiod_client **result, const char *socket_path, const char *directory,
                  const struct aiod_options *options)
{
    struct aiod_client *client = calloc(1, sizeof(*client));
    uint64_t timeout_ns = call_timeout_ns(options);
    bool resumable = options->reconnect_timeout_ms != 0 && options->ticket == NULL;
    struct aiod_attachment attachment;
    int error;

    if (client == NULL) {
        return aiod_fail(-ENOMEM, "out of memory");
    }
    error = aiod_attachment_get(&attachment, socket_path, directory, options, resumable ? &no_token : NULL,
                                aiod_deadline(timeout_ns));
    if (error < 0) {
        free(client);
        return error;
    }
    aiod_remember_process(client);
    adopt(client, &attachment);
    aiod_loop_init(&client->loop);
    client->hooks = &hooks;
    client->call_timeout_ns = timeout_ns;
    client->polling.max_ns = options->never_spin ? 0 : options->spin_max_ns != 0 ? options->spin_max_ns : SPIN_MAX_NS;
    client->short_polling.max_ns =
        client->polling.max_ns < SHORT_SPIN_MAX_NS ? client->polling.max_ns : SHORT_SPIN_MAX_NS;
    pthread_mutex_init(&client->lock, NULL);
    pthread_mutex_init(&client->socket_lock, NULL);
    error = allocate(client);
    if (error == 0 && resumable) {
        error = aiod_resume_init(client, socket_path, directory, options, &attachment.token);
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
        return aiod_fail(-EINVAL, "\"%.128s\" is not the name of an export", export_name);
    }
    snprintf(path, sizeof(path), "%s/ring/%s", directory, export_name);
    return attach(client, path, named ? NULL : directory, options);
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

void aiod_shutdown(struct aiod_client *client)
{
    struct aiod_ring_goodbye goodbye = {.type = AIOD_RING_GOODBYE};

    if (aiod_forked(client)) {
        return;
    }
    /* Under the lock until the session has ended: else another engine could take over the socket in between. */
    pthread_mutex_lock(&client->lock);
    (void)aiod_send_now(client->socket, &goodbye, sizeof(goodbye));
    shutdown(client->socket, SHUT_RDWR);
    aiod_end_session(client, ESHUTDOWN);
    pthread_mutex_unlock(&client->lock);
}

void aiod_disconnect(struct aiod_client *client)
{
    bool mapped = !aiod_forked(client); /* else other memory may be at these addresses */

    aiod_shutdown(client);
    if (client->resume != NULL) {
        aiod_resume_destroy(client);
    }
    aiod_loop_destroy(&client->loop);
    close(client->socket);
    close(client->doorbell);
    aiod_areas_destroy(&client->areas, mapped);
    if (mapped) {
        munmap(client->base, client->queue_bytes);
    }
    aiod_queue_destroy(&client->queue);
    aiod_ring_files_destroy(client);
    pthread_mutex_destroy(&client->lock);
    pthread_mutex_destroy(&client->socket_lock);
    free(client);
}

uint64_t aiod_request_bytes_max(const struct aiod_client *client)
{
    uint64_t largest = aiod_buffer_pool_largest(&client->areas.pool);

    return client->request_bytes_max < largest ? client->request_bytes_max : largest;
}
