/*
 * plugin.c - nbdkit-aiod-plugin: a file or a device of an aiod daemon as an NBD export (nbdkit-aiod-plugin(1)).
 *
 * Each NBD connection has a client of libaiod, so a ring, of its own, and a handle of the file. nbdkit's threads call
 * the functions of one connection side by side (NBDKIT_THREAD_MODEL_PARALLEL), as libaiod allows. A flush of any handle
 * covers the completed writes of all (docs/operations.md), so the connections of one client may share their flushes
 * (can_multi_conn).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "aiod.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define ZEROES_BYTES_MAX (UINT32_C(1) << 30) /* of one WRITE_ZEROES */
#define MS_PER_S 1000u

static char *path;
static struct aiod_options options = {.software = "nbdkit", .reconnect_timeout_ms = 30 * MS_PER_S};
static int direct;

struct connection {
    struct aiod_client *client;
    uint32_t handle;
    bool writable;
    struct aiod_ring_stat file;
};

/* Report the failure that libaiod has returned as `error`. */
static int failed(const char *what, int64_t error)
{
    nbdkit_error("%s %s: %s", what, path, aiod_error());
    nbdkit_set_error((int)-error);
    return -1;
}

/* ---- parameters -------------------------------------------------------------------------------------------------- */

static int copy_parameter(char **copy, const char *value)
{
    free(*copy);
    *copy = strdup(value);
    if (*copy == NULL) {
        nbdkit_error("out of memory");
        return -1;
    }
    return 0;
}

static int set_endpoint(const char *value)
{
    char *copy = (char *)(uintptr_t)options.endpoint;
    int result = copy_parameter(&copy, value);

    options.endpoint = copy;
    return result;
}

static int set_area(const char *value)
{
    int64_t bytes = nbdkit_parse_size(value);

    if (bytes <= 0) {
        nbdkit_error("area=%s: a size above 0 is needed, as 8M", value);
        return -1;
    }
    options.area_bytes = (uint64_t)bytes;
    return 0;
}

static int set_reconnect(const char *value)
{
    unsigned seconds;

    if (nbdkit_parse_unsigned("reconnect", value, &seconds) < 0) {
        return -1;
    }
    if (seconds > UINT32_MAX / MS_PER_S) {
        nbdkit_error("reconnect=%s: at most %u seconds", value, UINT32_MAX / MS_PER_S);
        return -1;
    }
    options.reconnect_timeout_ms = seconds * MS_PER_S;
    return 0;
}

static int plugin_config(const char *key, const char *value)
{
    if (strcmp(key, "path") == 0) {
        return copy_parameter(&path, value);
    }
    if (strcmp(key, "endpoint") == 0) {
        return set_endpoint(value);
    }
    if (strcmp(key, "direct") == 0) {
        direct = nbdkit_parse_bool(value);
        return direct < 0 ? -1 : 0;
    }
    if (strcmp(key, "area") == 0) {
        return set_area(value);
    }
    if (strcmp(key, "reconnect") == 0) {
        return set_reconnect(value);
    }
    nbdkit_error("unknown parameter '%s': the parameters are path, endpoint, direct, area and reconnect", key);
    return -1;
}

static int plugin_config_complete(void)
{
    if (path == NULL || *path == '\0' || *path == '/') {
        nbdkit_error("the parameter path=EXPORT/PATH is needed: an export of aiod, and the path of a file in it");
        return -1;
    }
    return 0;
}

