/*
 * module.cpp - the Python module aiod._core, documented in aiod/_core.pyi. The only file that uses Python.
 *
 * Runs on the main loop's thread with the GIL held. Exceptions: stop() releases the GIL; a Buffer may be freed on any
 * thread with the GIL held, because the buffer cache has a lock of its own.
 */
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "zmq_receiver.hpp"

extern "C" {
#include "core.h"
#include "core_vhost.h"
#include "path/attributes.h"
#include "path/confined.h"
#include "path/open_reading.h"
#include "ring/poller.h"
#include "pool/uring.h"
#include "session/move_handle.h"
#include "session/trace.h"
#include "util/ioprio.h"
}

namespace nb = nanobind;

namespace
{

[[noreturn]] void raise_os_error(int error)
{
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    throw nb::python_error();
}

/* ---- Buffer: a payload frame for a reply ------------------------------------------------------------------------- */

struct Buffer {
    Buffer(aiod_buffer *taken, nb::object core) : buffer(taken), owner(std::move(core))
    {
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer()
    {
        aiod_buffer_put(buffer);
    }

    aiod_buffer *buffer;
    nb::object owner; /* the Core whose cache owns the memory */
};

int buffer_get(PyObject *self, Py_buffer *view, int flags)
{
    Buffer *buffer = nb::inst_ptr<Buffer>(self);

    return PyBuffer_FillInfo(view, self, buffer->buffer->data, static_cast<Py_ssize_t>(buffer->buffer->length), 1,
                             flags);
}

PyType_Slot buffer_slots[] = {
    {Py_bf_getbuffer, reinterpret_cast<void *>(buffer_get)},
    {0, nullptr},
};

/* ---- payloads: Python buffers that are kept until their writes have ended ---------------------------------------- */

struct PythonPayload {
    aiod_payload payload;
    Py_buffer view;
};

void release_payload(aiod_payload *payload)
{
    auto *whole = reinterpret_cast<PythonPayload *>(payload); /* the first member */

    PyBuffer_Release(&whole->view);
    delete whole;
}

/* The payloads of one submit() call, with one reference each during the call. */
class Payloads
{
  public:
    explicit Payloads(const nb::sequence &frames)
    {
        for (nb::handle frame : frames) {
            auto whole = std::make_unique<PythonPayload>();

            if (PyObject_GetBuffer(frame.ptr(), &whole->view, PyBUF_SIMPLE) < 0) {
                release_all();
                throw nb::python_error();
            }
            whole->payload = {static_cast<const char *>(whole->view.buf), static_cast<size_t>(whole->view.len), 1,
                              release_payload};
            items.push_back(&whole.release()->payload);
        }
    }
    Payloads(const Payloads &) = delete;
    Payloads &operator=(const Payloads &) = delete;
    ~Payloads()
    {
        release_all();
    }

    std::vector<aiod_payload *> items;

  private:
    void release_all()
    {
        for (aiod_payload *payload : items) {
            aiod_payload_put(payload);
        }
        items.clear();
    }
};

/* ---- statistics -------------------------------------------------------------------------------------------------- */

nb::list histogram_list(const aiod_histogram &histogram)
{
    nb::list pairs;

    for (size_t i = 0; i < AIOD_HISTOGRAM_BUCKETS; i++) {
        if (histogram.counts[i] != 0) {
            nb::list pair;

            pair.append(aiod_histogram_upper(i));
            pair.append(histogram.counts[i]);
            pairs.append(pair);
        }
    }
    return pairs;
}

const char *const op_names[AIOD_OPS] = {
    nullptr,
#define AIOD_OPERATION(number, NAME, name, access, fields, flags, properties) #name,
#include "operations.def"
    "open",  "close", "lock", "unlock",
};

/* RAII snapshot of the counters. */
struct StatsSnapshot {
    StatsSnapshot() = default;
    explicit StatsSnapshot(aiod_core *core) : exports(core->exports)
    {
        aiod_core_snapshot_stats(core, &stats, &unnamed);
    }
    StatsSnapshot(const StatsSnapshot &) = delete;
    StatsSnapshot &operator=(const StatsSnapshot &) = delete;
    ~StatsSnapshot()
    {
        aiod_export_stats_end(exports);
        aiod_stats_destroy(&stats);
        aiod_stats_destroy(&unnamed);
    }

    aiod_stats stats = {};
    aiod_stats unnamed = {}; /* of them, those that belong to no export */
    aiod_export_stats *exports = nullptr;
};

/* The durations, each with its exact sum. */
void add_histograms(nb::dict &entry, const aiod_op_stats &counted)
{
    entry["latency_ns"] = histogram_list(counted.latency);
    entry["queue_ns"] = histogram_list(counted.queue);
    entry["service_ns"] = histogram_list(counted.service);
    entry["latency_sum_ns"] = counted.latency.sum;
    entry["queue_sum_ns"] = counted.queue.sum;
    entry["service_sum_ns"] = counted.service.sum;
}

const char *const transport_names[AIOD_TRANSPORTS] = {"daemon", "ring", "socket", "ipc", "tcp", "vhost"};

/* What is counted of an operation by transport and by errno; only what has been counted. */
nb::dict causes_dict(const aiod_op_stats &counted)
{
    nb::dict transports;
    nb::list errnos;
    nb::dict entry;

    for (size_t i = 0; i < AIOD_TRANSPORTS; i++) {
        if (counted.by_transport[i] != 0) {
            transports[transport_names[i]] = counted.by_transport[i];
        }
    }
    for (size_t i = 0; i < AIOD_ERRNOS; i++) {
        if (counted.by_errno[i] != 0) {
            nb::list pair;

            pair.append(i);
            pair.append(counted.by_errno[i]);
            errnos.append(pair);
        }
    }
    entry["count"] = counted.count;
    entry["bytes"] = counted.bytes;
    entry["errors"] = counted.errors;
    entry["transports"] = transports;
    entry["errnos"] = errnos;
    return entry;
}

/* The requests of one export: counts of each operation that was used, durations over all of them. */
nb::dict export_dict(const aiod_stats &stats)
{
    auto all = std::make_unique<aiod_op_stats>();
    nb::dict ops;
    nb::dict result;

    for (size_t op = 1; op < AIOD_OPS; op++) {
        if (const aiod_op_stats *counted = stats.ops[op]; counted != nullptr) {
            ops[op_names[op]] = causes_dict(*counted);
            aiod_histogram_add(&all->latency, &counted->latency);
            aiod_histogram_add(&all->queue, &counted->queue);
            aiod_histogram_add(&all->service, &counted->service);
        }
    }
    result["ops"] = ops;
    add_histograms(result, *all);
    return result;
}

nb::dict stats_dict(const aiod_stats &stats)
{
    static const aiod_op_stats nothing = {};
    nb::dict ops;

    for (size_t op = 1; op < AIOD_OPS; op++) {
        const aiod_op_stats &counted = stats.ops[op] != nullptr ? *stats.ops[op] : nothing;
        nb::dict entry;

        entry["count"] = counted.count;
        entry["bytes"] = counted.bytes;
        entry["errors"] = counted.errors;
        entry["inline"] = counted.inlined;
        add_histograms(entry, counted);
        ops[op_names[op]] = entry;
    }
    return ops;
}

/* ---- Session ----------------------------------------------------------------------------------------------------- */

struct Rate {
    Rate() : rate(aiod_rate_create())
    {
        if (rate == nullptr) {
            throw std::bad_alloc();
        }
    }
    Rate(const Rate &) = delete;
    Rate &operator=(const Rate &) = delete;
    ~Rate()
    {
        aiod_rate_unref(rate);
    }

