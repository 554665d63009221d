/*
 * engine.c - the I/O engine "aiod" of fio: jobs of fio run against files that an aiod daemon serves, by a ring.
 *
 *     fio --ioengine=external:build/fio-aiod.so --name=job --filename=scratch/disk.img --rw=randread --size=1g
 *
 * fio's interface for engines is that of its own sources, and another one in each version: `make fio-engine` compiles
 * this against the sources of the installed fio, whose licence (GPL-2.0) then holds for the result.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config-host.h"

#include "fio.h"
#include "optgroup.h"

#include "aiod.h"

#define LAYOUT_BYTES (1u << 20)

struct options {
    void *padding; /* fio's own */
    char *endpoint;
};

/* Of one job: a process or a thread of fio, which has a client of its own. */
struct job {
    struct aiod_client *client;
    void *memory;            /* of all buffers, in the ring's buffer area */
    struct aiod_op **queued; /* not yet submitted, at most iodepth */
    struct aiod_op **reaped; /* the result of the last getevents() */
    unsigned queued_count;
};

static struct fio_option options[] = {
    {
        .name = "endpoint",
        .lname = "aiod endpoint",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct options, endpoint),
        .help = "Of the daemon, as ipc:///run/aiod/aiod.sock; default: AIOD_ENDPOINT, else the user's or the system's",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = NULL,
    },
};

static int fail(struct thread_data *td, const char *what, int64_t error)
{
    log_err("fio: aiod: %s: %s\n", what, aiod_error());
    td_verror(td, (int)-error, what);
    return 1;
}

/* ---- sessions --------------------------------------------------------------------------------------------------- */

/* The least power of two that is not less. */
static uint64_t power_of_two(uint64_t least)
{
    uint64_t power = 1;

    while (power < least) {
        power *= 2;
    }
    return power;
}

/* Connect to the engine that serves the export of the job's first file, with `area_bytes` of buffers. */
static int connect_job(struct thread_data *td, struct aiod_client **client, uint64_t area_bytes)
{
    const struct options *chosen = td->eo;
    const struct aiod_options wanted = {.endpoint = chosen->endpoint,
                                        .entries = (uint32_t)power_of_two(td->o.iodepth < 8 ? 8 : td->o.iodepth),
                                        .area_bytes = area_bytes,
                                        .software = "fio"};
    const char *path = td->files_index > 0 ? td->files[0]->file_name : "";
    char export_name[256];
    int result;

    snprintf(export_name, sizeof(export_name), "%.*s", (int)strcspn(path, "/"), path);
    result = aiod_connect(client, export_name, &wanted);
    return result < 0 ? fail(td, path, result) : 0;
}

static int64_t open_path(struct thread_data *td, struct aiod_client *client, const char *path)
{
    unsigned flags = td->o.odirect ? AIOD_OPEN_DIRECT : 0;

    flags |= td_read(td) || td->o.verify ? AIOD_OPEN_READ : 0;
    flags |= td_write(td) || td_trim(td) ? AIOD_OPEN_WRITE : 0;
    flags |= (flags & AIOD_OPEN_WRITE) && td->o.allow_create ? AIOD_OPEN_CREATE : 0;
    return aiod_open(client, path, flags, 0644);
}

/* ---- before the jobs -------------------------------------------------------------------------------------------- */

/* Write the file from `size` to `wanted` bytes: reads of a hole would measure no disk. */
static int lay_out(struct thread_data *td, struct aiod_client *client, const char *path, uint64_t size, uint64_t wanted)
{
    int64_t handle = aiod_open(client, path, AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, 0644);
    char *data = malloc(LAYOUT_BYTES);
    int64_t result = handle < 0 ? handle : 0;

    log_info("%s: writing %s, %llu bytes\n", td->o.name, path, (unsigned long long)wanted);
    if (data == NULL) {
        return 1;
    }
    while (result >= 0 && size < wanted) {
        uint64_t length = wanted - size < LAYOUT_BYTES ? wanted - size : LAYOUT_BYTES;

        fill_random_buf(&td->buf_state, data, (unsigned)length);
        result = aiod_pwrite(client, (uint32_t)handle, data, length, size, AIOD_NO_TIMEOUT);
        size += length;
    }
    result = result < 0 ? result : aiod_flush(client, (uint32_t)handle, AIOD_NO_TIMEOUT);
    free(data);
    return result < 0 ? fail(td, path, result) : 0;
}

