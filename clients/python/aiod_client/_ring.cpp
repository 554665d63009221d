/*
 * _ring.cpp - libaiod's Python interface (aiod_client/_ring.pyi documents each name), and ZmqSender. Nothing here
 * depends on sessions or files: the ring transport (ring/transport.py) does.
 *
 * Any thread with the GIL held; it is released only while a thread waits. libaiod's own lock is never held when Python is
 * called, so that a finalizer or signal handler that interrupts a method here may use the same ring.
 */
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "zmq_receiver.hpp"

extern "C" {
#include "aiod.h"
}

namespace nb = nanobind;

namespace
{

constexpr int64_t SLICE_NS = 50000000; /* the delay of a signal handler while its thread waits */
constexpr unsigned REAP_MAX = 256;
constexpr unsigned MISSES_MAX = 4;  /* after so many polls that found nothing a thread polls once ... */
constexpr unsigned LOOK_AGAIN = 64; /* ... in so many reads */
constexpr unsigned NEAR_MAX = 2;
constexpr unsigned FAR_MAX = 16;
constexpr Py_ssize_t PATH_BYTES_MAX = 4095;
constexpr Py_ssize_t SOURCE_BYTES_MAX = 65536;
constexpr unsigned LOOKS = 256;         /* with the GIL held: a few times what a cached read takes */
constexpr unsigned PATH_LOOKS = 1024;   /* the same, of requests on paths ... */
constexpr unsigned BYTES_PER_LOOK = 64; /* ... and one more for so many bytes of room */
constexpr uint64_t OFFSET_MAX = INT64_MAX;
constexpr uint64_t LOOK_BYTES_MAX = 131072; /* of a longer read only the copy would take as long */

/*
 * Releases the GIL while a thread waits. When a daemon thread returns while the interpreter ends, PyEval_RestoreThread() ends
 * it by pthread_exit(). The unwinding would abort the process at the first noexcept frame, such as any destructor here. So
 * it stops here, and the thread sleeps until the process has ended.
 */
class Unlocked
{
  public:
    Unlocked() : state(PyEval_SaveThread())
    {
    }
    Unlocked(const Unlocked &) = delete;
    Unlocked &operator=(const Unlocked &) = delete;
    ~Unlocked()
    {
        lock(state);
    }

  private:
    struct Stay {
        Stay() = default;
        Stay(const Stay &) = delete;
        Stay &operator=(const Stay &) = delete;
        ~Stay()
        {
            while (!locked) {
                pause();
            }
        }
        bool locked = false;
    };

    /* A frame of its own, or the destructor's comes first. */
    [[gnu::noinline]] static void lock(PyThreadState *state) noexcept(false)
    {
        Stay stay;

        PyEval_RestoreThread(state);
        stay.locked = true;
    }

    PyThreadState *state;
};

/* ---- the session with an engine ---------------------------------------------------------------------------------------- */

struct Flight;

/* Kept by the Ring, and by every buffer of its pool. */
struct Client {
    explicit Client(aiod_client *taken) : client(taken)
    {
    }
    Client(const Client &) = delete;
    Client &operator=(const Client &) = delete;
    ~Client();

    aiod_client *client;
    std::vector<Flight *> orphans;     /* in flight and abandoned; they still use a buffer, or open a file */
    std::vector<uint64_t> late_opened; /* handles of files that were opened when nobody waited any more */
};
using ClientRef = std::shared_ptr<Client>;

/* Memory of the buffer pool, as an object with the buffer protocol. */
struct Buffer {
    Buffer(ClientRef its, void *taken, size_t bytes) : client(std::move(its)), data(taken), length(bytes)
    {
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer()
    {
        aiod_free(client->client, data);
    }

    ClientRef client;
    void *data;
    size_t length;
};

int buffer_get(PyObject *self, Py_buffer *view, int flags)
{
    Buffer *buffer = nb::inst_ptr<Buffer>(self);

    return PyBuffer_FillInfo(view, self, buffer->data, static_cast<Py_ssize_t>(buffer->length), 0, flags);
}

PyType_Slot buffer_slots[] = {
    {Py_bf_getbuffer, reinterpret_cast<void *>(buffer_get)},
    {0, nullptr},
};

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

/* The caller's memory; used without a copy if it is in the buffer pool. */
struct View {
    View() = default;
    View(const View &) = delete;
    View &operator=(const View &) = delete;
    ~View()
    {
        if (held) {
            PyBuffer_Release(&view);
        }
    }
    /* False: it is not contiguous, or not writable; operations.py raises the error, the same by ring and by message. */
    bool take(nb::handle data, int flags)
    {
        held = PyObject_GetBuffer(data.ptr(), &view, flags) == 0;
        if (!held) {
            PyErr_Clear();
        }
        return held;
    }
    void give_back()
    {
        PyBuffer_Release(&view);
        held = false;
    }

    Py_buffer view = {};
    bool held = false;
};

/* What a request has while a future waits for it (awaited.hpp): it is in the Ring's list then. */
struct Awaited {
    nb::object future; /* invalid: no future waits for it */
    nb::object data;   /* the caller's: the bytes of a write, the destination of a read; the epoch of a flush */
    nb::object file;   /* of a write: its session/open_files.OpenFile */
    double timeout_s = 0;
    double due_s = 0;
    Flight *next = nullptr;
    Flight *previous = nullptr;
};

/* A request, and the objects that it keeps. */
struct Flight {
    Flight() = default;
    Flight(const Flight &) = delete;
    Flight &operator=(const Flight &) = delete;
    ~Flight() = default;