    aiod_rate *rate;
};

/* Raises ValueError. */
aiod_transport transport_of(const std::string &name)
{
    for (size_t i = 0; i < AIOD_TRANSPORTS; i++) {
        if (name == transport_names[i]) {
            return static_cast<aiod_transport>(i);
        }
    }
    throw nb::value_error("unknown transport");
}

struct Session {
    Session(nb::object tag_, const std::string &client, const std::string &transport, uint32_t depth_max,
            uint64_t bytes_max, uint64_t request_bytes_max, uint32_t batch_max, uint32_t handles_max, const Rate *rate)
        : tag(std::move(tag_))
    {
        const aiod_limits limits = {depth_max, batch_max, handles_max, bytes_max, request_bytes_max};
        const aiod_transport sent_by = transport_of(transport);

        if (depth_max < 1 || depth_max > 65536 || batch_max < 1 || batch_max > AIOD_REPLY_RECORDS_MAX ||
            handles_max > AIOD_HANDLES_MAX || request_bytes_max < 1 || request_bytes_max > bytes_max) {
            throw nb::value_error("a session's limits are out of range");
        }
        session = aiod_session_create(&limits, rate != nullptr ? rate->rate : nullptr);
        if (session == nullptr) {
            throw std::bad_alloc();
        }
        session->owner = this;
        session->transport = sent_by;
        snprintf(session->client, sizeof(session->client), "%s", client.c_str());
    }
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;
    ~Session()
    {
        session->owner = nullptr;
        aiod_session_unref(session);
    }

    aiod_session *session;
    nb::object tag;
};

nb::list session_describe_handles(const Session &self)
{
    nb::list handles;

    for (uint32_t i = 0; i < self.session->slot_count; i++) {
        const aiod_handle *handle = self.session->slots[i].handle;

        if (handle != nullptr && handle->use.names.root == nullptr) {
            nb::dict entry;

            entry["handle"] = handle->number;
            entry["readable"] = handle->use.readable;
            entry["writable"] = handle->use.writable;
            entry["append"] = handle->use.append;
            entry["direct"] = handle->use.direct;
            entry["inflight"] = handle->inflight;
            entry["closing"] = handle->closing;
            entry["poisoned"] = aiod_flushes_poisoned(&handle->file->flushes);
            handles.append(entry);
        }
    }
    return handles;
}

/* ---- Core -------------------------------------------------------------------------------------------------------- */

struct Core {
    Core(const std::string &name, unsigned max_threads, unsigned min_threads, uint64_t idle_timeout_ms,
         uint64_t spawn_retry_ms, uint64_t inline_read_max, size_t buffer_cache_max, unsigned rings_max,
         uint64_t ring_poll_max_us)
    {
        aiod_core_config config = {};

        config.pool.name = name.c_str();
        config.pool.max_threads = max_threads;
        config.pool.min_threads = min_threads;
        config.pool.idle_timeout_ns = idle_timeout_ms * 1000000;
        config.pool.spawn_retry_ns = spawn_retry_ms * 1000000;
        config.inline_read_max = inline_read_max;
        config.buffer_cache_max = buffer_cache_max;
        config.rings_max = rings_max;
        config.poll_max_ns = ring_poll_max_us * 1000;
        check(aiod_core_create(&core, &config));
    }
    Core(const Core &) = delete;
    Core &operator=(const Core &) = delete;
    ~Core()
    {
        aiod_core_destroy(core);
    }

    static void check(int64_t result)
    {
        if (result == -EINVAL) {
            throw nb::value_error("thread limits out of range: 1 <= max_threads <= 4096, min_threads <= max_threads");
        }
        if (result < 0) {
            raise_os_error(static_cast<int>(-result));
        }
    }