/* Returns the file's size; 0 if it does not exist; -errno. */
static int64_t size_of(struct aiod_client *client, const char *path)
{
    const struct aiod_op size = {.op = AIOD_RING_SIZE};
    struct aiod_op request = size;
    int64_t handle = aiod_open(client, path, AIOD_OPEN_READ, 0);
    int64_t result;

    if (handle < 0) {
        return handle == -ENOENT ? 0 : handle;
    }
    request.handle = (uint32_t)handle;
    result = aiod_perform(client, &request, NULL, AIOD_NO_TIMEOUT);
    aiod_close(client, (uint32_t)handle);
    return result;
}

static uint64_t wanted_size(const struct thread_data *td)
{
    if (td->o.file_size_high > 0) {
        return td->o.file_size_high;
    }
    return td->o.size == -1ULL ? 0 : td->o.start_offset + td->o.size / (td->o.nr_files > 0 ? td->o.nr_files : 1);
}

static int prepare_file(struct thread_data *td, struct aiod_client *client, struct fio_file *file)
{
    int64_t size = size_of(client, file->file_name);
    uint64_t wanted = wanted_size(td);

    if (size < 0) {
        return fail(td, file->file_name, size);
    }
    file->filetype = FIO_TYPE_FILE;
    file->real_file_size = (uint64_t)size < wanted ? wanted : (uint64_t)size;
    if ((uint64_t)size < wanted && td_read(td) && !td->o.create_on_open) {
        return lay_out(td, client, file->file_name, (uint64_t)size, wanted);
    }
    return 0;
}

/* In fio's main process, which forks the jobs later: they cannot use this client. */
static int setup(struct thread_data *td)
{
    struct aiod_client *client;
    struct fio_file *file;
    unsigned i;
    int result = connect_job(td, &client, 0);

    if (result != 0) {
        return result;
    }
    for_each_file(td, file, i)
    {
        result = result != 0 ? result : prepare_file(td, client, file);
    }
    aiod_disconnect(client);
    return result;
}

/* ---- a job ------------------------------------------------------------------------------------------------------ */

static uint64_t buffers_bytes(const struct thread_data *td)
{
    uint64_t bytes = (uint64_t)td_max_bs((struct thread_data *)(uintptr_t)td) * td->o.iodepth;

    return power_of_two(bytes + td->o.mem_align + (1u << 16)); /* fio aligns them itself, by a page or more */
}

static void clean_up(struct thread_data *td)
{
    struct job *job = td->io_ops_data;

    if (job == NULL) {
        return;
    }
    if (job->client != NULL) {
        aiod_disconnect(job->client);
    }
    free(job->queued);
    free(job->reaped);
    free(job);
    td->io_ops_data = NULL;
}

static int init(struct thread_data *td)
{
    struct job *job = calloc(1, sizeof(*job));

    if (job == NULL) {
        return 1;
    }
    td->io_ops_data = job;
    job->queued = calloc(td->o.iodepth, sizeof(job->queued[0]));
    job->reaped = calloc(td->o.iodepth, sizeof(job->reaped[0]));
    if (job->queued == NULL || job->reaped == NULL) {
        return 1;
    }
    return connect_job(td, &job->client, 2 * buffers_bytes(td));
}

/* All buffers of the job lie in the ring, so that the engine reads into them and writes from them. */
static int allocate_memory(struct thread_data *td, size_t bytes)
{
    struct job *job = td->io_ops_data;

    job->memory = aiod_alloc(job->client, bytes);
    td->orig_buffer = job->memory;
    if (job->memory == NULL) {
        log_err("fio: aiod: no %zu bytes of buffers: lower iodepth= or bs=\n", bytes);
        return 1;
    }
    return 0;
}

static void free_memory(struct thread_data *td)
{
    struct job *job = td->io_ops_data;

    if (job != NULL && job->client != NULL) {
        aiod_free(job->client, job->memory);
    }
}

static int io_u_init(struct thread_data *td, struct io_u *io_u)
{
    (void)td;
    io_u->engine_data = calloc(1, sizeof(struct aiod_op));
    return io_u->engine_data == NULL;
}

static void io_u_free(struct thread_data *td, struct io_u *io_u)
{
    (void)td;
    free(io_u->engine_data);
    io_u->engine_data = NULL;
}

static int open_file(struct thread_data *td, struct fio_file *file)
{
    struct job *job = td->io_ops_data;
    int64_t handle = open_path(td, job->client, file->file_name);

    if (handle < 0) {
        return fail(td, file->file_name, handle);
    }
    FILE_SET_ENG_DATA(file, (void *)(uintptr_t)handle);
    return 0;
}

static int close_file(struct thread_data *td, struct fio_file *file)
{
    struct job *job = td->io_ops_data;

    if (job != NULL && job->client != NULL) { /* fio closes files once more, after the job */
        aiod_close(job->client, (uint32_t)(uintptr_t)FILE_ENG_DATA(file));
    }
    FILE_SET_ENG_DATA(file, NULL);
    return 0;
}