    aiod_op *op = nullptr; /* its `user` is this */
    nb::object owner;
    View view;              /* the destination of a read, or a buffer of the pool */
    bool in_place = false;  /* the buffer is the caller's, in the pool */
    bool with_stat = false; /* the data of a whole file are preceded by its stat */
    bool submitted = false;
    bool orphan = false;
    bool reaping = false; /* take_done() works on it, and frees it if it is dropped meanwhile */
    bool dropped = false;
    Awaited awaited;
};

Client::~Client()
{
    if (aiod_forked(client)) {
        return; /* after a fork it belongs to the parent, with the requests in flight */
    }
    aiod_disconnect(client);
    for (Flight *flight : orphans) {
        free(flight->op);
        delete flight;
    }
}

bool opens_file(unsigned op)
{
    return op == AIOD_RING_OPEN_FILE || op == AIOD_RING_OPEN_WRITABLE;
}

/* Nobody wants the request's result. */
void drop_flight(Client &client, std::unique_ptr<Flight> flight)
{
    if (flight == nullptr || aiod_forked(client.client)) {
        (void)flight.release(); /* after a fork it belongs to the parent */
        return;
    }
    if (flight->reaping) {
        flight.release()->dropped = true;
        return;
    }
    if (flight->op == nullptr) {
        return;
    }
    if (flight->submitted && (flight->in_place || opens_file(flight->op->op))) {
        /* the engine may still use the buffer, or open the file, which has to be closed then */
        flight->orphan = true;
        flight->owner = nb::none();
        flight->awaited = Awaited();
        client.orphans.push_back(flight.release());
    } else if (flight->submitted) {
        aiod_abandon(client.client, flight->op);
    } else {
        if (!flight->in_place) {
            aiod_free(client.client, flight->op->buffer);
        }
        free(flight->op);
    }
}

/* The Python object of a request. When it is dropped before the request is done, the request is abandoned. */
struct Pending {
    explicit Pending(ClientRef its) : client(std::move(its)), flight(new Flight)
    {
    }
    Pending(ClientRef its, aiod_op *op) : Pending(std::move(its))
    {
        op->user = flight.get();
        flight->op = op;
        flight->submitted = true;
    }
    Pending(ClientRef its, std::unique_ptr<Flight> taken) : client(std::move(its)), flight(std::move(taken))
    {
    }
    Pending(const Pending &) = delete;
    Pending &operator=(const Pending &) = delete;
    ~Pending()
    {
        drop_flight(*client, std::move(flight));
    }

    ClientRef client;
    std::unique_ptr<Flight> flight;
};

/*
 * For the garbage collector: a Pending may be part of a cycle, as when its owner's future has an exception whose traceback
 * has a frame with the Pending in it.
 */
int pending_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) {
        const Pending *pending = nb::inst_ptr<Pending>(self);

        if (pending->flight != nullptr) {
            Py_VISIT(pending->flight->owner.ptr());
        }
    }
    return 0;
}

int pending_clear(PyObject *self)
{
    Pending *pending = nb::inst_ptr<Pending>(self);

    if (pending->flight != nullptr) {
        const nb::object owner = std::move(pending->flight->owner); /* removed from there before it is released */
    }
    return 0;
}

PyType_Slot pending_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void *>(pending_traverse)},
    {Py_tp_clear, reinterpret_cast<void *>(pending_clear)},
    {0, nullptr},
};

/* A request is done that nobody waits for: if it has opened a file, note the handle. */
void note_opened(Client &client, const aiod_op &op)
{
    aiod_ring_opened opened;

    if (opens_file(op.op) && op.result == sizeof(opened)) {
        memcpy(&opened, op.buffer, sizeof(opened));
        client.late_opened.push_back(opened.handle);
    }
}

/*
 * Release the orphans that are done. Each is removed from the list before its buffer is released: that may run a finalizer,
 * which calls this function, too, or let another thread run.
 */
void bury(Client &client)
{
    for (size_t i = 0; i < client.orphans.size();) {
        Flight *flight = client.orphans[i];

        if (!aiod_done(flight->op)) {
            i++;
            continue;
        }
        client.orphans[i] = client.orphans.back();
        client.orphans.pop_back();
        if (flight->submitted) { /* it was not reaped meanwhile */
            aiod_wait(client.client, flight->op, 0);
        }
        note_opened(client, *flight->op);
        if (!flight->in_place) {
            aiod_free(client.client, flight->op->buffer);
        }
        free(flight->op);
        delete flight;
    }
}

bool is_read(const aiod_op &op)
{
    return op.op == AIOD_RING_READ || op.op == AIOD_RING_READ_FILE || op.op == AIOD_RING_STAT_NAME ||
           opens_file(op.op) || op.op == AIOD_RING_NAME;
}

/* Beside the flags of a ring, which have 16 bits: of on_path() alone. */
const unsigned WITH_STAT = 1 << 16;

/* The bytes of a successful read in its buffer: of a whole file those after its stat, unless that is wanted, too. */
const char *read_bytes(const aiod_op &op, bool with_stat, Py_ssize_t &count)
{
    size_t skipped = op.op == AIOD_RING_READ_FILE && !with_stat ? sizeof(aiod_ring_stat) : 0;

    count = static_cast<Py_ssize_t>(op.result - static_cast<int64_t>(skipped));
    return static_cast<const char *>(op.buffer) + skipped;
}