    aiod_core *core = nullptr;
};

nb::tuple completions_tuple(aiod_reply *reply, nb::handle core)
{
    nb::list frames;
    nb::list failures;
    nb::bytes records(reinterpret_cast<const char *>(reply->records), reply->record_count * sizeof(*reply->records));

    for (uint32_t i = 0; i < reply->frame_count; i++) {
        auto *frame = new Buffer(reply->frames[i], nb::borrow(core));

        reply->frames[i] = nullptr;
        frames.append(nb::cast(frame, nb::rv_policy::take_ownership));
    }
    for (uint32_t i = 0; i < reply->failure_count; i++) {
        const aiod_failure &failure = reply->failures[i];

        failures.append(nb::make_tuple(failure.index, static_cast<int>(failure.op), failure.handle, failure.offset,
                                       failure.length, failure.error, static_cast<int>(failure.reason)));
    }
    return nb::make_tuple(records, frames, failures);
}

struct ReplyDeleter {
    void operator()(aiod_reply *reply) const
    {
        aiod_reply_destroy(reply);
    }
};
using Reply = std::unique_ptr<aiod_reply, ReplyDeleter>;

nb::object core_submit(nb::handle self, Session &session, uint64_t received, const nb::bytes &records,
                       const nb::sequence &frames)
{
    Core &core = nb::cast<Core &>(self);
    Payloads payloads(frames);
    aiod_reply *taken = nullptr;
    const char *wrong;

    if (records.size() % sizeof(aiod_submission) != 0) {
        throw nb::value_error("the records are not a multiple of 48 bytes");
    }
    wrong = aiod_core_submit(core.core, session.session, received, records.c_str(),
                             records.size() / sizeof(aiod_submission), payloads.items.data(), payloads.items.size(),
                             &taken);
    if (wrong != nullptr) {
        throw nb::value_error(wrong);
    }
    Reply reply(taken);
    return reply ? nb::object(completions_tuple(reply.get(), self)) : nb::none();
}

nb::tuple listing_tuple(const aiod_listing &listing)
{
    return nb::make_tuple(nb::bytes(listing.names, listing.name_bytes),
                          nb::bytes(listing.stats, listing.entry_count * sizeof(aiod_stat)),
                          listing.more ? nb::object(nb::int_(listing.next)) : nb::none());
}

nb::tuple directory_tuple(const aiod_control &control)
{
    const aiod_directory_op &directory_op = *control.directory_op;
    const int64_t result = control.task.request.result;
    nb::object found = nb::none();

    if (result < 0) {
        found = nb::none();
    } else if (directory_op.verb == AIOD_VERB_LIST) {
        found = listing_tuple(*directory_op.listing);
    } else if (directory_op.verb == AIOD_VERB_STAT || directory_op.verb == AIOD_VERB_LSTAT) {
        found = nb::bytes(&directory_op.stat, sizeof(directory_op.stat));
    } else if (directory_op.text != nullptr) {
        found = nb::bytes(directory_op.text, directory_op.text_bytes);
    }
    return nb::make_tuple(control.tag, result, static_cast<int>(control.task.request.reason), directory_op.outside,
                          found);
}

nb::tuple control_tuple(const aiod_control &control)
{
    return nb::make_tuple(control.tag, control.task.request.result, static_cast<int>(control.task.request.reason),
                          control.opened.size, control.opened.dev, control.opened.ino, control.opened.generation,
                          control.opened.store_fd, control.opened.flush_fd, control.opened.on_fuse,
                          control.opened.alignment.memory, control.opened.alignment.offset);
}

/* aiod_core_reap() returns only sessions that have an owner. */
nb::tuple attached_tuple(const aiod_session &session)
{
    aiod_attached attached = {-1, -1, 0};

    if (session.attach_error == 0) {
        attached = aiod_core_attached(&session);
    }
    return nb::make_tuple(nb::find(static_cast<Session *>(session.owner)), -session.attach_error, attached.memory_fd,
                          attached.doorbell_fd);
}

nb::tuple core_reap(nb::handle self)
{
    Core &core = nb::cast<Core &>(self);
    nb::list replies;
    nb::list controls;
    nb::list directory_ops;
    nb::list broken;
    nb::list attached;
    nb::list to_close;
    aiod_reaped reaped;
    aiod_reply *reply;
    aiod_control *control;

    aiod_core_reap(core.core, &reaped);
    reply = reaped.replies;
    control = reaped.controls;
    for (aiod_session *session = reaped.broken; session != nullptr; session = session->next_broken) {
        auto *owner = static_cast<Session *>(session->owner);

        if (owner != nullptr) {
            broken.append(nb::make_tuple(nb::find(owner), session->broken));
        }
    }
    for (aiod_session *session = reaped.attached; session != nullptr; session = session->next_attached) {
        attached.append(attached_tuple(*session));
    }
    for (aiod_handle *handle = reaped.to_close; handle != nullptr; handle = handle->next_to_close) {
        to_close.append(nb::make_tuple(nb::find(static_cast<Session *>(handle->session->owner)), handle->number));
    }
    while (reply != nullptr) {
        Reply taken(reply);
        auto *owner = static_cast<Session *>(reply->session->owner);

        reply = reply->next;
        if (owner != nullptr) {
            replies.append(nb::make_tuple(nb::find(owner), completions_tuple(taken.get(), self)));
        }
    }
    while (control != nullptr) {
        auto *next = reinterpret_cast<aiod_control *>(control->task.request.next);

        if (control->op == AIOD_NAME) {
            directory_ops.append(directory_tuple(*control));
        } else {
            controls.append(control_tuple(*control));
        }
        aiod_control_destroy(control);
        control = next;
    }
    return nb::make_tuple(replies, controls, directory_ops, broken, attached, to_close);
}

size_t core_cancel(Core &core, Session &session, const nb::sequence &cookies)
{
    std::vector<uint64_t> numbers;

    for (nb::handle cookie : cookies) {
        numbers.push_back(nb::cast<uint64_t>(cookie));
    }
    return aiod_core_cancel(core.core, session.session, numbers.data(), numbers.size());
}

uint64_t core_attach(Core &core, Session &session, int wake_fd, uint32_t entries, uint64_t area_bytes)
{
    uint64_t memory_bytes;
    int error = aiod_core_attach(core.core, session.session, wake_fd, entries, area_bytes, &memory_bytes);

    if (error < 0) {
        raise_os_error(-error);
    }
    return memory_bytes;
}

nb::dict core_stats(Core &core)
{
    StatsSnapshot snapshot(core.core);

    return stats_dict(snapshot.stats);
}

/* What the rate of an export or user has held back; adds to `entry`. */
void add_throttling(nb::dict &entry, Core &core, const aiod_rate *rate)
{
    const aiod_throttling throttling = aiod_pool_get_throttling(core.core->pool, rate);

    entry["waiting"] = throttling.waiting;
    entry["throttled_s"] = static_cast<double>(throttling.throttled_ns) / 1e9;
}

nb::dict core_throttling(Core &core, const Rate &rate)
{
    nb::dict entry;

    add_throttling(entry, core, rate.rate);
    return entry;
}

bool no_requests(const aiod_stats &stats)
{
    return std::all_of(std::begin(stats.ops), std::end(stats.ops), [](const auto *op) { return op == nullptr; });
}

/* The counts of all requests, and those of each export; "" are requests that belong to none. */
nb::tuple core_snapshot(Core &core, const nb::dict &rates)
{
    StatsSnapshot snapshot(core.core);
    nb::dict exports;

    for (auto [name, rate] : rates) {
        const aiod_rate *wanted = nb::cast<Rate &>(rate).rate;

        for (const aiod_export_stats *entry = core.core->exports; entry != nullptr; entry = entry->next) {
            if (entry->rate == wanted) {
                nb::dict shown = export_dict(entry->shown);

                add_throttling(shown, core, wanted);
                exports[name] = shown;
            }
        }
    }
    if (!no_requests(snapshot.unnamed)) {
        exports[""] = export_dict(snapshot.unnamed);
    }
    return nb::make_tuple(stats_dict(snapshot.stats), exports);
}

nb::dict core_flush_groups(Core &core)
{
    const aiod_flush_groups &groups = core.core->files.groups;
    nb::list counts;
    nb::dict result;

    for (const uint64_t &count : groups.counts) {
        counts.append(__atomic_load_n(&count, __ATOMIC_RELAXED));
    }
    result["counts"] = counts;
    result["requests"] = __atomic_load_n(&groups.requests, __ATOMIC_RELAXED);
    return result;
}

nb::dict session_stats(const Session &self)
{
    StatsSnapshot snapshot;

    aiod_core_add_session_stats(self.session, &snapshot.stats);
    return stats_dict(snapshot.stats);
}

/* The path as a C string. */
const char *c_path(const std::string &path)
{
    if (path.find('\0') != std::string::npos) {
        throw nb::value_error("the path contains a zero byte");
    }
    return path.c_str();
}

/* Owns an identity until the core takes it over: converting the other arguments may throw. */
struct IdentityDeleter {
    void operator()(aiod_identity *identity) const
    {
        std::free(identity);
    }
};
using Identity = std::unique_ptr<aiod_identity, IdentityDeleter>;

/* (uid, gid, groups), or None for the daemon itself. */
Identity identity_of(const nb::object &as)
{
    std::vector<gid_t> groups;

    if (as.is_none()) {
        return nullptr;
    }
    for (nb::handle group : nb::cast<nb::sequence>(as[2])) {
        groups.push_back(nb::cast<gid_t>(group));
    }
    Identity identity(
        aiod_identity_create(nb::cast<uid_t>(as[0]), nb::cast<gid_t>(as[1]), groups.data(), groups.size()));
    if (!identity) {
        throw std::bad_alloc();
    }
    return identity;
}

/* NULL for None. */
aiod_rate *rate_of(const Rate *rate)
{
    return rate != nullptr ? rate->rate : nullptr;
}

void core_open(Core &core, uint64_t tag, const std::string &transport, const Rate *rate, const std::string &root,
               const std::string &path, unsigned flags, unsigned mode, bool exact_mode, int64_t uid, int64_t gid,
               bool links, const nb::object &as, uint64_t timeout_ms)
{
    const aiod_creation creation = {mode, exact_mode, static_cast<uid_t>(uid), static_cast<gid_t>(gid)};

    const char *c_root = c_path(root);
    const char *c_name = c_path(path);
    Identity identity = identity_of(as);

    flags = (flags & ~AIOD_OPEN_NO_LINKS) | (links ? 0u : AIOD_OPEN_NO_LINKS);
    Core::check(aiod_core_open(core.core, tag, transport_of(transport), rate_of(rate), c_root, c_name, flags, &creation,
                               identity.release(), timeout_ms * 1000000));
}

struct DirectoryOpDeleter {
    void operator()(aiod_directory_op *directory_op) const
    {
        aiod_directory_op_destroy(directory_op);
    }
};
using DirectoryOp = std::unique_ptr<aiod_directory_op, DirectoryOpDeleter>;

timespec time_of(int64_t ns)
{
    const int64_t second = 1000000000;
    const int64_t rest = (ns % second + second) % second;

    return {.tv_sec = (ns - rest) / second, .tv_nsec = rest};
}

/* None: now. */
void set_times(timespec (&to)[2], const nb::object &times)
{
    if (times.is_none()) {
        to[0].tv_nsec = to[1].tv_nsec = UTIME_NOW;
        return;
    }
    const auto [access_ns, change_ns] = nb::cast<std::pair<int64_t, int64_t>>(times);

    to[0] = time_of(access_ns);
    to[1] = time_of(change_ns);
}

void set_value(aiod_directory_op &directory_op, const nb::bytes &value)
{
    if (value.size() == 0) {
        return;
    }
    directory_op.value = malloc(value.size());
    if (directory_op.value == nullptr) {
        throw std::bad_alloc();
    }
    memcpy(directory_op.value, value.c_str(), value.size());
    directory_op.value_bytes = value.size();
}

void core_directory_operation(Core &core, uint64_t tag, const std::string &transport, const Rate *rate, int verb,
                              const std::string &root, const std::string &path, const std::string &to, int64_t cursor,
                              unsigned mode, bool replace, bool links, const nb::object &times, const nb::bytes &value,
                              int xattr_flags, bool follow, const nb::object &as, uint64_t timeout_ms)
{
    const aiod_transport sent_by = transport_of(transport);
    Identity identity = identity_of(as);
    DirectoryOp directory_op(
        aiod_directory_op_create(static_cast<aiod_verb>(verb), c_path(root), c_path(path), c_path(to)));

    if (directory_op == nullptr) {
        throw std::bad_alloc();
    }
    set_times(directory_op->times, times);
    set_value(*directory_op, value);
    directory_op->xattr_flags = xattr_flags;
    directory_op->itself = !follow;
    directory_op->cursor = cursor;
    directory_op->mode = mode;
    directory_op->replace = replace;
    directory_op->no_links = !links;
    Core::check(aiod_core_directory_op(core.core, tag, sent_by, rate_of(rate), directory_op.release(),
                                       identity.release(), timeout_ms * 1000000));
}

std::vector<aiod_ioctl> ioctls_of(const nb::sequence &ioctls)
{
    std::vector<aiod_ioctl> allowed;

    for (nb::handle ioctl : ioctls) {
        allowed.push_back({nb::cast<uint32_t>(ioctl[0]), nb::cast<uint32_t>(ioctl[1])});
    }
    return allowed;
}

uint32_t core_add_handle(Core &core, Session &session, int fd, uint64_t dev, uint64_t ino, bool readable, bool writable,
                         bool append, bool on_fuse, const nb::object &alignment, const nb::sequence &ioctls,
                         uint64_t size_max, const std::string &name, uint32_t wanted, bool suspect, bool poisoned,
                         int flush_fd, const Rate *rate, int ioprio, bool uring, bool uring_alone,
                         const nb::sequence &faults)
{
    const aiod_resumed resumed = {wanted, suspect, poisoned};
    const std::vector<aiod_ioctl> allowed = ioctls_of(ioctls);
    aiod_handle_use use = {};
    int64_t number;

    use.readable = readable;
    use.writable = writable;
    use.append = append;
    use.on_fuse = on_fuse;
    use.direct = !alignment.is_none();
    use.alignment = {1, 1};
    if (use.direct) {
        use.alignment = {nb::cast<uint32_t>(alignment[0]), nb::cast<uint32_t>(alignment[1])};
    }
    use.ioctls = {allowed.data(), allowed.size()};
    use.size_max = size_max;
    use.rate = rate_of(rate);
    use.ioprio = ioprio;
    use.uring = use.direct && uring;
    use.uring_alone = uring_alone;
    use.name = name.c_str();
    for (nb::handle fault : faults) {
        if (use.faults.count == AIOD_FAULTS_MAX) {
            break;
        }
        use.faults.items[use.faults.count++] = {
            nb::cast<uint32_t>(fault[0]), nb::cast<uint32_t>(fault[1]), nb::cast<uint32_t>(fault[2]),
            nb::cast<int>(fault[3]),      nb::cast<uint64_t>(fault[4]),
        };
    }
    number = aiod_core_add_handle(core.core, session.session, fd, flush_fd, dev, ino, &use, &resumed);
    Core::check(number);
    return static_cast<uint32_t>(number);
}

uint32_t core_add_names(Core &core, Session &session, const std::string &root, bool links, bool writable,
                        uint32_t verbs, uint64_t size_max, const std::string &name, unsigned mode, bool exact_mode,
                        int64_t uid, int64_t gid, const nb::sequence &ioctls, const Rate *rate, int ioprio,
                        const nb::bytes &keep_token, const nb::bytes &keep_record)
{
    const std::vector<aiod_ioctl> allowed = ioctls_of(ioctls);
    aiod_handle_use use = {};
    int64_t number;

    use.writable = writable;
    use.names.keeping = {keep_token.c_str(), keep_token.size(), keep_record.c_str(), keep_record.size()};
    use.ioctls = {allowed.data(), allowed.size()};
    use.alignment = {1, 1};
    use.size_max = size_max;
    use.name = name.c_str();
    use.rate = rate_of(rate);
    use.ioprio = ioprio;
    use.names.root = c_path(root);
    use.names.no_links = !links;
    use.names.verbs = verbs;
    use.names.creation = {mode, exact_mode, static_cast<uid_t>(uid), static_cast<gid_t>(gid)};
    number = aiod_core_add_names(core.core, session.session, &use);
    Core::check(number);
    return static_cast<uint32_t>(number);
}

/*
 * [(handle, "export/path", descriptor for the store, flags, device, inode, on FUSE)] of the files that the session's ring has
 * opened: `all`, or those that have been open for some time. `again`: open a file once more if it has no such descriptor
 * yet, unless the store has one already.
 */
nb::list core_collect_opened(Core &core, Session &session, bool all, bool again)
{
    nb::list opened;

    for (aiod_handle *handle = aiod_core_collect_opened(core.core, session.session, all); handle != nullptr;
         handle = handle->ring_next) {
        const bool has_one = handle->store_fd >= 0 || handle->kept;
        const int fd = has_one || !again ? handle->store_fd : aiod_open_reading_again(handle->fd);
        const unsigned flags = (handle->use.readable ? unsigned{AIOD_OPEN_READ} : 0u) |
                               (handle->use.writable ? unsigned{AIOD_OPEN_WRITE} : 0u) |
                               (handle->use.append ? unsigned{AIOD_OPEN_APPEND} : 0u);

        handle->store_fd = -1;
        opened.append(nb::make_tuple(handle->number, nb::bytes(handle->use.name, strlen(handle->use.name)), fd, flags,
                                     handle->file->dev, handle->file->ino, handle->use.on_fuse));
    }
    return opened;
}

nb::list core_sessions_to_collect(Core &core)
{
    nb::list tags;

    for (aiod_session *session = aiod_core_sessions_to_collect(core.core); session != nullptr;
         session = session->next_to_collect) {
        tags.append(static_cast<const Session *>(session->owner)->tag);
    }
    return tags;
}

void session_retire_handle(Session &session, uint32_t number)
{
    aiod_handle_retire(session.session, number);
}

void core_close_handle(Core &core, uint64_t tag, Session &session, uint32_t handle)
{
    Core::check(aiod_core_close_handle(core.core, tag, session.session, handle));
}

/* [(handle, whether its mount is dead, its name)] of the files on FUSE. */
nb::list core_fuse_handles(Core &, Session &session)
{
    nb::list handles;

    for (uint32_t i = 0; i < session.session->slot_count; i++) {
        const aiod_handle *handle = session.session->slots[i].handle;

        if (handle != nullptr && handle->use.on_fuse && !handle->closing) {
            handles.append(nb::make_tuple(handle->number, static_cast<int>(aiod_handle_loss(handle)),
                                          nb::bytes(handle->use.name, strlen(handle->use.name))));
        }
    }
    return handles;
}

void core_move_handle(Core &core, uint64_t tag, Session &session, uint32_t handle, const std::string &root,
                      const std::string &path, bool links, const nb::object &as, uint64_t timeout_ms)
{
    const char *c_root = c_path(root);
    const char *c_name = c_path(path);
    Identity identity = identity_of(as);

    Core::check(aiod_core_move_handle(core.core, tag, session.session, handle, c_root, c_name, !links,
                                      identity.release(), timeout_ms * 1000000));
}

void core_lock(Core &core, uint64_t tag, Session &session, uint32_t handle, bool exclusive, uint64_t first,
               uint64_t last, uint64_t regain)
{
    const aiod_file_lock lock = {first, last, exclusive};

    Core::check(aiod_core_lock(core.core, tag, session.session, handle, &lock, regain));
}

/* `regained`: (first, last) of each exclusive lock that was regained. */
void session_set_locks(Session &session, uint32_t number, bool held, bool lost, const nb::sequence &regained)
{
    const size_t count = nb::len(regained);
    auto *locks = static_cast<aiod_file_lock *>(calloc(count + 1, sizeof(aiod_file_lock)));

    if (locks == nullptr) {
        raise_os_error(ENOMEM);
    }
    for (size_t i = 0; i < count; i++) {
        locks[i] = {nb::cast<uint64_t>(regained[i][0]), nb::cast<uint64_t>(regained[i][1]), true};
    }
    Core::check(aiod_core_set_locks(session.session, number, held, lost, locks, count));
}

/* (device, inode, whether it may be read, written) of an open file; None: the handle is unknown, or no file's. */
nb::object session_file_of(const Session &session, uint64_t number)
{
    const aiod_handle *handle =
        number <= UINT32_MAX ? aiod_handle_find(session.session, static_cast<uint32_t>(number)) : nullptr;

    if (handle == nullptr || handle->fd < 0) {
        return nb::none();
    }
    return nb::make_tuple(handle->file->dev, handle->file->ino, handle->use.readable, handle->use.writable);
}

void core_flush_handle(Core &core, uint64_t tag, Session &session, uint32_t handle)
{
    Core::check(aiod_core_flush_handle(core.core, tag, session.session, handle));
}

void core_trace_begin(Core &)
{
    if (int error = aiod_trace_begin(); error < 0) {
        raise_os_error(-error);
    }
}

nb::tuple core_trace_end(Core &)
{
    std::string records;
    uint64_t dropped = 0;

    aiod_trace_end(
        [](const aiod_trace_event *events, size_t count, void *argument) {
            auto *bytes = static_cast<std::string *>(argument);
            if (count > 0) {
                bytes->assign(reinterpret_cast<const char *>(events), count * sizeof(*events));
            }
        },
        &records, &dropped);
    return nb::make_tuple(nb::bytes(records.data(), records.size()), dropped);
}

nb::dict core_pool_stats(Core &core)
{
    aiod_pool_stats stats;
    auto latency = std::make_unique<aiod_histogram>();
    nb::dict created_for;
    nb::dict result;

    aiod_pool_get_stats(core.core->pool, &stats);
    aiod_pool_get_spawn_latency(core.core->pool, latency.get());
    created_for["burst"] = stats.created_for[AIOD_SPAWN_BURST];
    created_for["min"] = stats.created_for[AIOD_SPAWN_MIN];
    created_for["retry"] = stats.created_for[AIOD_SPAWN_RETRY];
    result["max_threads"] = stats.max_threads;
    result["stuck_threads"] = stats.stuck_threads;
    result["min_threads"] = stats.min_threads;
    result["cur_threads"] = stats.cur_threads;
    result["idle_threads"] = stats.idle_threads;
    result["active_threads"] = stats.active_threads;
    result["new_threads"] = stats.new_threads;
    result["pending_threads"] = stats.pending_threads;
    result["queued"] = stats.queued;
    result["threads_created"] = stats.threads_created;
    result["threads_peak"] = stats.threads_peak;
    result["created_for"] = created_for;
    result["longest_chain"] = stats.longest_chain;
    result["spawn_latency_ns"] = histogram_list(*latency);
    result["spawn_latency_sum_ns"] = latency->sum;
    result["spawn_failures"] = stats.spawn_failures;
    result["uring_inflight"] = stats.uring_inflight;
    result["uring_requests"] = stats.uring_requests;
    result["uring_returned"] = stats.uring_returned;
    result["uring_failures"] = stats.uring_failures;
    result["lost_wakeups"] = stats.lost_wakeups;
    return result;
}

/* ---- the device for a guest -------------------------------------------------------------------------------------- */

void core_serve_vhost(Core &core, Session &session, uint32_t handle, uint32_t queues, uint32_t block_bytes,
                      const std::string &serial)
{
    aiod_blk blk = {};

    blk.queue_count = static_cast<uint16_t>(queues);
    blk.block_bytes = block_bytes;
    memcpy(blk.serial, serial.data(), std::min<size_t>(serial.size(), sizeof(blk.serial)));
    if (queues < 1 || queues > AIOD_BLK_QUEUES_MAX || block_bytes < 512 || (block_bytes & (block_bytes - 1)) != 0) {
        throw nb::value_error("the number of queues or the size of a block is out of range");
    }
    if (int error = aiod_core_serve_vhost(core.core, session.session, handle, &blk); error < 0) {
        raise_os_error(-error);
    }
}

aiod_core *with_vhost(const Core &core)
{
    if (core.core->vhost == nullptr) {
        throw nb::value_error("the engine serves no guest");
    }
    return core.core;
}

/* The lines for the log. */
nb::list core_vhost_step(Core &core)
{
    nb::list lines;

    aiod_core_vhost_step(with_vhost(core));
    while (const char *line = aiod_core_vhost_log_line(core.core)) {
        lines.append(nb::bytes(line, strlen(line)));
    }
    return lines;
}

void core_vhost_connect(Core &core, int fd)
{
    if (int error = aiod_core_vhost_connect(with_vhost(core), fd); error < 0) {
        raise_os_error(-error);
    }
}

nb::dict core_vhost_status(Core &core)
{
    const aiod_vhost_status status = aiod_core_vhost_status(with_vhost(core));
    nb::dict result;

    result["connected"] = status.connected;
    result["free"] = status.free;
    result["connections"] = status.connections;
    result["queues"] = status.queues;
    result["queues_running"] = status.running;
    result["queues_broken"] = status.broken;
    result["inflight"] = status.inflight;
    result["resubmitted"] = status.resubmitted;
    result["bytes"] = status.bytes;
    result["block_size"] = status.block_bytes;
    result["read_only"] = status.read_only;
    result["memory_regions"] = status.regions;
    result["features"] = status.features;
    return result;
}

using Search = size_t (*)(aiod_core *core, aiod_active_request_info *views, size_t max);

/* The active requests that `search` finds, as a list of dicts. */
nb::list active_requests_list(Core &core, Search search, size_t max)
{
    std::vector<aiod_active_request_info> views(max);
    size_t count = search(core.core, views.data(), max);
    nb::list result;

    for (size_t i = 0; i < count; i++) {
        const aiod_active_request_info &view = views[i];
        nb::dict entry;

        entry["op"] = op_names[view.op];
        entry["client"] = view.handle != nullptr ? view.handle->session->client : "";
        entry["file"] = view.handle != nullptr ? view.handle->use.name : "";
        entry["handle"] = view.handle != nullptr ? view.handle->number : 0;
        entry["tag"] = view.tag;
        entry["offset"] = view.offset;
        entry["bytes"] = view.length;
        entry["age_s"] = static_cast<double>(view.age_ns) / 1e9;
        entry["tid"] = view.tid;
        entry["started"] = view.started;
        result.append(entry);
    }
    return result;
}

nb::list core_worker_tids(Core &core)
{
    std::vector<pid_t> tids(AIOD_THREADS_MAX);
    size_t count = aiod_pool_worker_tids(core.core->pool, tids.data());
    nb::list result;

    for (size_t i = 0; i < count; i++) {
        result.append(tids[i]);
    }
    return result;
}

/* Rounded up: a timer that fires too early finds nothing to do, and would be set again. */
int64_t milliseconds(uint64_t ns)
{
    return ns == AIOD_POOL_NEVER ? -1 : static_cast<int64_t>((ns + 999999) / 1000000);
}

bool core_stop(Core &core, uint64_t timeout_ms)
{
    nb::gil_scoped_release released;

    return aiod_core_stop(core.core, timeout_ms * 1000000);
}

} // namespace

NB_MODULE(_core, m)
{
    /* The engine's objects refer to each other until the process ends, so leak warnings would be false. */
    nb::set_leak_warnings(false);

    m.attr("VERB_LIST") = static_cast<int>(AIOD_VERB_LIST);
    m.attr("VERB_STAT") = static_cast<int>(AIOD_VERB_STAT);
    m.attr("VERB_REMOVE") = static_cast<int>(AIOD_VERB_REMOVE);
    m.attr("VERB_RMDIR") = static_cast<int>(AIOD_VERB_RMDIR);
    m.attr("VERB_RENAME") = static_cast<int>(AIOD_VERB_RENAME);
    m.attr("VERB_MKDIR") = static_cast<int>(AIOD_VERB_MKDIR);
    m.attr("VERB_SYNC") = static_cast<int>(AIOD_VERB_SYNC);
    m.attr("VERB_LSTAT") = static_cast<int>(AIOD_VERB_LSTAT);
    m.attr("VERB_READLINK") = static_cast<int>(AIOD_VERB_READLINK);
    m.attr("VERB_SYMLINK") = static_cast<int>(AIOD_VERB_SYMLINK);
    m.attr("VERB_LINK") = static_cast<int>(AIOD_VERB_LINK);
    m.attr("VERB_UTIME") = static_cast<int>(AIOD_VERB_UTIME);
    m.attr("VERB_CHMOD") = static_cast<int>(AIOD_VERB_CHMOD);
    m.attr("VERB_GETXATTR") = static_cast<int>(AIOD_VERB_GETXATTR);
    m.attr("VERB_SETXATTR") = static_cast<int>(AIOD_VERB_SETXATTR);
    m.attr("VERB_LISTXATTR") = static_cast<int>(AIOD_VERB_LISTXATTR);
    m.attr("VERB_REMOVEXATTR") = static_cast<int>(AIOD_VERB_REMOVEXATTR);
    m.attr("VERB_RMTREE") = static_cast<int>(AIOD_VERB_RMTREE);
    m.attr("XATTR_BYTES_MAX") = static_cast<int>(AIOD_XATTR_BYTES_MAX);

    m.def("keep_large_blocks", [] {
        mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024);
        mallopt(M_TRIM_THRESHOLD, 64 * 1024 * 1024);
    });

