/*
 * _awaited.hpp - requests of an event loop, each with a future that a task awaits. Part of _ring.cpp.
 *
 * - A request that is done when it is polled for, as the loop's only one, returns its result; no future is made for it.
 * - The others are in the Ring's list until they are reaped, at the end of the loop's turn: one pass sets the results of all
 *   futures whose requests are done.
 * - In one turn the first request wakes the engine, if it sleeps; what follows while it still sleeps is staged, and
 *   submitted together at the end of the turn, by one system call.
 * - The session knows nothing of these requests. It adopts them (ring/transport.py) when something happens to them that it
 *   deals with: a failure, a timeout, a cancelled await, the end of the ring, a CLOSE of their handle.
 *
 * The loop's thread with the GIL held. Every call of Python may run a finalizer that uses the same Ring: so what a call here
 * has taken off the list is in no other place before Python is called, and a Pending that is dropped while its request is
 * being reaped leaves that to take_done().
 */
#ifndef AIOD_CLIENT_AWAITED_HPP
#define AIOD_CLIENT_AWAITED_HPP

#include <sched.h>

#include <algorithm>
#include <ctime>

namespace
{

constexpr size_t STAGED_MAX = 16;    /* then the engine begins with them */
constexpr unsigned AT_ONCE_MAX = 64; /* after so many polled requests one is awaited, which shows whether it is alone */
constexpr unsigned NEAR_LOOKS = 128; /* a few times what a cached read takes */

/* As in clients/c/polling.c: a sched_yield() that takes longer has let others run, or a thread that computes. */
constexpr double SWITCH_S = 1e-6;
constexpr double CROWDED_S = 2e-3;
constexpr double CROWDED_PAUSE = 64.0;

using FlightOwner = std::unique_ptr<Flight>;

double clock_s()
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

/* ---- the list ------------------------------------------------------------------------------------------------------------ */

void link_awaited(Ring &ring, Flight &flight)
{
    Awaiting &awaiting = ring.awaiting;

    flight.awaited.next = awaiting.first;
    if (awaiting.first != nullptr) {
        awaiting.first->awaited.previous = &flight;
    }
    awaiting.first = &flight;
    awaiting.count++;
}

FlightOwner unlink_awaited(Ring &ring, Flight &flight)
{
    Awaiting &awaiting = ring.awaiting;
    Awaited &awaited = flight.awaited;

    (awaited.previous == nullptr ? awaiting.first : awaited.previous->awaited.next) = awaited.next;
    if (awaited.next != nullptr) {
        awaited.next->awaited.previous = awaited.previous;
    }
    awaited.next = awaited.previous = nullptr;
    awaiting.count--;
    return FlightOwner(&flight);
}

void unstage(Ring &ring, const Flight &flight)
{
    std::vector<Flight *> &staged = ring.awaiting.staged;

    staged.erase(std::remove(staged.begin(), staged.end(), &flight), staged.end());
}

/* ---- submitting ---------------------------------------------------------------------------------------------------------- */

/* Submit what is staged. What finds no room stays, and so does all of it when the session has ended. */
void submit_staged(Ring &ring)
{
    std::vector<Flight *> &staged = ring.awaiting.staged;
    aiod_op *ops[REAP_MAX];
    unsigned count = 0;
    int submitted;

    if (staged.empty()) {
        return;
    }
    for (; count < staged.size() && count < REAP_MAX; count++) {
        ops[count] = staged[count]->op;
    }
    submitted = aiod_submit(ring.client->client, ops, count);
    for (int i = 0; i < submitted; i++) {
        staged[static_cast<size_t>(i)]->submitted = true;
    }
    staged.erase(staged.begin(), staged.begin() + std::max(submitted, 0));
}

bool may_start(const Ring &ring)
{
    return ring.usable() && ring.awaiting.create_future.is_valid() && !ring.awaiting.held &&
           ring.awaiting.staged.size() < STAGED_MAX;
}

/* Is the engine waking already, for an earlier request of this turn? */
bool is_to_be_staged(const Ring &ring)
{
    return ring.awaiting.started > 0 && aiod_engine_sleeps(ring.client->client);
}

/* Submit or stage the request. False: no room. */
bool launch(Ring &ring, Flight &flight, bool stage)
{
    if (!stage && ring.awaiting.staged.empty()) {
        flight.submitted = aiod_submit(ring.client->client, &flight.op, 1) == 1;
        return flight.submitted;
    }
    ring.awaiting.staged.push_back(&flight);
    if (!stage || ring.awaiting.staged.size() >= STAGED_MAX) {
        submit_staged(ring);
    }
    return true;
}

/* A future for the request, which was launched. */
nb::object await_flight(Ring &ring, FlightOwner flight, double timeout_s)
{
    Awaiting &awaiting = ring.awaiting;
    Awaited &awaited = flight->awaited;
    nb::object future = nb::steal(PyObject_CallNoArgs(awaiting.create_future.ptr()));

    if (!future.is_valid()) {
        unstage(ring, *flight);
        drop_flight(*ring.client, std::move(flight));
        throw nb::python_error();
    }
    awaited.future = future;
    awaited.timeout_s = timeout_s;
    awaited.due_s = clock_s() + timeout_s;
    double due_s = awaited.due_s;
    link_awaited(ring, *flight.release());
    awaiting.started++;
    if (!awaiting.turn_due) {
        awaiting.turn_due = true;
        awaiting.wake();
    }
    if (due_s < awaiting.timer_s) {
        awaiting.timer_s = due_s;
        awaiting.set_timer(due_s);
    }
    return future;
}

/* ---- outcomes ------------------------------------------------------------------------------------------------------------ */

struct Names {
    PyObject *set_result = PyUnicode_InternFromString("set_result");
    PyObject *set_exception = PyUnicode_InternFromString("set_exception");
    PyObject *done = PyUnicode_InternFromString("done");
    PyObject *dirty = PyUnicode_InternFromString("dirty");
    PyObject *epoch = PyUnicode_InternFromString("epoch");
};

const Names &names()
{
    static const Names constant;

    return constant;
}

/* A change of the file is acknowledged: no flush covers it yet. */
void note_change(nb::handle file)
{
    nb::object dirty = nb::steal(PyObject_GetAttr(file.ptr(), names().dirty));
    nb::object epoch = nb::steal(PyObject_GetAttr(file.ptr(), names().epoch));

    if (!dirty.is_valid() || !epoch.is_valid() || PySet_Add(dirty.ptr(), epoch.ptr()) < 0) {
        throw nb::python_error();
    }
}

/* The result of a request that has succeeded. */
nb::object outcome_of(Flight &flight)
{
    nb::object data;

    if (flight.awaited.file.is_valid() && !flight.awaited.file.is_none()) {
        note_change(flight.awaited.file);
    }
    data = take_data(flight);
    return data.is_none() ? nb::object(nb::int_(flight.op->result)) : data;
}

/* What the session needs to adopt the request: see Awaited in _ring.pyi. */
nb::object describe(const Flight &flight)
{
    const aiod_op &op = *flight.op;
    const Awaited &awaited = flight.awaited;

    return nb::make_tuple(awaited.future, op.op, op.flags, op.handle, op.offset, op.length,
                          awaited.data.is_valid() ? awaited.data : nb::object(nb::none()), flight.submitted,
                          awaited.due_s, awaited.timeout_s);
}

/* Call the future's method. A future that is done, since its task was cancelled in this turn of the loop, stays as it is. */
void resolve(nb::handle future, PyObject *method, nb::handle value)
{
    PyObject *arguments[] = {future.ptr(), value.ptr()};
    nb::object called = nb::steal(PyObject_VectorcallMethod(method, arguments, 2, nullptr));

    if (called.is_valid()) {
        return;
    }
    nb::python_error error;
    nb::object is_done = nb::steal(PyObject_CallMethodObjArgs(future.ptr(), names().done, nullptr));

    if (!is_done.is_valid() || !is_done.is(nb::bool_(true))) {
        PyErr_Clear();
        error.restore();
        PyErr_WriteUnraisable(future.ptr());
    }
}

/* The request is done, and off the list: its future gets the result. One that has failed is added to `reaped` instead. */
void settle(Ring &ring, FlightOwner flight, nb::list &reaped)
{
    const aiod_op &op = *flight->op;

    if (op.result < 0) {
        flight->submitted = true;
        reaped.append(nb::make_tuple(describe(*flight), op.result, failed_bytes(op), op.reason, nb::none()));
        release(*ring.client, *flight);
        return;
    }
    try {
        nb::object value = outcome_of(*flight);

        release(*ring.client, *flight);
        resolve(flight->awaited.future, names().set_result, value);
    } catch (nb::python_error &error) { /* as for lack of memory: the request ends with that */
        if (flight->op != nullptr) {
            release(*ring.client, *flight);
        }
        resolve(flight->awaited.future, names().set_exception, error.value());
    }
}

/* A request that was polled for and is done: its result, or (result, written, reason). */
nb::object finish_at_once(Ring &ring, FlightOwner flight)
{
    const aiod_op &op = *flight->op;
    nb::object result;

    flight->submitted = false;
    try {
        result = op.result < 0 ? nb::object(nb::make_tuple(op.result, op.written, op.reason)) : outcome_of(*flight);
    } catch (nb::python_error &) {
        release(*ring.client, *flight);
        throw;
    }
    release(*ring.client, *flight);
    return result;
}

/* ---- the end of a turn of the loop --------------------------------------------------------------------------------------- */

/* Submit what was staged, and see whether the loop has one request at a time. */
void begin_turn(Ring &ring)
{
    Awaiting &awaiting = ring.awaiting;

    awaiting.turn_due = false;
    submit_staged(ring);
    if (awaiting.started > 0) {
        awaiting.alone = awaiting.started == 1 && awaiting.count == 1;
        awaiting.started = 0;
    }
}

/* The request of a Pending is done: add it to `reaped`. Python runs here, and may drop this Pending or others. */
void hand_over(Ring &ring, Flight &flight, nb::list &reaped)
{
    const aiod_op &op = *flight.op;
    nb::object owner = std::move(flight.owner); /* removed from there before it is released */

    if (!flight.dropped && owner.is_valid() && !owner.is_none()) {
        reaped.append(nb::make_tuple(owner, op.result, failed_bytes(op), op.reason, take_data(flight)));
    } else { /* given up, or a signal's handler has raised before it had an owner */
        note_opened(*ring.client, op);
    }
    owner.reset();
    release(*ring.client, flight);
    flight.reaping = false;
    if (flight.dropped) {
        delete &flight;
    }
}

/* Is its result copied for longer than a turn of the loop takes? */
bool is_much_to_copy(const aiod_op &op)
{
    return is_read(op) && op.result > static_cast<int64_t>(LOOK_BYTES_MAX) &&
           !static_cast<const Flight *>(op.user)->in_place;
}

/* Take requests that are done: those with futures off the list and into `awaited`, the others into `reaped`. */
void take(Ring &ring, aiod_op *const *done, unsigned count, nb::list &reaped, std::vector<FlightOwner> &awaited)
{
    Flight *others[REAP_MAX];
    unsigned others_count = 0;

    for (unsigned i = 0; i < count; i++) {
        Flight &flight = *static_cast<Flight *>(done[i]->user);

        flight.submitted = false;
        if (flight.awaited.future.is_valid()) {
            awaited.push_back(unlink_awaited(ring, flight));
        } else if (!flight.orphan) { /* bury() frees an orphan */
            flight.reaping = true;
            others[others_count++] = &flight;
        }
    }
    for (unsigned i = 0; i < others_count; i++) {
        hand_over(ring, *others[i], reaped);
    }
}

/*
 * Take what is done. If the first result is much to copy, that one alone unless `all`: its task asks for more before the
 * next one is copied, or the engine would have nothing to do meanwhile.
 */
void take_done(Ring &ring, nb::list &reaped, std::vector<FlightOwner> &awaited, bool all)
{
    aiod_op *done[REAP_MAX];
    unsigned max = all ? REAP_MAX : 1;
    unsigned count;
    bool goes_on;

    do {
        count = aiod_reap(ring.client->client, done, max);
        goes_on = count == max && (max > 1 || !is_much_to_copy(*done[0]));
        max = REAP_MAX;
        take(ring, done, count, reaped, awaited);
    } while (goes_on);
}

/* Let the engine run, if it shares this CPU, and look again. The GIL is held: others of this process wait as for a poll. */
bool look_after_yield(Ring &ring)
{
    double since_s = clock_s();
    double took_s;

    if (since_s < ring.awaiting.yields_from_s) {
        return false;
    }
    sched_yield();
    took_s = clock_s() - since_s;
    if (took_s > CROWDED_S) {
        ring.awaiting.yields_from_s = since_s + took_s + CROWDED_PAUSE * took_s;
    }
    return aiod_look(ring.client->client, took_s > SWITCH_S ? 1 : LOOKS);
}

/* With nothing done yet, poll for a moment: for what the engine answers in microseconds the loop need not sleep. */
bool is_worth_another_take(Ring &ring)
{
    Awaiting &awaiting = ring.awaiting;
    bool near;
    bool found;

    if (awaiting.count == 0 || !awaiting.turn_looks.pay()) {
        return false;
    }
    near = awaiting.nearness.tries();
    found = aiod_look(ring.client->client, near ? NEAR_LOOKS : 1);
    if (near) {
        awaiting.nearness.count(found);
    }
    found = found || look_after_yield(ring);
    awaiting.turn_looks.count(found);
    return found;
}

/* ---- the methods of Ring ------------------------------------------------------------------------------------------------- */

void ring_attend(Ring &ring, const nb::object &loop, const nb::object &wake, const nb::object &set_timer)
{
    ring.awaiting.create_future = loop.attr("create_future");
    ring.awaiting.wake = wake;
    ring.awaiting.set_timer = set_timer;
}

/* Is the request the loop's only one? Then it is polled for; several are done sooner while the loop makes the next ones. */
bool is_alone(Awaiting &awaiting)
{
    return awaiting.count == 0 && awaiting.alone && ++awaiting.at_once % AT_ONCE_MAX != 0;
}

/* A read that is not polled for: its future; None: no room, or invalid arguments. */
nb::object read_later(Ring &ring, uint32_t handle, nb::handle length, nb::handle offset, double timeout_s, bool stage)
{
    uint64_t bytes;
    uint64_t at;

    if (!number(length, bytes) || !number(offset, at) || !in_range(at, bytes) ||
        bytes > aiod_request_bytes_max(ring.client->client)) {
        return nb::none();
    }
    FlightOwner flight = std::make_unique<Flight>();

    flight->op = take_read(ring, handle, bytes, at, timeout_s);
    if (flight->op == nullptr) {
        return nb::none();
    }
    flight->op->awaited = false;
    flight->op->user = flight.get();
    if (!launch(ring, *flight, stage)) {
        drop_flight(*ring.client, std::move(flight));
        return nb::none();
    }
    return await_flight(ring, std::move(flight), timeout_s);
}

nb::object ring_read_soon(Ring &ring, uint32_t handle, nb::handle length, nb::handle offset, nb::handle timeout)
{
    aiod_op *left = nullptr;
    nb::object result;
    double timeout_s;

    if (!may_start(ring) || !seconds(timeout, timeout_s)) {
        return nb::none();
    }
    if (is_to_be_staged(ring)) {
        return read_later(ring, handle, length, offset, timeout_s, true);
    }
    submit_staged(ring);
    if (!is_alone(ring.awaiting)) {
        return read_later(ring, handle, length, offset, timeout_s, false);
    }
    result = read_at_once(ring, handle, length, offset, timeout_s, left);
    if (left == nullptr) {
        return result;
    }
    FlightOwner flight = std::make_unique<Flight>();

    flight->op = left;
    flight->submitted = true;
    left->user = flight.get();
    aiod_await_no_more(ring.client->client, left);
    return await_flight(ring, std::move(flight), timeout_s);
}

/* A request other than a read into new bytes. */
nb::object start_soon(Ring &ring, FlightOwner flight, nb::handle buffer, double timeout_s)
{
    Awaiting &awaiting = ring.awaiting;
    bool stage;
    bool look;

    if (!give_buffer(*ring.client, *flight, buffer) || !in_range(flight->op->offset, flight->op->length) ||
        flight->op->length > aiod_request_bytes_max(ring.client->client)) {
        drop_flight(*ring.client, std::move(flight));
        return nb::none();
    }
    stage = is_to_be_staged(ring);
    look = is_alone(awaiting) && awaiting.looks.pay();
    flight->op->deadline_ms = milliseconds(timeout_s);
    flight->op->awaited = look;
    flight->op->user = flight.get();
    if (!launch(ring, *flight, stage)) {
        drop_flight(*ring.client, std::move(flight));
        return nb::none();
    }
    if (look && poll_for(ring, flight->op, awaiting.looks)) {
        return finish_at_once(ring, std::move(flight));
    }
    if (look) {
        aiod_await_no_more(ring.client->client, flight->op);
    }
    return await_flight(ring, std::move(flight), timeout_s);
}

FlightOwner make_flight(uint16_t op, uint32_t handle, uint64_t offset, nb::handle data)
{
    FlightOwner flight = std::make_unique<Flight>();

    flight->op = static_cast<aiod_op *>(calloc(1, sizeof(aiod_op)));
    if (flight->op == nullptr) {
        throw std::bad_alloc();
    }
    flight->op->op = op;
    flight->op->handle = handle;
    flight->op->offset = offset;
    flight->awaited.data = nb::borrow(data);
    return flight;
}

nb::object ring_read_into_soon(Ring &ring, uint32_t handle, nb::handle buffer, nb::handle offset, nb::handle timeout)
{
    uint64_t at;
    double timeout_s;

    if (!may_start(ring) || !number(offset, at) || !seconds(timeout, timeout_s) ||
        !PyObject_CheckBuffer(buffer.ptr())) {
        return nb::none();
    }
    return start_soon(ring, make_flight(AIOD_RING_READ, handle, at, buffer), buffer, timeout_s);
}

nb::object ring_write_soon(Ring &ring, uint32_t handle, nb::handle data, nb::handle offset, unsigned flags,
                           nb::handle timeout, nb::handle file)
{
    uint64_t at;
    double timeout_s;

    if (!may_start(ring) || !number(offset, at) || !seconds(timeout, timeout_s) || !PyObject_CheckBuffer(data.ptr())) {
        return nb::none();
    }
    FlightOwner flight = make_flight(AIOD_RING_WRITE, handle, at, data);

    flight->op->flags = static_cast<uint16_t>(flags);
    flight->awaited.file = nb::borrow(file);
    return start_soon(ring, std::move(flight), data, timeout_s);
}

nb::object ring_flush_soon(Ring &ring, uint32_t handle, nb::handle timeout, nb::handle covers)
{
    double timeout_s;

    if (!may_start(ring) || !seconds(timeout, timeout_s)) {
        return nb::none();
    }
    return start_soon(ring, make_flight(AIOD_RING_FLUSH, handle, 0, covers), nb::none(), timeout_s);
}

/* Off the list: (Pending, Awaited). */
nb::object adopt(Ring &ring, Flight &flight)
{
    FlightOwner owner = unlink_awaited(ring, flight);
    auto pending = std::make_unique<Pending>(ring.client, std::move(owner));

    unstage(ring, flight);
    nb::object awaited = describe(flight);
    flight.awaited = Awaited();
    return nb::make_tuple(nb::cast(pending.release(), nb::rv_policy::take_ownership), awaited);
}

nb::object ring_adopt(Ring &ring, nb::handle future)
{
    submit_staged(ring);
    for (Flight *flight = ring.awaiting.first; flight != nullptr; flight = flight->awaited.next) {
        if (flight->awaited.future.is(future)) {
            return adopt(ring, *flight);
        }
    }
    return nb::none();
}

nb::list ring_adopt_all(Ring &ring, nb::handle handle)
{
    nb::list adopted;
    Flight *flight = ring.awaiting.first;

    submit_staged(ring);
    while (flight != nullptr) {
        if (handle.is_none() || flight->op->handle == nb::cast<uint32_t>(handle)) {
            adopted.append(adopt(ring, *flight));
            flight = ring.awaiting.first; /* Python has run */
        } else {
            flight = flight->awaited.next;
        }
    }
    return adopted;
}

nb::object ring_overdue(Ring &ring, double now_s)
{
    nb::list overdue;
    double next_s = INFINITY;
    std::vector<nb::object> futures;

    for (Flight *flight = ring.awaiting.first; flight != nullptr; flight = flight->awaited.next) {
        if (flight->awaited.due_s <= now_s) {
            futures.push_back(flight->awaited.future);
        } else {
            next_s = std::min(next_s, flight->awaited.due_s);
        }
    }
    ring.awaiting.timer_s = next_s;
    for (nb::object &future : futures) {
        overdue.append(future);
    }
    return nb::make_tuple(overdue, next_s);
}

/* ---- the garbage collector ----------------------------------------------------------------------------------------------- */

int ring_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) {
        const Awaiting &awaiting = nb::inst_ptr<Ring>(self)->awaiting;

        Py_VISIT(awaiting.create_future.ptr());
        Py_VISIT(awaiting.wake.ptr());
        Py_VISIT(awaiting.set_timer.ptr());
        for (const Flight *flight = awaiting.first; flight != nullptr; flight = flight->awaited.next) {
            Py_VISIT(flight->awaited.future.ptr());
            Py_VISIT(flight->awaited.data.ptr());
            Py_VISIT(flight->awaited.file.ptr());
        }
    }
    return 0;
}

int ring_clear(PyObject *self)
{
    Ring *ring = nb::inst_ptr<Ring>(self);

    ring->drop_awaited();
    return 0;
}

PyType_Slot ring_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void *>(ring_traverse)},
    {Py_tp_clear, reinterpret_cast<void *>(ring_clear)},
    {0, nullptr},
};

} // namespace

void Ring::drop_awaited()
{
    Awaiting dropped = std::move(awaiting);

    awaiting = Awaiting();
    while (dropped.first != nullptr) {
        Flight *flight = dropped.first;

        dropped.first = flight->awaited.next;
        drop_flight(*client, FlightOwner(flight));
    }
}

#endif