/* What a failed request has done; of a whole file that did not fit its size. */
uint64_t failed_bytes(const aiod_op &op)
{
    aiod_ring_stat stat;

    if (op.op != AIOD_RING_READ_FILE || op.result != -EFBIG) {
        return op.written;
    }
    memcpy(&stat, op.buffer, sizeof(stat));
    return stat.size;
}

/* Give the request its buffer: the caller's own in the pool, or a new one. False: the pool has no room, or cannot have. */
bool give_buffer(Client &client, Flight &flight, nb::handle data)
{
    aiod_op &op = *flight.op;
    bool reads = is_read(op);

    if (!data.is_none()) {
        if (!flight.view.take(data, reads ? PyBUF_WRITABLE : PyBUF_SIMPLE)) {
            return false;
        }
        op.length = static_cast<uint64_t>(flight.view.view.len);
        if (aiod_in_area(client.client, flight.view.view.buf, op.length)) {
            op.buffer = flight.view.view.buf;
            flight.in_place = true;
            return true;
        }
    }
    if (op.length == 0 || (data.is_none() && !reads)) {
        return true;
    }
    op.buffer = aiod_alloc(client.client, op.length);
    if (op.buffer == nullptr) {
        return false;
    }
    if (!reads) {
        memcpy(op.buffer, flight.view.view.buf, op.length);
        flight.view.give_back();
    }
    return true;
}

/* The data of a read: bytes, or None if they are in the caller's buffer. */
nb::object take_data(Flight &flight)
{
    const aiod_op &op = *flight.op;

    if (!is_read(op) || op.result < 0) {
        return nb::none();
    }
    if (!flight.view.held) {
        Py_ssize_t count;
        const char *data = read_bytes(op, flight.with_stat, count);

        return nb::bytes(data, static_cast<size_t>(count));
    }
    if (!flight.in_place && op.result > 0) {
        memcpy(flight.view.view.buf, op.buffer, static_cast<size_t>(op.result));
    }
    return nb::none();
}

/* It is done: release everything. */
void release(Client &client, Flight &flight)
{
    if (!flight.in_place) {
        aiod_free(client.client, flight.op->buffer);
    }
    if (flight.view.held) {
        flight.view.give_back();
    }
    free(flight.op);
    flight.op = nullptr;
}

int64_t nanoseconds(double seconds)
{
    return seconds < 1e9 ? static_cast<int64_t>(std::fmax(seconds, 0.0) * 1e9) : AIOD_NO_TIMEOUT;
}

/* As a deadline, of which 0 means none: a time that has passed is the nearest possible deadline. */
uint32_t milliseconds(double seconds)
{
    return seconds < 4e6 ? static_cast<uint32_t>(std::fmax(std::ceil(seconds * 1000.0), 1.0)) : 0;
}

/* ---- Ring ----------------------------------------------------------------------------------------------------------------- */

/* How often polling has found nothing, of one kind of requests. */
struct Looks {
    /* Does it pay to poll? */
    bool pay()
    {
        return misses < MISSES_MAX || ++skipped % LOOK_AGAIN == 0;
    }
    void count(bool found)
    {
        misses = found ? 0 : misses + 1;
    }

    unsigned misses = 0;
    unsigned skipped = 0;
};

/*
 * Does the engine answer within a few microseconds? It does not if it runs on this CPU, or serves other clients first; then
 * only one poll of FAR_MAX waits for that. As in clients/c/polling.c.
 */
struct Nearness {
    bool tries()
    {
        bool tried = near > 0 || far == 0;

        far = near > 0 ? 0 : (far + 1) % FAR_MAX;
        return tried;
    }
    void count(bool found)
    {
        near = found ? NEAR_MAX : near - (near > 0);
    }

    unsigned near = 0;
    unsigned far = 0;
};

/* The requests of one Ring that futures wait for, and their event loop (awaited.hpp). */
struct Awaiting {
    nb::object create_future; /* of the loop */
    nb::object wake;          /* called when there is something to reap at the end of the loop's turn */
    nb::object set_timer;     /* called with the time at which a request is overdue */
    double timer_s = INFINITY;
    Flight *first = nullptr;
    unsigned count = 0;
    std::vector<Flight *> staged; /* of these: not submitted yet */
    unsigned started = 0;         /* in this turn of the loop */
    unsigned at_once = 0;         /* requests that were polled for */
    bool alone = false;           /* the loop has one request at a time */
    bool turn_due = false;
    unsigned resolved = 0;    /* futures, by the last reap */
    bool held = false;        /* older requests wait for room in the ring */
    Looks looks;              /* of writes and flushes */
    Looks turn_looks;         /* at the end of the loop's turn */
    Nearness nearness;        /* the same */
    double yields_from_s = 0; /* no yield before then: threads that compute take the CPU for long */
};

struct Ring {
    explicit Ring(ClientRef taken) : client(std::move(taken))
    {
    }
    Ring(const Ring &) = delete;
    Ring &operator=(const Ring &) = delete;

    bool usable() const
    {
        return !aiod_forked(client->client);
    }

    ~Ring()
    {
        drop_spare();
        drop_awaited();
    }
    void drop_awaited(); /* awaited.hpp */
    void drop_spare()
    {
        if (spare != nullptr && usable()) {
            aiod_free(client->client, spare->buffer);
        }
        free(spare);
        spare = nullptr;
    }

    ClientRef client;
    Looks looks;
    Looks path_looks;
    Looks worker_looks; /* of requests on paths that a worker carries out */
    Awaiting awaiting;
    aiod_op *spare = nullptr; /* of the last read, with its buffer: the next read is mostly alike */
    uint64_t spare_bytes = 0;
};