    aiod_zmq::bind_sender(m);
    aiod_zmq::bind_receiver(m);
    nb::class_<Buffer>(m, "Buffer", nb::type_slots(buffer_slots)).def("__len__", [](const Buffer &buffer) {
        return buffer.buffer->length;
    });

    m.def("may_set_ioprio", aiod_ioprio_allowed);
    m.def("keep_open_in_urings", aiod_uring_keep_open, nb::arg("fd"));
    m.def("probe_uring", aiod_uring_probe);
    m.def("probe_open_beneath", aiod_probe_open_beneath);

    nb::class_<Rate>(m, "Rate").def(nb::init<>());

    nb::class_<Session>(m, "Session")
        .def(nb::init<nb::object, const std::string &, const std::string &, uint32_t, uint64_t, uint64_t, uint32_t,
                      uint32_t, const Rate *>(),
             nb::arg("tag").none(), nb::kw_only(), nb::arg("client"), nb::arg("transport"), nb::arg("depth_max"),
             nb::arg("bytes_max"), nb::arg("request_bytes_max"), nb::arg("batch_max"), nb::arg("handles_max"),
             nb::arg("rate").none())
        .def_rw("tag", &Session::tag, nb::arg("value").none())
        .def_prop_rw(
            "lease_until_ns",
            [](const Session &self) { return __atomic_load_n(&self.session->lease_until_ns, __ATOMIC_RELAXED); },
            [](Session &self, uint64_t until_ns) {
                __atomic_store_n(&self.session->lease_until_ns, until_ns, __ATOMIC_RELAXED);
            })
        .def_prop_ro("handles",
                     [](const Session &self) { return self.session->handle_count - self.session->names_count; })
        .def_prop_ro("names", [](const Session &self) { return self.session->names_count; })
        .def("describe_handles", session_describe_handles)
        .def("revoke_names", [](Session &self) { aiod_core_revoke_names(self.session); })
        .def_prop_ro("lent", [](const Session &self) { return self.session->lent_count; })
        .def("ran_out_of_handles", [](const Session &self) { return aiod_core_ran_out_of_handles(self.session); })
        .def("is_poisoned",
             [](const Session &self, uint32_t number) {
                 const aiod_handle *handle = aiod_handle_find(self.session, number);

                 return handle != nullptr && aiod_flushes_poisoned(&handle->file->flushes);
             })
        .def("has_handle",
             [](const Session &self, uint64_t number) {
                 return number <= UINT32_MAX &&
                        aiod_handle_find(self.session, static_cast<uint32_t>(number)) != nullptr;
             })
        .def_prop_ro("has_opened", [](const Session &self) { return aiod_core_has_opened(self.session); })
        .def("file_of", session_file_of, nb::arg("number"))
        .def("set_locks", session_set_locks, nb::arg("number"), nb::kw_only(), nb::arg("held"), nb::arg("lost"),
             nb::arg("regained"))
        .def("retire_handle", session_retire_handle, nb::arg("number"))
        .def_prop_ro("inflight", [](const Session &self) { return aiod_core_session_inflight(self.session); })
        .def_prop_ro("has_ring", [](const Session &self) { return self.session->ring != nullptr; })
        .def_prop_ro("unacknowledged", [](const Session &self) { return aiod_session_unacknowledged(self.session); })
        .def_prop_ro("unacknowledged_bytes", [](const Session &self) { return self.session->unacknowledged_bytes; })
        .def("stats", session_stats);

