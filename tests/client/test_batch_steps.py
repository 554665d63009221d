"""The native module's steps for a batch do what the loops in Python do: the same bytes, the same outcomes."""

from __future__ import annotations

import contextlib
import gc
import struct
import threading
import weakref
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiod_client import operations
from aiod_client.blocking import future
from aiod_client.blocking.future import RequestFuture, futures_of
from aiod_client.requests import batch_steps
from aiod_client.requests.batch_steps import no_records
from aiod_client.requests.pending import Request
from aiod_client.session import in_flight, session
from aiod_client.session.open_files import OpenFile
from aiod_client.session.session import Session
from aiod_protocol import wire
from aiod_protocol.wire import COMPLETION, SHARED_PAYLOAD_MAX, SUBMISSION, MessageType
from tests.client.test_session_flow import Engine, run, welcome

if TYPE_CHECKING:
    from collections.abc import Iterator

Outcome = tuple[str, bool, Any, str]
FILE: Any = object()


@contextlib.contextmanager
def loops_only() -> Iterator[None]:
    """As in an installation without the native module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations, "make_requests", None)
        patch.setattr(future, "make_futures", None)
        patch.setattr(in_flight, "fill_records", no_records)
        patch.setattr(session, "complete_records", no_records)
        yield


class Recorded(Engine):
    """Keeps what it takes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.taken: list[list[bytes]] = []

    def take(self, message: Any) -> None:
        """Take a message of the session."""
        self.taken.append([bytes(frame) for frame in message])
        super().take(message)


def outcome(request: Any) -> Outcome:
    return str(request), request.done, request.result, repr(request.error)