Ring *ring_attach(const std::string &path, const nb::bytes &ticket, const std::string &software, uint32_t entries,
                  uint64_t area_bytes)
{
    aiod_options options = {};
    aiod_client *client = nullptr;
    std::string message;
    int error;

    if (ticket.size() != AIOD_RING_TICKET_BYTES) {
        throw nb::value_error("a ticket has 16 bytes");
    }
    options.ticket = reinterpret_cast<const uint8_t *>(ticket.c_str());
    options.software = software.c_str();
    options.entries = entries;
    options.area_bytes = area_bytes;
    {
        Unlocked released;

        error = aiod_attach(&client, path.c_str(), &options);
        if (error < 0) {
            message = aiod_error();
        }
    }
    if (error < 0) {
        PyErr_SetObject(PyExc_OSError, nb::make_tuple(-error, message).ptr());
        throw nb::python_error();
    }
    return new Ring(std::make_shared<Client>(client));
}

/* Wait for the request; signal handlers run meanwhile. False: it is not done in time. */
bool wait_for(Pending &pending, double timeout_s)
{
    int64_t left_ns = nanoseconds(timeout_s);

    for (;;) {
        int64_t slice_ns = left_ns >= 0 && left_ns < SLICE_NS ? left_ns : SLICE_NS;
        int error;

        {
            Unlocked released;

            error = aiod_wait(pending.client->client, pending.flight->op, slice_ns);
        }
        if (error == 0) {
            pending.flight->submitted = false;
            return true;
        }
        if (PyErr_CheckSignals() < 0) {
            throw nb::python_error(); /* it is abandoned */
        }
        if (left_ns >= 0 && (left_ns -= slice_ns) <= 0) {
            return false;
        }
    }
}

std::unique_ptr<Pending> make_pending(Ring &ring, uint16_t op, uint32_t handle, uint64_t offset, uint64_t length)
{
    auto pending = std::make_unique<Pending>(ring.client);

    pending->flight->op = static_cast<aiod_op *>(calloc(1, sizeof(aiod_op)));
    if (pending->flight->op == nullptr) {
        throw std::bad_alloc();
    }
    pending->flight->op->op = op;
    pending->flight->op->handle = handle;
    pending->flight->op->offset = offset;
    pending->flight->op->length = length;
    return pending;
}

/* False: the ring is full, or has ended. */
bool submit(Pending &pending)
{
    pending.flight->op->user = pending.flight.get();
    pending.flight->submitted = aiod_submit(pending.client->client, &pending.flight->op, 1) == 1;
    return pending.flight->submitted;
}

/* The result of a request that is done: that of take_data(), its length, or (result, written, reason). */
nb::object finish(Pending &pending)
{
    const aiod_op &op = *pending.flight->op;
    nb::object result;

    if (op.result < 0) {
        result = nb::make_tuple(op.result, failed_bytes(op), op.reason);
    } else {
        result = take_data(*pending.flight);
        if (result.is_none()) {
            result = nb::int_(op.result);
        }
    }
    release(*pending.client, *pending.flight);
    return result;
}

/* Poll for a request that was submitted with `awaited` set. The engine answers a cached read in a microsecond. */
bool poll_for(Ring &ring, aiod_op *op, Looks &looks, unsigned count = LOOKS)
{
    int found = aiod_look_for(ring.client->client, op, count);

    if (found >= 0) {
        looks.count(found == 1);
    }
    return found == 1;
}

/* A number of Python; false if it is none, negative or too large: the session raises the error. */
bool number(nb::handle value, uint64_t &result)
{
    int overflow;
    long long taken;

    if (!PyLong_CheckExact(value.ptr())) {
        return false;
    }
    taken = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
    result = static_cast<uint64_t>(taken);
    return overflow == 0 && taken >= 0;
}

/* Seconds that have not passed; false if the value is anything else: the session raises the error. */
bool seconds(nb::handle value, double &result)
{
    if (PyFloat_Check(value.ptr())) {
        result = PyFloat_AsDouble(value.ptr());
        return result > 0;
    }
    if (!PyLong_CheckExact(value.ptr())) {
        return false;
    }
    result = PyLong_AsDouble(value.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        return false;
    }
    return result > 0;
}

/* Does the range end within the largest possible file? If not, the session raises the error. */
bool in_range(uint64_t at, uint64_t bytes)
{
    return at <= OFFSET_MAX && bytes <= OFFSET_MAX - at;
}

constexpr double GRACE_S = 0.1; /* as in requests/pending.py: the engine may still report the outcome */

/* A request of one thread that waits for it. None: no room, or invalid arguments: the session has to do it. */
nb::object perform(Ring &ring, std::unique_ptr<Pending> pending, nb::handle data, double timeout_s)
{
    if (!ring.client->orphans.empty()) {
        bury(*ring.client);
    }
    if (!give_buffer(*pending->client, *pending->flight, data) ||
        pending->flight->op->length > aiod_request_bytes_max(ring.client->client)) {
        return nb::none();
    }
    pending->flight->op->deadline_ms = milliseconds(timeout_s);
    pending->flight->op->awaited = true;
    if (!submit(*pending)) {
        return nb::none();
    }
    return (ring.looks.pay() && poll_for(ring, pending->flight->op, ring.looks)) ||
                   wait_for(*pending, timeout_s + GRACE_S)
               ? finish(*pending)
               : nb::make_tuple(-ETIMEDOUT, 0, -1);
}