static int invalidate(struct thread_data *td, struct fio_file *file)
{
    (void)td;
    (void)file;
    return 0; /* the page cache is the daemon's: direct=1 goes around it */
}

static int unlink_file(struct thread_data *td, struct fio_file *file)
{
    (void)td;
    log_err("fio: aiod: %s is left: the engine removes no files\n", file->file_name);
    return EOPNOTSUPP;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

/* The request of an io_u; false: there is none for it. */
static bool fill(const struct thread_data *td, const struct io_u *io_u, struct aiod_op *op)
{
    *op = (struct aiod_op){.handle = (uint32_t)(uintptr_t)FILE_ENG_DATA(io_u->file),
                           .offset = io_u->offset,
                           .length = io_u->xfer_buflen,
                           .user = (void *)(uintptr_t)io_u};
    switch (io_u->ddir) {
    case DDIR_READ:
        op->op = AIOD_RING_READ;
        op->buffer = io_u->xfer_buf;
        return true;
    case DDIR_WRITE:
        op->op = AIOD_RING_WRITE;
        op->buffer = io_u->xfer_buf;
        op->flags = td->o.sync_io ? AIOD_RING_FUA : 0;
        return true;
    case DDIR_TRIM:
        op->op = AIOD_RING_DISCARD;
        return true;
    case DDIR_SYNC:
    case DDIR_DATASYNC:
        op->op = AIOD_RING_FLUSH;
        op->offset = op->length = 0;
        return true;
    default:
        return false;
    }
}

static enum fio_q_status queue(struct thread_data *td, struct io_u *io_u)
{
    struct job *job = td->io_ops_data;
    struct aiod_op *op = io_u->engine_data;

    fio_ro_check(td, io_u);
    if (job->queued_count == td->o.iodepth) {
        return FIO_Q_BUSY;
    }
    if (!fill(td, io_u, op)) {
        io_u->error = EINVAL;
        return FIO_Q_COMPLETED;
    }
    job->queued[job->queued_count++] = op;
    return FIO_Q_QUEUED;
}

static int commit(struct thread_data *td)
{
    struct job *job = td->io_ops_data;
    unsigned submitted = 0;

    while (submitted < job->queued_count) {
        int count = aiod_submit(job->client, job->queued + submitted, job->queued_count - submitted);

        if (count < 0) {
            fail(td, "submit", count);
            return count;
        }
        io_u_mark_submit(td, (unsigned)count);
        submitted += (unsigned)count;
    }
    job->queued_count = 0;
    return 0;
}

static int get_events(struct thread_data *td, unsigned min, unsigned max, const struct timespec *timeout)
{
    struct job *job = td->io_ops_data;
    int64_t timeout_ns = timeout == NULL ? AIOD_NO_TIMEOUT : timeout->tv_sec * 1000000000ll + timeout->tv_nsec;
    unsigned count = 0;

    max = max < td->o.iodepth ? max : td->o.iodepth;
    for (;;) {
        int result;

        count += aiod_reap(job->client, job->reaped + count, max - count);
        if (count >= min) {
            return (int)count;
        }
        result = aiod_wait_any(job->client, timeout_ns);
        if (result == -ETIMEDOUT) {
            return (int)count;
        }
        if (result < 0) {
            log_err("fio: aiod: the session has ended: %s\n", strerror(-result));
            return result;
        }
    }
}

static struct io_u *event(struct thread_data *td, int number)
{
    struct job *job = td->io_ops_data;
    const struct aiod_op *op = job->reaped[number];
    struct io_u *io_u = op->user;
    bool transfers = io_u->ddir == DDIR_READ || io_u->ddir == DDIR_WRITE;

    io_u->error = op->result < 0 ? (unsigned)-op->result : 0;
    io_u->resid = transfers && op->result >= 0 ? io_u->xfer_buflen - (uint64_t)op->result : 0;
    return io_u;
}

struct ioengine_ops ioengine = {
    .name = "aiod",
    .version = FIO_IOOPS_VERSION,
    .flags = FIO_DISKLESSIO | FIO_NODISKUTIL | FIO_NOEXTEND,
    .setup = setup,
    .init = init,
    .cleanup = clean_up,
    .iomem_alloc = allocate_memory,
    .iomem_free = free_memory,
    .io_u_init = io_u_init,
    .io_u_free = io_u_free,
    .open_file = open_file,
    .close_file = close_file,
    .invalidate = invalidate,
    .unlink_file = unlink_file,
    .queue = queue,
    .commit = commit,
    .getevents = get_events,
    .event = event,
    .options = options,
    .option_struct_size = sizeof(struct options),
};