static void plugin_unload(void)
{
    free(path);
    free((char *)(uintptr_t)options.endpoint);
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

/* The export's name: `path` up to its first slash. NULL: out of memory. */
static char *export_of_path(void)
{
    return strndup(path, strcspn(path, "/"));
}

static int64_t connect_client(struct connection *connection)
{
    char *export_name = export_of_path();
    int64_t error = export_name == NULL ? -ENOMEM : aiod_connect(&connection->client, export_name, &options);

    free(export_name);
    return error;
}

/* Open for writing too, unless nbdkit is read-only or the file can only be read. */
static int64_t open_file(struct connection *connection, bool readonly)
{
    unsigned flags = AIOD_OPEN_READ | (direct ? AIOD_OPEN_DIRECT : 0);
    int64_t handle = -EROFS;

    if (!readonly) {
        handle = aiod_open(connection->client, path, flags | AIOD_OPEN_WRITE, 0);
        connection->writable = handle > 0;
    }
    if (handle == -EROFS || handle == -EACCES) {
        handle = aiod_open(connection->client, path, flags, 0);
    }
    connection->handle = handle > 0 ? (uint32_t)handle : 0;
    return handle;
}

static int64_t query(struct connection *connection)
{
    return aiod_perform(connection->client, &(struct aiod_op){.op = AIOD_RING_STAT, .handle = connection->handle},
                        &connection->file, AIOD_NO_TIMEOUT);
}

static void *plugin_open(int readonly)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    int64_t result;

    if (connection == NULL) {
        nbdkit_error("out of memory");
        return NULL;
    }
    result = connect_client(connection);
    if (result < 0) {
        failed("connect for", result);
        free(connection);
        return NULL;
    }
    result = open_file(connection, readonly != 0);
    if (result >= 0) {
        result = query(connection);
    }
    if (result < 0) {
        failed("open", result);
        aiod_disconnect(connection->client);
        free(connection);
        return NULL;
    }
    return connection;
}

static void plugin_close(void *handle)
{
    struct connection *connection = handle;

    aiod_disconnect(connection->client);
    free(connection);
}

/* ---- what the export is ------------------------------------------------------------------------------------------ */

static int64_t plugin_get_size(void *handle)
{
    return (int64_t)((struct connection *)handle)->file.size;
}

/* Any block is served; less than `minimum` is read and written with its neighbours (O_DIRECT). */
static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    const struct connection *connection = handle;
    uint32_t io_size = connection->file.io_size;

    *minimum = 1;
    *preferred = io_size >= 4096 && (io_size & (io_size - 1)) == 0 ? io_size : 4096;
    *maximum = UINT32_MAX;
    return 0;
}

static int plugin_can_write(void *handle)
{
    return ((struct connection *)handle)->writable;
}

static int plugin_can_yes(void *handle)
{
    (void)handle;
    return 1;
}

static int plugin_is_rotational(void *handle)
{
    (void)handle;
    return 0;
}

static int plugin_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static int plugin_can_cache(void *handle)
{
    (void)handle;
    return direct ? NBDKIT_CACHE_NONE : NBDKIT_CACHE_NATIVE;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/*
 * A change that was in flight when its engine died may be done or not. It is repeated at the next engine: NBD gives
 * requests in flight no order, and the same bytes land in the same place.
 */
static int64_t carry_out(struct connection *connection, unsigned op, unsigned flags, uint64_t offset, uint64_t length,
                         void *data)
{
    struct aiod_op request = {
        .op = (uint16_t)op, .flags = (uint16_t)flags, .handle = connection->handle, .offset = offset, .length = length};
    int64_t result;

    do {
        result = aiod_perform(connection->client, &request, data, AIOD_NO_TIMEOUT);
    } while (result == -EIO && aiod_reason() == AIOD_RING_UNKNOWN);
    return result;
}

static int plugin_pread(void *handle, void *data, uint32_t count, uint64_t offset, uint32_t flags)
{
    int64_t result = carry_out(handle, AIOD_RING_READ, 0, offset, count, data);

    (void)flags;
    if (result < 0) {
        return failed("read", result);
    }
    if ((uint64_t)result < count) {
        nbdkit_error("read %s: the file has become shorter, %" PRId64 " bytes at %" PRIu64, path, result, offset);
        nbdkit_set_error(EIO);
        return -1;
    }
    return 0;
}

static unsigned durable(uint32_t flags)
{
    return (flags & NBDKIT_FLAG_FUA) != 0 ? AIOD_RING_FUA : 0;
}

static int plugin_pwrite(void *handle, const void *data, uint32_t count, uint64_t offset, uint32_t flags)
{
    int64_t result = carry_out(handle, AIOD_RING_WRITE, durable(flags), offset, count, (void *)(uintptr_t)data);

    return result < 0 ? failed("write", result) : 0;
}

static int plugin_flush(void *handle, uint32_t flags)
{
    int64_t result = carry_out(handle, AIOD_RING_FLUSH, 0, 0, 0, NULL);

    (void)flags;
    return result < 0 ? failed("flush", result) : 0;
}

/* A trim is a hint: what the file system cannot do, or not for this range (a part of a sector), is left undone. */
static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    int64_t result = carry_out(handle, AIOD_RING_DISCARD, 0, offset, count, NULL);

    if (result < 0 && result != -EOPNOTSUPP && result != -EINVAL) {
        return failed("trim", result);
    }
    return durable(flags) ? plugin_flush(handle, 0) : 0;
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    unsigned how = durable(flags) | ((flags & NBDKIT_FLAG_MAY_TRIM) != 0 ? AIOD_RING_UNMAP : 0) |
                   ((flags & NBDKIT_FLAG_FAST_ZERO) != 0 ? AIOD_RING_FAST : 0);

    while (count > 0) {
        uint32_t bytes = count < ZEROES_BYTES_MAX ? count : ZEROES_BYTES_MAX;
        int64_t result = carry_out(handle, AIOD_RING_WRITE_ZEROES, how, offset, bytes, NULL);

        if (result == -EOPNOTSUPP && (how & AIOD_RING_FAST) != 0) {
            nbdkit_set_error(EOPNOTSUPP); /* the client writes the zeroes itself: no fault to be logged */
            return -1;
        }
        if (result < 0) {
            return failed("zero", result);
        }
        count -= bytes;
        offset += bytes;
    }
    return 0;
}