/* The op of a read, with a buffer: the spare one if it is large enough; nullptr: no room. */
aiod_op *take_read(Ring &ring, uint32_t handle, uint64_t bytes, uint64_t at, double timeout_s)
{
    aiod_op *op = ring.spare;
    void *buffer = op != nullptr ? op->buffer : nullptr;

    if (op == nullptr || ring.spare_bytes != bytes) {
        buffer = bytes > 0 ? aiod_alloc(ring.client->client, bytes) : nullptr;
        op = buffer != nullptr || bytes == 0 ? static_cast<aiod_op *>(malloc(sizeof(aiod_op))) : nullptr;
        if (op == nullptr) {
            aiod_free(ring.client->client, buffer);
            return nullptr;
        }
    } else {
        ring.spare = nullptr;
    }
    *op = {};
    op->op = AIOD_RING_READ;
    op->handle = handle;
    op->offset = at;
    op->length = bytes;
    op->buffer = buffer;
    op->deadline_ms = milliseconds(timeout_s);
    op->awaited = true;
    return op;
}

/* It is done: keep it, and its buffer of `bytes`, for the next request. */
void keep_op(Ring &ring, aiod_op *op, uint64_t bytes)
{
    ring.drop_spare();
    ring.spare = op;
    ring.spare_bytes = bytes;
}

void keep_read(Ring &ring, aiod_op *op)
{
    keep_op(ring, op, op->length);
}

/*
 * Submit a read, and poll for its completion. Its result; or nothing, and its op in `left`; None: no room, or invalid
 * arguments.
 */
nb::object read_at_once(Ring &ring, uint32_t handle, nb::handle length, nb::handle offset, double timeout_s,
                        aiod_op *&left)
{
    uint64_t bytes;
    uint64_t at;
    aiod_op *op;
    PyObject *data;
    nb::object result;

    if (!ring.usable() || !number(length, bytes) || !number(offset, at) || !in_range(at, bytes) ||
        bytes > aiod_request_bytes_max(ring.client->client)) {
        return nb::none();
    }
    op = take_read(ring, handle, bytes, at, timeout_s);
    if (op == nullptr) {
        return nb::none();
    }
    if (aiod_submit(ring.client->client, &op, 1) != 1) {
        keep_read(ring, op);
        return nb::none();
    }
    if (bytes > LOOK_BYTES_MAX || !ring.looks.pay()) {
        left = op;
        return result;
    }
    data = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(bytes)); /* while the engine is at work */
    if (data == nullptr) {
        aiod_abandon(ring.client->client, op);
        throw nb::python_error();
    }
    if (!poll_for(ring, op, ring.looks)) {
        Py_DECREF(data);
        left = op;
        return result;
    }
    if (op->result < 0) {
        Py_DECREF(data);
        result = nb::make_tuple(op->result, op->written, op->reason);
    } else {
        result = nb::steal(data);
        if (static_cast<uint64_t>(op->result) < bytes) { /* the stable ABI resizes no bytes */
            result = nb::steal(PyBytes_FromStringAndSize(static_cast<const char *>(op->buffer), op->result));
        } else if (op->result > 0) {
            memcpy(PyBytes_AsString(data), op->buffer, static_cast<size_t>(op->result));
        }
    }
    keep_read(ring, op);
    return result;
}

nb::object ring_read(Ring &ring, uint32_t handle, nb::handle length, nb::handle offset, nb::handle timeout)
{
    aiod_op *left = nullptr;
    double timeout_s;
    nb::object result;

    if (!seconds(timeout, timeout_s)) {
        return nb::none();
    }
    result = read_at_once(ring, handle, length, offset, timeout_s, left);
    if (left == nullptr) {
        return result;
    }
    Pending pending(ring.client, left);

    return wait_for(pending, timeout_s + GRACE_S) ? finish(pending) : nb::make_tuple(-ETIMEDOUT, 0, -1);
}

nb::object ring_read_into(Ring &ring, uint32_t handle, nb::handle buffer, nb::handle offset, nb::handle timeout)
{
    uint64_t at;
    double timeout_s;

    if (!ring.usable() || !number(offset, at) || !seconds(timeout, timeout_s) || !PyObject_CheckBuffer(buffer.ptr())) {
        return nb::none();
    }
    return perform(ring, make_pending(ring, AIOD_RING_READ, handle, at, 0), buffer, timeout_s);
}

nb::object ring_write(Ring &ring, uint32_t handle, nb::handle data, nb::handle offset, unsigned flags,
                      nb::handle timeout)
{
    std::unique_ptr<Pending> pending;
    uint64_t at;
    double timeout_s;

    if (!ring.usable() || !number(offset, at) || !seconds(timeout, timeout_s) || !PyObject_CheckBuffer(data.ptr())) {
        return nb::none();
    }
    pending = make_pending(ring, AIOD_RING_WRITE, handle, at, 0);
    pending->flight->op->flags = static_cast<uint16_t>(flags);
    return perform(ring, std::move(pending), data, timeout_s);
}

/* The op of a request on a path, with the path, and the data after it, in its buffer; nullptr: no room. */
aiod_op *take_path(Ring &ring, unsigned op, uint32_t handle, const char *path, size_t path_bytes, const Py_buffer *data,
                   uint64_t length, double timeout_s)
{
    uint64_t bytes = data != nullptr ? path_bytes + length : std::max<uint64_t>(length, path_bytes);
    aiod_op *taken = take_read(ring, handle, bytes, 0, timeout_s);

    if (taken == nullptr) {
        return nullptr;
    }
    memcpy(taken->buffer, path, path_bytes);
    if (data != nullptr) {
        memcpy(static_cast<char *>(taken->buffer) + path_bytes, data->buf, length);
    }
    taken->op = static_cast<uint16_t>(op);
    taken->length = length;
    taken->source = static_cast<uint32_t>(path_bytes);
    return taken;
}