    nb::class_<Core>(m, "Core")
        .def(nb::init<const std::string &, unsigned, unsigned, uint64_t, uint64_t, uint64_t, size_t, unsigned,
                      uint64_t>(),
             nb::arg("name"), nb::kw_only(), nb::arg("max_threads"), nb::arg("min_threads"), nb::arg("idle_timeout_ms"),
             nb::arg("spawn_retry_ms"), nb::arg("inline_read_max"), nb::arg("buffer_cache_max"), nb::arg("rings_max"),
             nb::arg("ring_poll_max_us"))
        .def("attach", core_attach, nb::arg("session"), nb::arg("wake_fd"), nb::arg("entries"), nb::arg("area_bytes"))
        .def_prop_ro("rings", [](const Core &self) { return self.core->ring_count; })
        .def_prop_ro("ring_bytes", [](const Core &self) { return self.core->ring_bytes; })
        .def_prop_ro("completion_fd", [](const Core &self) { return aiod_pool_completion_fd(self.core->pool); })
        .def_prop_ro("doorbell_fd", [](const Core &self) { return aiod_pool_doorbell_fd(self.core->pool); })
        .def("submit", core_submit, nb::arg("session"), nb::arg("received"), nb::arg("records"), nb::arg("frames"))
        .def("reap", core_reap)
        .def("cancel", core_cancel, nb::arg("session"), nb::arg("cookies"))
        .def("open", core_open, nb::arg("tag"), nb::arg("transport"), nb::arg("rate").none(), nb::arg("root"),
             nb::arg("path"), nb::arg("flags"), nb::arg("mode"), nb::kw_only(), nb::arg("exact_mode"), nb::arg("uid"),
             nb::arg("gid"), nb::arg("links"), nb::arg("as_client").none(), nb::arg("timeout_ms"))
        .def("directory_operation", core_directory_operation, nb::arg("tag"), nb::arg("transport"),
             nb::arg("rate").none(), nb::arg("verb"), nb::arg("root"), nb::arg("path"), nb::kw_only(), nb::arg("to"),
             nb::arg("cursor"), nb::arg("mode"), nb::arg("replace"), nb::arg("links"), nb::arg("times") = nb::none(),
             nb::arg("value") = nb::bytes("", 0), nb::arg("xattr_flags") = 0, nb::arg("follow") = true,
             nb::arg("as_client").none(), nb::arg("timeout_ms"))
        .def("add_handle", core_add_handle, nb::arg("session"), nb::arg("fd"), nb::arg("dev"), nb::arg("ino"),
             nb::kw_only(), nb::arg("readable"), nb::arg("writable"), nb::arg("append"), nb::arg("on_fuse") = false,
             nb::arg("alignment").none(), nb::arg("ioctls"), nb::arg("size_max"), nb::arg("name"),
             nb::arg("wanted") = 0, nb::arg("suspect") = false, nb::arg("poisoned") = false, nb::arg("flush_fd") = -1,
             nb::arg("rate").none() = nb::none(), nb::arg("ioprio") = 0, nb::arg("uring") = false,
             nb::arg("uring_alone") = false, nb::arg("faults") = nb::make_tuple())
        .def("add_names", core_add_names, nb::arg("session"), nb::kw_only(), nb::arg("root"), nb::arg("links"),
             nb::arg("writable"), nb::arg("verbs"), nb::arg("size_max"), nb::arg("name"), nb::arg("mode"),
             nb::arg("exact_mode"), nb::arg("uid"), nb::arg("gid"), nb::arg("ioctls"), nb::arg("rate").none(),
             nb::arg("ioprio"), nb::arg("keep_token"), nb::arg("keep_record"))
        .def(
            "lend_handles",
            [](Core &self, Session &session, uint32_t count) {
                return aiod_core_lend_handles(self.core, session.session, count);
            },
            nb::arg("session"), nb::arg("count"))
        .def(
            "take_back_handles",
            [](Core &self, Session &session) { return aiod_core_take_back_handles(self.core, session.session); },
            nb::arg("session"))
        .def("collect_opened", core_collect_opened, nb::arg("session"), nb::kw_only(), nb::arg("everything"),
             nb::arg("again"))
        .def("sessions_to_collect", core_sessions_to_collect)
        .def_prop_ro("collect_fd", [](const Core &self) { return self.core->collect_timer.fd; })
        .def_prop_ro("lent", [](const Core &self) { return self.core->lent_count; })
        .def(
            "adopt",
            [](Core &self, uint64_t tag, const Rate *rate, int fd, unsigned flags) {
                Core::check(aiod_core_adopt(self.core, tag, rate_of(rate), fd, flags));
            },
            nb::arg("tag"), nb::arg("rate").none(), nb::arg("fd"), nb::arg("flags"))
        .def_prop_rw(
            "poison_notice_fd", [](const Core &self) { return self.core->files.notice_fd; },
            [](Core &self, int fd) { self.core->files.notice_fd = fd; })
        .def_prop_rw(
            "takes_repeats", [](const Core &self) { return self.core->takes_repeats; },
            [](Core &self, bool takes) { self.core->takes_repeats = takes; })
        .def(
            "close_fd",
            [](Core &self, uint64_t tag, const Rate *rate, int fd) {
                aiod_core_close_fd(self.core, tag, rate_of(rate), fd);
            },
            nb::arg("tag"), nb::arg("rate").none(), nb::arg("fd"))
        .def("close_handle", core_close_handle, nb::arg("tag"), nb::arg("session"), nb::arg("handle"))
        .def("fuse_handles", core_fuse_handles, nb::arg("session"))
        .def("move_handle", core_move_handle, nb::arg("tag"), nb::arg("session"), nb::arg("handle"), nb::arg("root"),
             nb::arg("path"), nb::kw_only(), nb::arg("links"), nb::arg("as_client").none(), nb::arg("timeout_ms"))
        .def("lock", core_lock, nb::arg("tag"), nb::arg("session"), nb::arg("handle"), nb::kw_only(),
             nb::arg("exclusive"), nb::arg("first"), nb::arg("last"), nb::arg("regain"))
        .def(
            "unlock",
            [](Core &self, uint64_t tag, Session &session, uint32_t handle, uint64_t first, uint64_t last) {
                Core::check(aiod_core_unlock(self.core, tag, session.session, handle, first, last));
            },
            nb::arg("tag"), nb::arg("session"), nb::arg("handle"), nb::kw_only(), nb::arg("first"), nb::arg("last"))
        .def("flush_handle", core_flush_handle, nb::arg("tag"), nb::arg("session"), nb::arg("handle"))
        .def(
            "announce_drained",
            [](Core &, Session &session, bool flushed) { aiod_core_announce_drained(session.session, flushed); },
            nb::arg("session"), nb::kw_only(), nb::arg("flushed"))
        .def(
            "end_session", [](Core &self, Session &session) { aiod_core_end_session(self.core, session.session); },
            nb::arg("session"))
        .def_prop_ro("bytes_inflight", [](const Core &self) { return aiod_core_bytes_inflight(self.core); })
        .def_prop_ro("message_bytes_inflight", [](const Core &self) { return self.core->bytes_inflight; })
        .def_prop_ro("inflight", [](const Core &self) { return aiod_core_inflight(self.core); })
        .def_prop_ro("files", [](const Core &self) { return self.core->handle_count; })
        .def_prop_ro("descriptors", [](const Core &self) { return aiod_files_descriptors(&self.core->files); })
        .def("spawn", [](Core &self) { aiod_pool_spawn(self.core->pool); })
        .def("tick", [](Core &self) { return milliseconds(aiod_pool_tick(self.core->pool)); })
        .def("tick_wanted", [](Core &self) { return milliseconds(aiod_pool_tick_wanted(self.core->pool)); })
        .def(
            "resize",
            [](Core &self, unsigned max_threads, unsigned min_threads) {
                Core::check(aiod_pool_resize(self.core->pool, max_threads, min_threads));
            },
            nb::arg("max_threads"), nb::arg("min_threads"))
        .def(
            "share",
            [](Core &self, unsigned reserve_threads, unsigned active_max, uint64_t active_bytes_max) {
                aiod_pool_set_shares(self.core->pool, reserve_threads, active_max, active_bytes_max);
            },
            nb::kw_only(), nb::arg("reserve_threads"), nb::arg("active_max"), nb::arg("active_bytes_max"))
        .def(
            "set_rate",
            [](Core &self, Rate &rate, uint64_t per_second, uint64_t bytes_per_second, uint64_t burst_ms) {
                const aiod_rate_limits limits = {per_second, bytes_per_second, burst_ms * 1000000};

                aiod_pool_set_rate(self.core->pool, rate.rate, &limits);
            },
            nb::arg("rate"), nb::kw_only(), nb::arg("per_second"), nb::arg("bytes_per_second"), nb::arg("burst_ms"))
        .def(
            "watch",
            [](Core &self, uint64_t slow_request_ms, unsigned stuck_threads_max) {
                aiod_core_set_slow_limits(self.core, slow_request_ms * 1000000, stuck_threads_max);
            },
            nb::kw_only(), nb::arg("slow_request_ms"), nb::arg("stuck_threads_max"))
        .def(
            "active_requests",
            [](Core &self, size_t limit) { return active_requests_list(self, aiod_core_active_requests, limit); },
            nb::arg("limit"))
        .def(
            "find_slow",
            [](Core &self, size_t limit) { return active_requests_list(self, aiod_core_find_slow, limit); },
            nb::arg("limit"))
        .def_prop_ro("open_as_client_waiting",
                     [](const Core &self) { return aiod_open_as_client_threads_waiting(&self.core->open_as_client); })
        .def("pool_stats", core_pool_stats)
        .def("worker_tids", core_worker_tids)
        .def("trace_begin", core_trace_begin)
        .def("trace_end", core_trace_end)
        .def("follow",
             [](Core &self) {
                 int moved = aiod_core_follow_affinity(self.core);

                 Core::check(moved);
                 return moved;
             })
        .def("stats", core_stats)
        .def("snapshot", core_snapshot, nb::arg("rates"))
        .def("throttling", core_throttling, nb::arg("rate"))
        .def("flush_groups", core_flush_groups)
        .def("serve_vhost", core_serve_vhost, nb::arg("session"), nb::arg("handle"), nb::kw_only(), nb::arg("queues"),
             nb::arg("block_bytes"), nb::arg("serial"))
        .def_prop_ro("vhost_fd", [](const Core &self) { return aiod_core_vhost_fd(with_vhost(self)); })
        .def("vhost_connect", core_vhost_connect, nb::arg("fd"))
        .def("vhost_disconnect", [](Core &self) { aiod_core_vhost_disconnect(with_vhost(self)); })
        .def("vhost_step", core_vhost_step)
        .def("vhost_measure", [](Core &self) { aiod_core_vhost_measure(with_vhost(self)); })
        .def("vhost_status", core_vhost_status)
        .def("drain", [](Core &self) { aiod_core_drain(self.core); })
        .def("stop", core_stop, nb::arg("timeout_ms"));
}