static int plugin_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    int64_t result = carry_out(handle, AIOD_RING_PREFETCH, 0, offset, count, NULL);

    (void)flags;
    return result < 0 ? failed("cache", result) : 0;
}

/* Pass on the extents from `offset` on, one only with `first_only`. The end of the last one; 0: a failure. */
static uint64_t add_extents(struct nbdkit_extents *extents, const struct aiod_ring_extent *found, size_t count,
                            uint64_t offset, bool first_only)
{
    for (size_t i = 0; i < count && (i == 0 || !first_only); i++) {
        uint32_t type = (found[i].flags & AIOD_RING_HOLE) != 0 ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;

        if (nbdkit_add_extent(extents, offset, found[i].length, type) < 0) {
            return 0;
        }
        offset += found[i].length;
    }
    return offset;
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
    struct aiod_ring_extent *found = malloc(AIOD_RING_EXTENTS_MAX * sizeof(*found));
    bool first_only = (flags & NBDKIT_FLAG_REQ_ONE) != 0;
    uint64_t end = offset + count;
    int64_t bytes;

    if (found == NULL) {
        nbdkit_error("out of memory");
        return -1;
    }
    do {
        bytes = carry_out(handle, AIOD_RING_EXTENTS, 0, offset, end - offset, found);
        if (bytes > 0) {
            offset = add_extents(extents, found, (size_t)bytes / sizeof(*found), offset, first_only);
        }
    } while (bytes > 0 && offset != 0 && offset < end && !first_only);
    free(found);
    if (bytes < 0) {
        return failed("extents of", bytes);
    }
    return offset == 0 && bytes > 0 ? -1 : 0;
}

static struct nbdkit_plugin plugin = {
    .name = "aiod",
    .version = AIOD_VERSION,
    .longname = "nbdkit aiod plugin",
    .description = "Files and block devices of an aiod daemon on this host",
    .unload = plugin_unload,
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = "path=EXPORT/PATH     (required) The file, or EXPORT if the export is a file or a device.\n"
                   "endpoint=ipc://...   The daemon's endpoint (default: AIOD_ENDPOINT, else it is found).\n"
                   "direct=true          Open with O_DIRECT.\n"
                   "area=SIZE            Buffer memory of each connection (default: 8M).\n"
                   "reconnect=SECONDS    How long to wait for a daemon that restarts (default: 30).",
    .magic_config_key = "path",
    .open = plugin_open,
    .close = plugin_close,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = plugin_can_write,
    .can_flush = plugin_can_yes,
    .is_rotational = plugin_is_rotational,
    .can_trim = plugin_can_yes,
    .can_zero = plugin_can_yes,
    .can_fast_zero = plugin_can_yes,
    .can_extents = plugin_can_yes,
    .can_fua = plugin_can_fua,
    .can_multi_conn = plugin_can_yes,
    .can_cache = plugin_can_cache,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .flush = plugin_flush,
    .trim = plugin_trim,
    .zero = plugin_zero,
    .cache = plugin_cache,
    .extents = plugin_extents,
    .errno_is_preserved = 0,
};

NBDKIT_REGISTER_PLUGIN(plugin)