/* The bytes of a path, or of a NAME's record and what follows it; nullptr: it is neither, or too long. */
const char *bytes_of(const nb::object &path, Py_ssize_t &count)
{
    const char *found;

    if (PyBytes_Check(path.ptr())) {
        count = PyBytes_Size(path.ptr());
        return count <= SOURCE_BYTES_MAX ? PyBytes_AsString(path.ptr()) : nullptr;
    }
    found = PyUnicode_AsUTF8AndSize(path.ptr(), &count);
    PyErr_Clear();
    return found != nullptr && count <= PATH_BYTES_MAX ? found : nullptr;
}

/* Does the engine mostly carry it out where it takes it? Requests that take longer must not end the polling for these. */
bool is_done_by_leader(unsigned op)
{
    return op == AIOD_RING_READ_FILE || op == AIOD_RING_STAT_NAME || op == AIOD_RING_OPEN_FILE;
}

/* How often to look for a request on a path with `bytes` of room, if it is the only one. */
unsigned path_looks(uint64_t bytes)
{
    return PATH_LOOKS + static_cast<unsigned>(std::min(bytes, LOOK_BYTES_MAX) / BYTES_PER_LOOK);
}

/*
 * As read_at_once(), of a request on a path; `length` is the room for its result, or the length of `data`. `alone`: no
 * other request is to be submitted meanwhile.
 */
nb::object path_at_once(Ring &ring, unsigned op, unsigned flags, uint32_t handle, const nb::object &path,
                        const nb::object &data, uint64_t length, double timeout_s, bool alone,
                        std::unique_ptr<Pending> &pending)
{
    Py_ssize_t path_bytes;
    const char *utf8 = bytes_of(path, path_bytes);
    View view;
    aiod_op *taken;
    uint64_t bytes;
    nb::object result;

    if (utf8 == nullptr) {
        return nb::none();
    }
    if (!data.is_none() && !opens_file(op)) {
        if (!view.take(data, PyBUF_SIMPLE)) {
            return nb::none();
        }
        length = static_cast<uint64_t>(view.view.len);
    }
    if (!ring.usable() || length > aiod_request_bytes_max(ring.client->client)) {
        return nb::none();
    }
    bytes = view.held ? static_cast<uint64_t>(path_bytes) + length
                      : std::max<uint64_t>(length, static_cast<uint64_t>(path_bytes));
    taken = take_path(ring, op, handle, utf8, static_cast<size_t>(path_bytes), view.held ? &view.view : nullptr, length,
                      timeout_s);
    if (taken == nullptr) {
        return nb::none();
    }
    taken->flags = static_cast<uint16_t>(flags);
    if (aiod_submit(ring.client->client, &taken, 1) != 1) {
        keep_op(ring, taken, bytes);
        return nb::none();
    }
    Looks &looks = is_done_by_leader(op) ? ring.path_looks : ring.worker_looks;

    if (!looks.pay() || !poll_for(ring, taken, looks, alone ? path_looks(bytes) : LOOKS)) {
        pending = std::make_unique<Pending>(ring.client, taken);
        pending->flight->with_stat = (flags & WITH_STAT) != 0;
        return result;
    }
    if (taken->result < 0) {
        result = nb::make_tuple(taken->result, failed_bytes(*taken), taken->reason);
    } else if (is_read(*taken)) {
        Py_ssize_t count;
        const char *found = read_bytes(*taken, (flags & WITH_STAT) != 0, count);

        result = nb::bytes(found, static_cast<size_t>(count));
    } else {
        result = nb::int_(taken->result);
    }
    keep_op(ring, taken, bytes);
    return result;
}

/* Note a file that was opened in the list `data`: a signal's handler may raise before the caller has the result. */
nb::object noted(unsigned op, const nb::object &data, const nb::object &result)
{
    if (opens_file(op) && PyList_Check(data.ptr()) && PyBytes_Check(result.ptr()) &&
        PyList_Append(data.ptr(), result.ptr()) < 0) {
        throw nb::python_error();
    }
    return result;
}

nb::object ring_on_path(Ring &ring, unsigned op, unsigned flags, uint32_t handle, const nb::object &path,
                        const nb::object &data, uint64_t length, double timeout_s)
{
    std::unique_ptr<Pending> pending;
    nb::object result = path_at_once(ring, op, flags, handle, path, data, length, timeout_s, true, pending);

    if (pending == nullptr) {
        return noted(op, data, result);
    }
    return wait_for(*pending, timeout_s + GRACE_S) ? noted(op, data, finish(*pending))
                                                   : nb::make_tuple(-ETIMEDOUT, 0, -1);
}