def carried_out(batch: list[Any], grant: dict[str, Any], seed: int, timeout_s: float | None) -> tuple[Any, ...]:
    """Everything that a session of `grant` sends, and what becomes of `batch`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aiod_client.operations.time.monotonic", lambda: 10.0)
        requests = operations.from_tuples(7, batch, None, timeout_s)
    using = Session(welcome(**grant), 0.0)
    using.files[7] = file = OpenFile("scratch", "file", 3, ())
    engine = Recorded(using.welcome, bytes(range(256)) * 40)
    engine.fail = {5: 5}
    using.add_requests(requests)
    done = run(using, engine, Random(seed))  # noqa: S311
    done += using.take_failed()
    counts = using.in_flight.cookie, using.in_flight.received, file.dirty
    return engine.taken, [outcome(request) for request in done], counts


def view_of(each: bytes) -> memoryview:
    return memoryview(each)


def of_bytes(size: int) -> Any:
    return st.integers(0, 255).map(lambda value: bytes([value]) * size)


sizes = st.sampled_from([0, 1, 100, SHARED_PAYLOAD_MAX - 1, SHARED_PAYLOAD_MAX, SHARED_PAYLOAD_MAX + 1])
places = st.integers(0, 12_000)
data = sizes.flatmap(of_bytes)
items = st.one_of(
    st.tuples(st.just("read"), sizes, places),
    st.tuples(st.just("write"), data, places),
    st.tuples(st.just("write"), data.map(view_of), places),
    st.tuples(st.just("write"), data, places, st.just(True)),  # noqa: FBT003
    st.tuples(st.just("writev"), st.lists(data, max_size=3), places),
    st.tuples(st.just("read_view"), sizes, places),
    st.tuples(st.just("read"), st.just(True), places),  # noqa: FBT003 - an index, not an int
    st.just(("flush",)),
    st.just(["read", 10, 5]),
)
batches = st.one_of(st.lists(items, max_size=14), data.map(lambda each: [("write", each, 9)] * 20))
grants = st.sampled_from([
    {"depth_max": 8, "batch_max": 4},
    {"depth_max": 64, "batch_max": 50, "bytes_max": 1 << 20, "request_bytes_max": 100},
    {"depth_max": 64, "batch_max": 50, "bytes_max": 64 << 20, "request_bytes_max": 4 << 20},
])  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(batches, grants, st.integers(0, 1000), st.sampled_from([None, 0.5, 1e12]))
def test_messages_and_outcomes_are_those_of_the_loops(
    batch: list[Any], grant: dict[str, Any], seed: int, timeout_s: float | None
) -> None:
    found = carried_out(batch, grant, seed, timeout_s)
    with loops_only():
        assert found == carried_out(batch, grant, seed, timeout_s)


@pytest.mark.parametrize(
    "item",
    [
        ("read", -1, 0),
        ("read", 1, -1),
        ("read", 1, (1 << 63) - 1),
        ("read", 1 << 64, 0),
        ("read", "1", 0),
        ("write", b"x", 1.5),
        ("write", "text", 0),
        ("write", b"x", (1 << 63) - 1),
        ("trim", 1, 0),
        (),
        None,
    ],
)
def test_what_is_refused_is_refused_with_the_same_error(item: Any) -> None:
    with pytest.raises(Exception) as native:  # noqa: PT011 - compared below
        operations.from_tuples(7, [("read", 1, 0), item], None, None)
    with loops_only(), pytest.raises(type(native.value)) as looped:
        operations.from_tuples(7, [("read", 1, 0), item], None, None)
    assert str(native.value) == str(looped.value)


@pytest.mark.parametrize(
    ("records", "payload"),
    [
        (COMPLETION.pack(1, 11, 0, 0, 0, 0), bytes(20)),  # more than was asked for
        (COMPLETION.pack(1, 10, 0, 11, 0, 0), bytes(20)),  # beyond the frame
        (COMPLETION.pack(1, 10, 0, (1 << 32) - 1, 0, 0), bytes(20)),
        (COMPLETION.pack(1, 10, 1, 0, 0, 0), bytes(20)),  # no such frame
        (COMPLETION.pack(1, 10, (1 << 32) - 1, 0, 0, 0), bytes(20)),  # -1 would be the header
        (COMPLETION.pack(1, 10, 0, 0, 0, 0) * 2, bytes(20)),  # twice
        (COMPLETION.pack(3, 0, 0, 0, 0, 0), b""),  # no such cookie
        (COMPLETION.pack(1, 10, 0, 0, 0, 0)[:-1], bytes(20)),
        (COMPLETION.pack(1, 10, 0, 0, 0, 0) + b"x", bytes(20)),
    ],
)
def test_an_answer_that_breaks_the_protocol_ends_the_session_alike(records: bytes, payload: bytes) -> None:
    def answered() -> tuple[Any, ...]:
        using = Session(welcome(), 0.0)
        using.add_requests(operations.from_tuples(7, [("read", 10, 0), ("write", b"data", 0)], None, None))
        using.messages_to_send(0.0)
        done = using.receive([wire.pack(MessageType.COMPLETE, records, {}), payload])
        return repr(using.ended), [outcome(request) for request in done]

    found = answered()
    assert found[0] != "None"
    with loops_only():
        assert found == answered()


def fields(of: Any, kind: type) -> dict[str, Any]:
    names = [name for name in vars(kind) if not name.startswith("__")]
    assert names
    return {name: getattr(of, name) for name in names}


@pytest.mark.parametrize("item", [("read", 10, 5), ("write", b"data", 5)])
def test_requests_and_futures_have_the_same_attributes(item: Any) -> None:
    class Link:
        condition = threading.Condition()

    [request] = operations.from_tuples(7, [item], None, None)
    [made] = futures_of(Link(), [request], FILE, 1.5)  # type: ignore[arg-type]
    assert request.waiter is made
    with loops_only():
        [other] = operations.from_tuples(7, [item], None, None)
        [of_other] = futures_of(made._link, [other], FILE, 1.5)
    found, expected = fields(made, batch_steps.FutureFields), fields(of_other, batch_steps.FutureFields)
    assert found | {"_request": 0} == expected | {"_request": 0}
    assert found["_request"] is request
    found, expected = fields(request, batch_steps.RequestFields), fields(other, batch_steps.RequestFields)
    assert found | {"waiter": 0} == expected | {"waiter": 0}
    assert type(request) is Request
    assert type(made) is RequestFuture


def test_a_future_and_its_request_are_garbage_when_nothing_else_has_them() -> None:
    class Link:
        condition = threading.Condition()

    made = futures_of(Link(), operations.from_tuples(7, [("read", 1, 0)], None, None), FILE, 1.5)  # type: ignore[arg-type]
    gone = weakref.ref(made[0])  # a cycle, until it is settled
    del made
    gc.collect()
    assert gone() is None


def test_the_records_are_those_of_the_wire() -> None:
    assert (struct.calcsize("<QHHIQQIIII"), struct.calcsize("<QqIIII")) == (SUBMISSION.size, COMPLETION.size)
    assert batch_steps.fill_records is not no_records  # else the tests above compare the loops with themselves


def test_what_is_no_batch_is_refused_in_the_words_of_python() -> None:
    with pytest.raises(TypeError, match="'NoneType' object is not iterable"):
        operations.from_tuples(1, None, FILE, None)  # type: ignore[arg-type]
    with loops_only(), pytest.raises(TypeError, match="'NoneType' object is not iterable"):
        operations.from_tuples(1, None, FILE, None)  # type: ignore[arg-type]


def test_a_batch_is_iterated_once() -> None:
    class Batch:
        begun = 0

        def __iter__(self) -> Iterator[tuple[str, int, int]]:
            self.begun += 1
            return iter([("read", 1, 2)])

    batch = Batch()
    assert [request.offset for request in operations.from_tuples(1, batch, FILE, None)] == [2]
    assert batch.begun == 1
