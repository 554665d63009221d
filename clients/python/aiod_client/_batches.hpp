/*
 * _batches.hpp - the steps that every read and write of a batch meets, for requests that go by message. Part of _ring.cpp.
 *
 * Each function does what a loop in Python does, which stays for an installation without this module, and for whatever is
 * not plain: it stops there, or calls Python for it. requests/batch_steps.py names the functions, and the loops.
 *
 * The GIL is held throughout, and no handler of a signal runs. A finalizer may, wherever an object is made or dropped; the
 * link has it wait (blocking/shared_session.py, aio/link.py). So a request is in two tables rather than in none here, too.
 */
#ifndef AIOD_CLIENT_BATCHES_HPP
#define AIOD_CLIENT_BATCHES_HPP

#include <structmember.h>

#include <cmath>

namespace
{

/* ---- objects with slots -------------------------------------------------------------------------------------------------- */

/* As requests/pending.py has them, where Request.__init__() sets them. */
/* clang-format off */
#define REQUEST_FIELDS(FIELD) \
    FIELD(cookie) FIELD(sent) FIELD(done) FIELD(result) FIELD(error) \
    FIELD(waiter) FIELD(op) FIELD(handle) FIELD(offset) FIELD(length) \
    FIELD(buffer) FIELD(charge) FIELD(flags) FIELD(split) FIELD(by_ring) \
    FIELD(deadline_s) FIELD(cancelling) FIELD(source) FIELD(source_offset) FIELD(covers)
/* clang-format on */

/* As blocking/future.py has them. */
/* clang-format off */
#define FUTURE_FIELDS(FIELD) \
    FIELD(_condition) FIELD(_state) FIELD(_result) FIELD(_exception) FIELD(_waiters) \
    FIELD(_done_callbacks) FIELD(_link) FIELD(_file) FIELD(_cancel_timeout_s) FIELD(_request)
/* clang-format on */

#define MEMBER(name) PyObject *name;

struct RequestFields {
    PyObject_HEAD REQUEST_FIELDS(MEMBER)
};

struct FutureFields {
    PyObject_HEAD FUTURE_FIELDS(MEMBER)
};

#undef MEMBER

/* As __slots__ makes them: an attribute that was never set is an AttributeError. */
#define MEMBER(name) {#name, T_OBJECT_EX, offsetof(RequestFields, name), 0, nullptr},
PyMemberDef request_members[] = {REQUEST_FIELDS(MEMBER){nullptr, 0, 0, 0, nullptr}};
#undef MEMBER
#define MEMBER(name) {#name, T_OBJECT_EX, offsetof(FutureFields, name), 0, nullptr},
PyMemberDef future_members[] = {FUTURE_FIELDS(MEMBER){nullptr, 0, 0, 0, nullptr}};
#undef MEMBER

template <typename Fields> constexpr size_t FIELD_COUNT = (sizeof(Fields) - sizeof(PyObject)) / sizeof(PyObject *);

template <typename Fields> PyObject **first_field(PyObject *self)
{
    return reinterpret_cast<PyObject **>(reinterpret_cast<char *>(self) + sizeof(PyObject));
}

template <typename Fields> int traverse(PyObject *self, visitproc visit, void *arg)
{
    PyObject **fields = first_field<Fields>(self);

    Py_VISIT(Py_TYPE(self));
    for (size_t at = 0; at < FIELD_COUNT<Fields>; at++) {
        Py_VISIT(fields[at]);
    }
    return 0;
}

template <typename Fields> int clear(PyObject *self)
{
    PyObject **fields = first_field<Fields>(self);

    for (size_t at = 0; at < FIELD_COUNT<Fields>; at++) {
        Py_CLEAR(fields[at]);
    }
    return 0;
}

template <typename Fields> void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    clear<Fields>(self);
    reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* A type for classes in Python to derive from, for the life of the process. */
template <typename Fields> PyTypeObject *make_type(const char *name, PyMemberDef *members)
{
    PyType_Slot slots[] = {
        {Py_tp_members, members},
        {Py_tp_traverse, reinterpret_cast<void *>(traverse<Fields>)},
        {Py_tp_clear, reinterpret_cast<void *>(clear<Fields>)},
        {Py_tp_dealloc, reinterpret_cast<void *>(dealloc<Fields>)},
        {0, nullptr},
    };
    PyType_Spec spec = {name, sizeof(Fields), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
    PyObject *type = PyType_FromSpec(&spec);

    if (type == nullptr) {
        throw nb::python_error();
    }
    return reinterpret_cast<PyTypeObject *>(type);
}

PyTypeObject *request_type = nullptr;
PyTypeObject *future_type = nullptr;

RequestFields *request_of(PyObject *object)
{
    return PyObject_TypeCheck(object, request_type) ? reinterpret_cast<RequestFields *>(object) : nullptr;
}

/* The field holds `value` from now on, and what it held is dropped. */
void set_field(PyObject *&field, nb::object value)
{
    PyObject *before = field;

    field = value.release().ptr();
    Py_XDECREF(before);
}

/* An exact int from 0 to `max`; false: it is something else. */
bool number_of(PyObject *object, uint64_t max, uint64_t &number)
{
    if (object == nullptr || !PyLong_CheckExact(object)) {
        return false;
    }
    number = PyLong_AsUnsignedLongLong(object);
    if (number == UINT64_MAX && PyErr_Occurred() != nullptr) {
        PyErr_Clear(); /* negative, or larger than 64 bits */
        return false;
    }
    return number <= max;
}

nb::object number(uint64_t value)
{
    return nb::steal(nb::handle(PyLong_FromUnsignedLongLong(value)));
}

/* The exception that is set becomes one of C++. */
void check(bool done)
{
    if (!done) {
        throw nb::python_error();
    }
}

/* ---- making requests ----------------------------------------------------------------------------------------------------- */

nb::object new_request(PyTypeObject *type, int op, nb::handle handle, nb::handle offset, nb::handle length,
                       nb::handle buffer, nb::handle deadline_s)
{
    nb::object made = nb::steal(PyType_GenericAlloc(type, 0));

    check(made.is_valid());
    auto *request = reinterpret_cast<RequestFields *>(made.ptr());
    const nb::object zero = nb::int_(0), no = nb::bool_(false), none = nb::none();

    set_field(request->cookie, zero);
    set_field(request->sent, no);
    set_field(request->done, no);
    set_field(request->result, none);
    set_field(request->error, none);
    set_field(request->waiter, none);
    set_field(request->op, nb::int_(op));
    set_field(request->handle, nb::borrow(handle));
    set_field(request->offset, nb::borrow(offset));
    set_field(request->length, nb::borrow(length));
    set_field(request->buffer, nb::borrow(buffer));
    set_field(request->charge, nb::borrow(length));
    set_field(request->flags, zero);
    set_field(request->split, none);
    set_field(request->by_ring, no);
    set_field(request->deadline_s, nb::borrow(deadline_s));
    set_field(request->cancelling, no);
    set_field(request->source, zero);
    set_field(request->source_offset, zero);
    set_field(request->covers, zero);
    return made;
}

/* The request of ("read", length, offset) or ("write", bytes, offset); invalid: `item` is something else. */
nb::object plain_request(PyTypeObject *type, nb::handle handle, nb::handle item, nb::handle deadline_s)
{
    if (!PyTuple_CheckExact(item.ptr()) || PyTuple_Size(item.ptr()) != 3) {
        return {};
    }
    PyObject *name = PyTuple_GetItem(item.ptr(), 0), *what = PyTuple_GetItem(item.ptr(), 1);
    PyObject *offset = PyTuple_GetItem(item.ptr(), 2);
    uint64_t at = 0, bytes = 0;

    if (!PyUnicode_CheckExact(name) || !number_of(offset, OFFSET_MAX, at)) {
        return {};
    }
    if (PyUnicode_CompareWithASCIIString(name, "read") == 0) {
        if (!number_of(what, OFFSET_MAX - at, bytes)) {
            return {};
        }
        return new_request(type, AIOD_RING_READ, handle, offset, what, nb::none(), deadline_s);
    }
    if (PyUnicode_CompareWithASCIIString(name, "write") == 0 && PyBytes_CheckExact(what)) {
        bytes = static_cast<uint64_t>(PyBytes_Size(what));
        if (bytes > OFFSET_MAX - at) {
            return {};
        }
        return new_request(type, AIOD_RING_WRITE, handle, offset, number(bytes), what, deadline_s);
    }
    return {};
}

nb::list make_requests(nb::type_object type, nb::handle handle, nb::handle batch, nb::handle deadline_s,
                       nb::callable other)
{
    nb::list requests;

    for (nb::handle item : batch) {
        nb::object request = plain_request(reinterpret_cast<PyTypeObject *>(type.ptr()), handle, item, deadline_s);

        if (!request.is_valid()) {
            request = other(item);
            RequestFields *fields = request_of(request.ptr());

            if (fields == nullptr) {
                throw nb::type_error("no request");
            }
            set_field(fields->deadline_s, nb::borrow(deadline_s));
        }
        requests.append(request);
    }
    return requests;
}

/* ---- sending them -------------------------------------------------------------------------------------------------------- */

/* wire.SUBMISSION and wire.COMPLETION, little endian as all machines that aiod runs on. */
struct [[gnu::packed]] SubmissionRecord {
    uint64_t cookie;
    uint16_t op;
    uint16_t flags;
    uint32_t handle;
    uint64_t offset;
    uint64_t length;
    uint32_t deadline_ms;
    uint32_t frame;
    uint32_t frame_offset;
    uint32_t reserved;
};

struct [[gnu::packed]] CompletionRecord {
    uint64_t cookie;
    int64_t result;
    uint32_t frame;
    uint32_t frame_offset;
    uint32_t written;
    uint32_t reason;
};

static_assert(sizeof(SubmissionRecord) == 48 && sizeof(CompletionRecord) == 32, "as wire.py has them");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the records are written as they are in memory");

constexpr uint64_t SHARED_PAYLOAD_MAX = 64 * 1024; /* as wire.py has them */
constexpr uint64_t SHARED_FRAME_MAX = 1024 * 1024;

/* The payload frames of a SUBMIT: a requests/payload.py Payload. */
class Frames
{
  public:
    explicit Frames(nb::handle of) : payload(of)
    {
    }

    void place(nb::handle data, uint64_t length, SubmissionRecord &record)
    {
        if (length >= SHARED_PAYLOAD_MAX) {
            nb::list frames = nb::cast<nb::list>(payload.attr("list"));

            record.frame = static_cast<uint32_t>(nb::len(frames));
            frames.append(data);
            return;
        }
        if (!shared.is_valid() || shared_bytes + length > SHARED_FRAME_MAX) {
            payload.attr("begin_shared")();
            shared = nb::cast<nb::list>(payload.attr("shared"));
            index = nb::cast<uint32_t>(payload.attr("shared_index"));
            shared_bytes = 0;
        }
        shared.append(data);
        record.frame = index;
        record.frame_offset = static_cast<uint32_t>(shared_bytes);
        shared_bytes += length;
    }

    void keep()
    {
        if (shared.is_valid()) {
            payload.attr("shared_bytes") = shared_bytes;
        }
    }

  private:
    nb::handle payload;
    nb::list shared = nb::steal<nb::list>(nb::handle());
    uint64_t shared_bytes = 0;
    uint32_t index = 0;
};

/* The record of `request` but for its cookie; false: it is not plain, or too late, or `free_bytes` do not allow it. */
bool plain_record(const RequestFields &request, double now_s, uint64_t free_bytes, SubmissionRecord &record)
{
    constexpr uint64_t U16 = UINT16_MAX, U32 = UINT32_MAX;
    uint64_t op = 0, flags = 0, handle = 0, offset = 0, length = 0, charge = 0;

    if (request.split != Py_None || request.deadline_s == nullptr || !PyFloat_CheckExact(request.deadline_s) ||
        !number_of(request.op, U16, op) || (op != AIOD_RING_READ && op != AIOD_RING_WRITE) ||
        !number_of(request.flags, U16, flags) || !number_of(request.handle, U32, handle) ||
        !number_of(request.offset, UINT64_MAX, offset) || !number_of(request.length, UINT64_MAX, length) ||
        !number_of(request.charge, free_bytes, charge)) {
        return false;
    }
    const double deadline_s = PyFloat_AsDouble(request.deadline_s);

    if (!(deadline_s > now_s)) {
        return false;
    }
    if (op == AIOD_RING_WRITE && !PyBytes_CheckExact(request.buffer) && !PyMemoryView_Check(request.buffer)) {
        return false;
    }
    record.op = static_cast<uint16_t>(op);
    record.flags = static_cast<uint16_t>(flags);
    record.handle = static_cast<uint32_t>(handle);
    record.offset = offset;
    record.length = length;
    record.deadline_ms =
        std::isinf(deadline_s)
            ? 0
            : static_cast<uint32_t>(std::min(std::ceil((deadline_s - now_s) * 1000), static_cast<double>(U32)));
    return true;
}

/* Returns how many records were filled, and the bytes of credit that they take. */
nb::tuple fill_records(nb::bytearray records, nb::object queue, nb::dict in_flight, uint64_t cookie, int64_t bytes_free,
                       double now_s, nb::object payload)
{
    const size_t room = records.size() / sizeof(SubmissionRecord);
    auto *out = static_cast<unsigned char *>(records.data());
    const nb::object pop = queue.attr("popleft");
    Frames frames(payload);
    uint64_t taken = 0;
    size_t count = 0;

    for (; count < room; count++) {
        const Py_ssize_t waiting = PyObject_Size(queue.ptr());

        check(waiting >= 0);
        if (waiting == 0) {
            break;
        }
        const nb::object head = nb::steal(PySequence_GetItem(queue.ptr(), 0));

        check(head.is_valid());
        RequestFields *request = request_of(head.ptr());
        SubmissionRecord record = {};

        if (request == nullptr || bytes_free < 0 ||
            !plain_record(*request, now_s, static_cast<uint64_t>(bytes_free) - taken, record)) {
            break;
        }
        const nb::object named = number(cookie + count + 1);

        check(named.is_valid() && PyDict_SetItem(in_flight.ptr(), named.ptr(), head.ptr()) == 0);
        set_field(request->sent, nb::bool_(true));
        set_field(request->cookie, named);
        pop();
        uint64_t charge = 0;

        number_of(request->charge, UINT64_MAX, charge);
        taken += charge;
        if (record.op == AIOD_RING_WRITE && charge != 0) {
            frames.place(request->buffer, record.length, record);
        }
        record.cookie = cookie + count + 1;
        std::memcpy(out + count * sizeof record, &record, sizeof record);
    }
    frames.keep();
    return nb::make_tuple(count, taken);
}

/* ---- completing them ----------------------------------------------------------------------------------------------------- */

/* The payload frame that was looked at last: those of a message's reads are mostly in one. */
class Received
{
  public:
    explicit Received(const nb::sequence &of) : frames(of)
    {
    }
    Received(const Received &) = delete;
    Received &operator=(const Received &) = delete;
    ~Received()
    {
        release();
    }

    /* New bytes: `count` of payload frame `frame` from `start` on; invalid: they are not there. */
    nb::object bytes_at(uint32_t frame, uint32_t start, uint64_t count)
    {
        if (count != 0 && (!held || frame != index)) {
            release();
            if (frame + uint64_t{1} >= nb::len(frames)) {
                return {};
            }
            check(PyObject_GetBuffer(nb::object(frames[frame + 1]).ptr(), &view, PyBUF_SIMPLE) == 0);
            held = true;
            index = frame;
        }
        if (count != 0 &&
            (start > static_cast<uint64_t>(view.len) || count > static_cast<uint64_t>(view.len) - start)) {
            return {};
        }
        const char *from = count != 0 ? static_cast<const char *>(view.buf) + start : nullptr;
        nb::object data = nb::steal(PyBytes_FromStringAndSize(from, static_cast<Py_ssize_t>(count)));

        check(data.is_valid());
        return data;
    }

  private:
    void release()
    {
        if (held) {
            held = false;
            PyBuffer_Release(&view);
        }
    }

    const nb::sequence &frames;
    Py_buffer view = {};
    bool held = false;
    uint32_t index = 0;
};

/* Notes which files have acknowledged changes. */
class Changed
{
  public:
    explicit Changed(const nb::dict &of) : files(of)
    {
    }

    void note(PyObject *handle)
    {
        if (handle == last) {
            return; /* the same object: of a batch it mostly is */
        }
        PyObject *file = PyDict_GetItemWithError(files.ptr(), handle);

        check(file != nullptr || PyErr_Occurred() == nullptr);
        if (file != nullptr) {
            nb::object dirty = nb::handle(file).attr("dirty"), epoch = nb::handle(file).attr("epoch");

            check(PySet_Add(dirty.ptr(), epoch.ptr()) == 0);
        }
        held = nb::borrow(handle);
        last = handle;
    }

  private:
    const nb::dict &files;
    nb::object held;
    PyObject *last = nullptr;
};

/* Returns how many of the first records were taken, and the bytes of credit that come back. */
nb::tuple complete_records(nb::bytes records, nb::dict requests, nb::dict files, nb::sequence frames, nb::list finished,
                           nb::type_object type)
{
    /* Python reports a part of a record. */
    const size_t count = records.size() % sizeof(CompletionRecord) == 0 ? records.size() / sizeof(CompletionRecord) : 0;
    const auto *in = static_cast<const unsigned char *>(records.data());
    Received received(frames);
    Changed changed(files);
    uint64_t given_back = 0;
    size_t taken = 0;

    for (; taken < count; taken++) {
        CompletionRecord record;

        std::memcpy(&record, in + taken * sizeof record, sizeof record);
        const nb::object cookie = number(record.cookie);

        check(cookie.is_valid());
        const nb::object found = nb::borrow(PyDict_GetItemWithError(requests.ptr(), cookie.ptr()));

        if (!found.is_valid() || record.result < 0 ||
            reinterpret_cast<PyObject *>(Py_TYPE(found.ptr())) != type.ptr()) {
            check(PyErr_Occurred() == nullptr);
            break;
        }
        auto *request = reinterpret_cast<RequestFields *>(found.ptr());
        const auto bytes = static_cast<uint64_t>(record.result);
        uint64_t op = 0, length = 0, charge = 0, flags = 0;

        if (request->split != Py_None || request->done != Py_False || !number_of(request->op, UINT16_MAX, op) ||
            !number_of(request->charge, UINT64_MAX, charge) || !number_of(request->flags, UINT16_MAX, flags) ||
            !number_of(request->length, UINT64_MAX, length)) {
            break;
        }
        if (op == AIOD_RING_READ) {
            nb::object data;

            if (request->buffer == Py_None && bytes <= length) {
                data = received.bytes_at(record.frame, record.frame_offset, bytes);
            }
            if (!data.is_valid()) {
                break;
            }
            set_field(request->result, std::move(data));
        } else if (op == AIOD_RING_WRITE) {
            set_field(request->result, number(bytes));
            if ((flags & AIOD_RING_FUA) == 0) {
                changed.note(request->handle);
            }
        } else {
            break;
        }
        given_back += charge;
        finished.append(found);
        set_field(request->done, nb::bool_(true));
        set_field(request->buffer, nb::none());
        check(PyDict_DelItem(requests.ptr(), cookie.ptr()) == 0);
    }
    return nb::make_tuple(taken, given_back);
}

/* ---- their futures ------------------------------------------------------------------------------------------------------- */

/* The states of concurrent.futures.Future, which are compared by identity first. */
struct States {
    PyObject *pending = PyUnicode_InternFromString("PENDING");
    PyObject *finished = PyUnicode_InternFromString("FINISHED");
};

const States &states()
{
    static const States all;

    return all;
}

nb::list make_futures(nb::type_object type, nb::list requests, nb::object condition, nb::object link, nb::object file,
                      nb::object cancel_timeout_s)
{
    nb::list futures;

    for (nb::handle each : requests) {
        RequestFields *request = request_of(each.ptr());
        nb::object made = nb::steal(PyType_GenericAlloc(reinterpret_cast<PyTypeObject *>(type.ptr()), 0));

        check(made.is_valid());
        if (request == nullptr || !PyObject_TypeCheck(made.ptr(), future_type)) {
            throw nb::type_error("no request, or no future");
        }
        auto *future = reinterpret_cast<FutureFields *>(made.ptr());

        set_field(future->_condition, condition);
        set_field(future->_state, nb::borrow(states().pending));
        set_field(future->_result, nb::none());
        set_field(future->_exception, nb::none());
        set_field(future->_waiters, nb::list());
        set_field(future->_done_callbacks, nb::list());
        set_field(future->_link, link);
        set_field(future->_file, file);
        set_field(future->_cancel_timeout_s, cancel_timeout_s);
        set_field(future->_request, nb::borrow(each));
        set_field(request->waiter, made);
        futures.append(made);
    }
    return futures;
}

bool is_empty(PyObject *list)
{
    return PyList_CheckExact(list) && PyList_Size(list) == 0;
}

/* Settles the futures of the first ones of `finished`, and returns how many: then comes one with callbacks or the like. */
size_t settle_futures(nb::list finished)
{
    size_t settled = 0;

    for (nb::handle each : finished) {
        RequestFields *request = request_of(each.ptr());

        if (request == nullptr || request->done != Py_True || request->cancelling != Py_False) {
            break;
        }
        if (request->waiter != Py_None) {
            const nb::object waiter = nb::borrow(request->waiter);
            auto *future = reinterpret_cast<FutureFields *>(waiter.ptr());

            if (!PyObject_TypeCheck(waiter.ptr(), future_type) || future->_request != each.ptr() ||
                future->_state != states().pending || !is_empty(future->_waiters) ||
                !is_empty(future->_done_callbacks)) {
                break;
            }
            set_field(future->_result, nb::borrow(request->result));
            set_field(future->_exception, nb::borrow(request->error));
            set_field(future->_state, nb::borrow(states().finished)); /* last: result() looks without the lock */
            set_field(request->waiter, nb::none());
        }
        settled++;
    }
    return settled;
}

void bind_batches(nb::module_ &m)
{
    request_type = make_type<RequestFields>("aiod_client._ring.RequestFields", request_members);
    future_type = make_type<FutureFields>("aiod_client._ring.FutureFields", future_members);
    m.attr("RequestFields") = nb::handle(reinterpret_cast<PyObject *>(request_type));
    m.attr("FutureFields") = nb::handle(reinterpret_cast<PyObject *>(future_type));
    m.def("make_requests", make_requests, nb::arg("kind"), nb::arg("handle"), nb::arg("batch").none(),
          nb::arg("deadline_s"), nb::arg("other"));
    m.def("fill_records", fill_records, nb::arg("records"), nb::arg("queue"), nb::arg("in_flight"), nb::arg("cookie"),
          nb::arg("bytes_free"), nb::arg("now_s"), nb::arg("payload"));
    m.def("complete_records", complete_records, nb::arg("records"), nb::arg("requests"), nb::arg("files"),
          nb::arg("frames"), nb::arg("finished"), nb::arg("kind"));
    m.def("make_futures", make_futures, nb::arg("kind"), nb::arg("requests"), nb::arg("condition"), nb::arg("link"),
          nb::arg("file"), nb::arg("cancel_timeout_s"));
    m.def("settle_futures", settle_futures, nb::arg("finished"));
}

} // namespace

#undef REQUEST_FIELDS
#undef FUTURE_FIELDS

#endif