/* Close a file that OPEN_FILE has opened. As ring_on_path(); `soon`: as ring_on_path_soon(). */
nb::object ring_close_file(Ring &ring, uint32_t handle, double timeout_s, bool soon)
{
    aiod_op *op = ring.usable() ? static_cast<aiod_op *>(calloc(1, sizeof(aiod_op))) : nullptr;
    nb::object result;

    if (op == nullptr) {
        return nb::none();
    }
    op->op = AIOD_RING_CLOSE_FILE;
    op->handle = handle;
    op->awaited = true;
    if (aiod_submit(ring.client->client, &op, 1) != 1) {
        free(op);
        return nb::none();
    }
    if (ring.path_looks.pay() && poll_for(ring, op, ring.path_looks, soon ? LOOKS : PATH_LOOKS)) {
        result = op->result < 0 ? nb::object(nb::make_tuple(op->result, op->written, op->reason)) : nb::int_(0);
        free(op);
        return result;
    }

    auto pending = std::make_unique<Pending>(ring.client, op);

    if (soon) {
        aiod_await_no_more(ring.client->client, op);
        return nb::cast(pending.release(), nb::rv_policy::take_ownership);
    }
    return wait_for(*pending, timeout_s + GRACE_S) ? finish(*pending) : nb::make_tuple(-ETIMEDOUT, 0, -1);
}

/* The handles of the files that were opened when nobody waited any more. Each is returned once. */
nb::list ring_late_opened(Ring &ring)
{
    nb::list handles;

    if (ring.usable()) {
        bury(*ring.client);
        for (uint64_t handle : ring.client->late_opened) {
            handles.append(handle);
        }
        ring.client->late_opened.clear();
    }
    return handles;
}

/* Submit a request to be reaped: its Pending, or None: no room. `data` as in read_into and write; None: new bytes, or none. */
nb::object ring_start(Ring &ring, unsigned op, unsigned flags, uint32_t handle, uint64_t offset, uint64_t length,
                      uint32_t source, uint64_t source_offset, double timeout_s, const nb::object &data,
                      const nb::object &owner)
{
    std::unique_ptr<Pending> pending;

    if (!ring.usable()) {
        return nb::none();
    }
    pending = make_pending(ring, static_cast<uint16_t>(op), handle, offset, length);
    pending->flight->op->flags = static_cast<uint16_t>(flags);
    pending->flight->op->source = source;
    pending->flight->op->source_offset = source_offset;
    pending->flight->op->deadline_ms = milliseconds(timeout_s);
    pending->flight->owner = owner;
    if (!give_buffer(*pending->client, *pending->flight, data) || !submit(*pending)) {
        return nb::none();
    }
    return nb::cast(pending.release(), nb::rv_policy::take_ownership);
}

} // namespace

#include "_awaited.hpp"
#include "_batches.hpp"

namespace
{

/* As ring_on_path(); what is not done at once is a future where only bytes are read, else a Pending. */
nb::object ring_on_path_soon(Ring &ring, unsigned op, unsigned flags, uint32_t handle, const nb::object &path,
                             const nb::object &data, uint64_t length, double timeout_s, bool alone)
{
    std::unique_ptr<Pending> pending;
    nb::object result = path_at_once(ring, op, flags, handle, path, data, length, timeout_s, alone, pending);

    if (pending == nullptr) {
        return noted(op, data, result);
    }
    aiod_await_no_more(ring.client->client, pending->flight->op);
    if ((op == AIOD_RING_READ_FILE || op == AIOD_RING_STAT_NAME) && timeout_s > 0 && may_start(ring)) {
        pending->flight->awaited.data = path;
        return await_flight(ring, std::move(pending->flight), timeout_s);
    }
    return nb::cast(pending.release(), nb::rv_policy::take_ownership);
}

/*
 * [(owner, result, written, reason, data)] of the requests that are done; with `look`, in an event loop, one alone if it is
 * much to copy. Those that a future waits for get their results here; of them only the failed ones are in the list, with
 * their Awaiteds as owners.
 */
nb::list ring_reap(Ring &ring, bool look)
{
    std::vector<FlightOwner> awaited;
    nb::list reaped;
    bool all = !look || !ring.awaiting.create_future.is_valid();

    if (!ring.usable()) {
        return reaped;
    }
    begin_turn(ring);
    take_done(ring, reaped, awaited, all);
    if (look && awaited.empty() && is_worth_another_take(ring)) {
        take_done(ring, reaped, awaited, all);
    }
    ring.awaiting.resolved = static_cast<unsigned>(awaited.size());
    for (FlightOwner &flight : awaited) {
        settle(ring, std::move(flight), reaped);
    }
    if (!ring.client->orphans.empty()) {
        bury(*ring.client);
    }
    return reaped;
}

/* Wait until more than `seen` requests are done; False: not in time. Signal handlers run meanwhile. */
bool ring_wait(Ring &ring, uint64_t seen, double timeout_s)
{
    int64_t left_ns = nanoseconds(timeout_s);

    for (;;) {
        int64_t slice_ns = left_ns >= 0 && left_ns < SLICE_NS ? left_ns : SLICE_NS;
        int error;

        {
            Unlocked released;

            error = aiod_wait_count(ring.client->client, seen, slice_ns);
        }
        if (error == 0) {
            return true;
        }
        if (PyErr_CheckSignals() < 0) {
            throw nb::python_error();
        }
        if (left_ns >= 0 && (left_ns -= slice_ns) <= 0) {
            return false;
        }
    }
}

int pending_cancel(Pending &pending, double timeout_s)
{
    int64_t timeout_ns = nanoseconds(timeout_s);

    if (aiod_forked(pending.client->client)) {
        return 0; /* after a fork it belongs to the parent */
    }
    Unlocked released;

    return pending.flight->op == nullptr ? 0 : aiod_cancel(pending.client->client, pending.flight->op, timeout_ns);
}

int ring_fd(Ring &ring)
{
    int fd = aiod_fd(ring.client->client);

    if (fd < 0) {
        PyErr_SetObject(PyExc_OSError, nb::make_tuple(-fd, aiod_error()).ptr());
        throw nb::python_error();
    }
    return fd;
}

nb::object ring_buffer(Ring &ring, size_t bytes)
{
    void *data;

    ring.drop_spare(); /* its buffer may divide the free part of the pool */
    data = ring.usable() ? aiod_alloc(ring.client->client, bytes) : nullptr;

    if (data == nullptr) {
        return nb::none();
    }
    memset(data, 0, bytes);
    return nb::cast(new Buffer(ring.client, data, bytes), nb::rv_policy::take_ownership);
}

} // namespace

NB_MODULE(_ring, m)
{
    nb::set_leak_warnings(false);

    aiod_zmq::bind_sender(m);
    aiod_zmq::bind_receiver(m);
    bind_batches(m);
    nb::class_<Buffer>(m, "Buffer", nb::type_slots(buffer_slots)).def("__len__", [](const Buffer &buffer) {
        return buffer.length;
    });

    nb::class_<Pending>(m, "Pending", nb::type_slots(pending_slots))
        .def_prop_rw(
            "owner", [](const Pending &pending) { return pending.flight->owner; },
            [](Pending &pending, nb::object owner) { pending.flight->owner = std::move(owner); },
            nb::arg("owner").none())
        .def("cancel", pending_cancel, nb::arg("timeout_s"));

    nb::class_<Ring>(m, "Ring", nb::type_slots(ring_slots))
        .def("read", ring_read, nb::arg("handle"), nb::arg("length").none(), nb::arg("offset").none(),
             nb::arg("timeout_s").none())
        .def("read_into", ring_read_into, nb::arg("handle"), nb::arg("buffer").none(), nb::arg("offset").none(),
             nb::arg("timeout_s").none())
        .def("write", ring_write, nb::arg("handle"), nb::arg("data").none(), nb::arg("offset").none(), nb::arg("flags"),
             nb::arg("timeout_s").none())
        .def("attend", ring_attend, nb::arg("loop"), nb::arg("wake"), nb::arg("set_timer"))
        .def("read_soon", ring_read_soon, nb::arg("handle"), nb::arg("length").none(), nb::arg("offset").none(),
             nb::arg("timeout_s").none())
        .def("read_into_soon", ring_read_into_soon, nb::arg("handle"), nb::arg("buffer").none(),
             nb::arg("offset").none(), nb::arg("timeout_s").none())
        .def("write_soon", ring_write_soon, nb::arg("handle"), nb::arg("data").none(), nb::arg("offset").none(),
             nb::arg("flags"), nb::arg("timeout_s").none(), nb::arg("file").none())
        .def("flush_soon", ring_flush_soon, nb::arg("handle"), nb::arg("timeout_s").none(), nb::arg("covers"))
        .def("adopt", ring_adopt, nb::arg("future"))
        .def("adopt_all", ring_adopt_all, nb::arg("handle").none())
        .def("overdue", ring_overdue, nb::arg("now_s"))
        .def_prop_ro("awaited", [](const Ring &ring) { return ring.awaiting.count; })
        .def_prop_ro("resolved", [](const Ring &ring) { return ring.awaiting.resolved; })
        .def_prop_rw(
            "held", [](const Ring &ring) { return ring.awaiting.held; },
            [](Ring &ring, bool held) { ring.awaiting.held = held; })
        .def("start", ring_start, nb::arg("op"), nb::arg("flags"), nb::arg("handle"), nb::arg("offset"),
             nb::arg("length"), nb::arg("source"), nb::arg("source_offset"), nb::arg("timeout_s"),
             nb::arg("data").none(), nb::arg("owner").none())
        .def("on_path", ring_on_path, nb::arg("op"), nb::arg("flags"), nb::arg("handle"), nb::arg("path"),
             nb::arg("data").none(), nb::arg("length"), nb::arg("timeout_s"))
        .def("on_path_soon", ring_on_path_soon, nb::arg("op"), nb::arg("flags"), nb::arg("handle"), nb::arg("path"),
             nb::arg("data").none(), nb::arg("length"), nb::arg("timeout_s"), nb::arg("alone"))
        .def("close_file", ring_close_file, nb::arg("handle"), nb::arg("timeout_s"), nb::arg("soon") = false)
        .def("late_opened", ring_late_opened)
        .def("reap", ring_reap, nb::arg("look") = false)
        .def("wait", ring_wait, nb::arg("seen"), nb::arg("timeout_s"))
        .def_prop_ro("done_count", [](const Ring &ring) { return aiod_done_count(ring.client->client); })
        .def("buffer", ring_buffer, nb::arg("nbytes"))
        .def_prop_ro("request_bytes_max", [](const Ring &ring) { return aiod_request_bytes_max(ring.client->client); })
        .def_prop_ro("ended", [](const Ring &ring) { return ring.usable() ? aiod_ended(ring.client->client) : EBADF; })
        .def_prop_ro("shutdown_notice",
                     [](const Ring &ring) { return ring.usable() ? aiod_last_word(ring.client->client) : 0; })
        .def_prop_ro("fd", ring_fd)
        .def("arm", [](Ring &ring) { return aiod_arm(ring.client->client); })
        .def("disarm", [](Ring &ring) { aiod_disarm(ring.client->client); })
        .def("close", [](Ring &ring) {
            if (ring.usable()) {
                aiod_shutdown(ring.client->client);
            }
        });

    m.def("attach", ring_attach, nb::arg("path"), nb::arg("ticket"), nb::kw_only(), nb::arg("software"),
          nb::arg("entries"), nb::arg("area_bytes"), nb::rv_policy::take_ownership);
}
