"""Any load, credit and order of completions: the credit is never exceeded; each request completes once, correctly."""

from __future__ import annotations

import errno
import math
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiod_client.operations import from_tuple, read_into_request, read_request, read_view_request, write_request
from aiod_client.requests.pending import Call, Pending
from aiod_client.session.handshake import Message, Welcome
from aiod_client.session.session import HOLD_S, Session
from aiod_protocol import wire
from aiod_protocol.operations import Op
from aiod_protocol.wire import COMPLETION, SHARED_FRAME_MAX, SUBMISSION, MessageType

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = bytes(range(16))
ORDER = Random(1)  # noqa: S311 - an order of completions, no secret


PAYLOAD_OPS = {Op.WRITE, Op.APPEND, Op.IOCTL}
CHARGED_OPS = {Op.READ, *PAYLOAD_OPS}


def places(row: tuple[int, ...], message: Message) -> Iterator[tuple[int, bytes]]:
    """The payload of a record, from the frames of its message."""
    length, frame, start = row[5], row[7], row[8]
    while length:
        part = bytes(message[frame + 1][start : start + length])
        assert part
        yield frame, part
        length, frame, start = length - len(part), frame + 1, 0


class Engine:
    """An engine as a function: one file, completions in an order that the test chooses, the credit checked."""

    def __init__(self, welcome: Welcome, data: bytes = b"") -> None:
        """Check the limits of `welcome`."""
        self.welcome = welcome
        self.data = bytearray(data)
        self.queue: list[tuple[tuple[int, ...], Message]] = []
        self.unanswered: dict[int, int] = {}
        self.answered = 0
        self.fail: dict[int, int] = {}  # offset: errno
        self.calls: list[list[Any]] = []

    def take(self, message: Message) -> None:
        """Take a message of the session."""
        header = wire.unpack(message[0])
        if header[0] != MessageType.SUBMIT:
            self.calls.append(header)
            return
        _, token, received, records = header
        rows = list(SUBMISSION.iter_unpack(records))
        assert token == TOKEN
        assert received == self.answered
        assert 0 < len(rows) <= self.welcome.batch_max
        named = {frame for row in rows if row[1] in PAYLOAD_OPS and row[5] for frame, _ in places(row, message)}
        assert named == set(range(len(message) - 1))
        assert len(message) <= 1 + wire.FRAMES_MAX
        for row in rows:
            assert row[0] not in self.unanswered
            charge = row[5] if row[1] in CHARGED_OPS else 0
            assert charge <= self.welcome.request_bytes_max
            self.unanswered[row[0]] = charge
            self.queue.append((row, message))
        assert len(self.unanswered) <= self.welcome.depth_max
        assert sum(self.unanswered.values()) <= self.welcome.bytes_max

    def complete(self, count: int, random: Random) -> Message:
        """COMPLETE of up to `count` requests, in any order."""
        random.shuffle(self.queue)
        batch, self.queue = self.queue[:count], self.queue[count:]
        records, frames, messages, shared = bytearray(), [b""], {}, bytearray()
        for index, (row, message) in enumerate(batch):
            cookie, op, _, _, offset, length, *_ = row
            del self.unanswered[cookie]
            result, where, start = 0, 0, len(shared)
            if code := self.fail.get(offset):
                result, messages[index] = -code, f"offset {offset} is bad"
            elif op == Op.READ:
                read = bytes(self.data[offset : offset + length])
                result = len(read)
                if index % 3 == 2 and read:
                    frames.append(read)
                    where, start = len(frames) - 1, 0
                else:
                    shared += read
            elif op == Op.WRITE:
                payload = b"".join(part for _, part in places(row, message))
                assert len(payload) == length
                self.data.extend(bytes(max(0, offset - len(self.data))))
                self.data[offset : offset + length] = payload
                result = length
            records += COMPLETION.pack(cookie, result, where, start, 0, 0)
        self.answered += len(batch)
        frames[0] = bytes(shared)
        header = wire.pack(MessageType.COMPLETE, bytes(records), messages)
        return [header, *frames]


def welcome(**changes: Any) -> Welcome:
    """A WELCOME with a small grant."""
    grant = {"depth_max": 8, "bytes_max": 4096, "request_bytes_max": 512, "batch_max": 4}
    return Welcome(TOKEN, "main", **(grant | changes), heartbeat_s=2.0, session_timeout_s=30.0)


def run(session: Session, engine: Engine, random: Random) -> list[Pending]:
    """Execute everything; returns the requests in the order of their completion."""
    done: list[Pending] = []
    while session.pending:
        for message in session.messages_to_send(0.0):
            engine.take(message)
        assert engine.queue, "work left and nothing in flight"
        done += session.receive(engine.complete(random.randint(1, 12), random))
    assert (session.depth, session.bytes_inflight) == (0, 0)
    assert session.ended is None
    return done


grants = st.builds(
    welcome,
    depth_max=st.integers(1, 40),
    bytes_max=st.integers(1, 6000),
    request_bytes_max=st.integers(1, 1500),
    batch_max=st.integers(1, 50),
)
operations = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 5000), st.integers(0, 12_000)),
    st.tuples(st.just("write"), st.binary(max_size=3000), st.integers(20_000, 30_000)),
    st.tuples(st.just("flush")),
    st.tuples(st.just("size")),
)


@settings(max_examples=150, deadline=None)
@given(grants, st.lists(operations, max_size=60), st.randoms(use_true_random=False))
def test_every_request_completes_once_and_the_credit_is_never_exceeded(
    granted: Welcome, asked: list[tuple[Any, ...]], random: Random
) -> None:
    data = bytes(range(250)) * 40
    session, engine = Session(granted, 0.0), Engine(granted, data)
    requests = [from_tuple(1, operation, None) for operation in asked]
    for request in requests:
        session.add(request)
    done = run(session, engine, random)
    assert sorted(map(id, done)) == sorted(map(id, requests))
    writes = any(operation[0] == "write" for operation in asked)
    for operation, request in zip(asked, requests, strict=True):
        if operation[0] == "read" and not (writes and operation[1] + operation[2] > len(data)):
            assert request.outcome() == data[operation[2] : operation[2] + operation[1]]
        elif operation[0] == "write":
            assert request.outcome() == len(operation[1])


@settings(max_examples=100, deadline=None)
@given(grants, st.binary(max_size=8000), st.integers(0, 9000), st.randoms(use_true_random=False))
def test_a_long_write_and_read_in_parts_keep_the_data(
    granted: Welcome, data: bytes, offset: int, random: Random
) -> None:
    session, engine = Session(granted, 0.0), Engine(granted)
    write = write_request(1, bytearray(data), offset)
    session.add(write)
    run(session, engine, random)
    assert write.outcome() == len(data)
    buffer = bytearray(len(data) + 700)
    read, into = read_request(1, len(data) + 700, offset), read_into_request(1, buffer, offset)
    view = read_view_request(1, len(data) + 700, offset)
    for request in (read, into, view):
        session.add(request)
    run(session, engine, random)
    assert read.outcome() == data
    assert view.outcome() == data
    assert into.outcome() == len(data)
    assert buffer[: len(data)] == data
    buffer.append(0)  # nothing holds the buffer any more


@settings(max_examples=100, deadline=None)
@given(grants, st.integers(0, 7), st.randoms(use_true_random=False))
def test_a_failed_part_fails_the_request_and_no_further_part_is_sent(
    granted: Welcome, part: int, random: Random
) -> None:
    session, engine = Session(granted, 0.0), Engine(granted, bytes(50_000))
    step = min(granted.request_bytes_max, granted.bytes_max)
    engine.fail[part * step] = errno.EIO
    read, other = read_request(1, step * 8, 0), read_request(1, 1, step * 8)
    session.add(read)
    session.add(other)
    run(session, engine, random)
    with pytest.raises(OSError, match="is bad") as caught:
        read.outcome()
    assert caught.value.errno == errno.EIO
    assert other.outcome() == b"\0"


def test_a_read_far_past_the_end_sends_no_part_behind_the_end() -> None:
    granted = welcome()
    session, engine = Session(granted, 0.0), Engine(granted, b"short")
    read = read_request(1, 1 << 50, 0)
    session.add(read)
    run(session, engine, ORDER)
    assert read.outcome() == b"short"
    assert engine.answered <= granted.depth_max


def test_a_long_backlog_travels_in_batches_although_completions_come_one_by_one() -> None:
    granted = welcome(depth_max=64, batch_max=64, bytes_max=1 << 20)
    session, engine = Session(granted, 0.0), Engine(granted, bytes(100))
    for _ in range(1000):
        session.add(read_request(1, 1, 0))
    messages = 0
    while session.pending:
        for message in session.messages_to_send(0.0):
            messages += 1
            engine.take(message)
        session.receive(engine.complete(1, ORDER))
    assert messages <= 1000 / (64 // 8) + 10


def hang(session: Session, engine: Engine, count: int) -> None:
    """Have `count` reads in flight that will not complete."""
    for _ in range(count):
        session.add(read_request(1, 1, 0))
    for message in session.messages_to_send(0.0):
        engine.take(message)
    assert session.depth == count
    engine.queue.clear()


def test_held_credit_is_used_soon_although_nothing_completes() -> None:
    granted = welcome(depth_max=256, batch_max=256)
    session, engine = Session(granted, 0.0), Engine(granted, bytes(100))
    hang(session, engine, 230)
    requests = [read_request(1, 1, 0) for _ in range(27)]
    for request in requests:
        session.add(request)
    assert session.messages_to_send(1.0) == []
    assert session.messages_to_send(1.001) == []
    assert session.next_tick_s() == 1.0 + HOLD_S
    session.tick(session.next_tick_s())
    (message,) = session.messages_to_send(session.next_tick_s())
    engine.take(message)
    assert [request.sent for request in requests] == [True] * 26 + [False]
    assert session.held_until_s == math.inf, "there is no credit to be held back"
    session.receive(engine.complete(1, ORDER))
    (message,) = session.messages_to_send(1.002)  # the last batch is the whole backlog: it is not held
    engine.take(message)
    assert requests[26].sent


def test_held_requests_go_in_as_many_messages_as_they_need() -> None:
    granted = welcome(depth_max=64, batch_max=2)
    session, engine = Session(granted, 0.0), Engine(granted)
    hang(session, engine, 58)
    for _ in range(10):
        session.add(read_request(1, 1, 0))
    assert session.messages_to_send(1.0) == []
    assert len(session.messages_to_send(1.0 + HOLD_S)) == 3
    assert session.depth == 64


def test_nothing_is_due_once_the_held_requests_are_abandoned() -> None:
    granted = welcome(depth_max=64, batch_max=64)
    session, engine = Session(granted, 0.0), Engine(granted)
    hang(session, engine, 60)
    requests = [read_request(1, 1, 0) for _ in range(5)]
    for request in requests:
        session.add(request)
    assert session.messages_to_send(1.0) == []
    for request in requests:
        session.abandon(request, TimeoutError())
    assert session.messages_to_send(1.001) == []
    assert session.held_until_s == math.inf


def test_requests_in_parts_do_not_starve_others() -> None:
    granted = welcome(depth_max=4, batch_max=4)
    session, engine = Session(granted, 0.0), Engine(granted, bytes(100_000))
    long, short = read_request(1, 100_000, 0), read_request(1, 10, 0)
    session.add(long)
    session.add(short)
    for message in session.messages_to_send(0.0):
        engine.take(message)
    assert short.sent
    assert len(engine.queue) == granted.depth_max


def test_a_close_waits_for_the_parts_of_its_handle_and_an_open_does_not_wait() -> None:
    granted = welcome(depth_max=2, batch_max=2)
    session, engine = Session(granted, 0.0), Engine(granted, bytes(5000))
    read, late = read_request(1, 5000, 0), read_request(2, 1, 0)
    close = Call(MessageType.CLOSE, 1, handle=1)
    session.add(read)
    session.add(close)
    session.add(late)
    session.add(Call(MessageType.OPEN, "scratch", "x", 1, 0))
    while session.pending > 1:  # the OPEN is not answered
        for message in session.messages_to_send(0.0):
            engine.take(message)
        if any(call[0] == MessageType.CLOSE for call in engine.calls):
            break
        session.receive(engine.complete(1, ORDER))
    assert [call[0] for call in engine.calls] == [MessageType.OPEN, MessageType.CLOSE]
    assert late.done
    assert read.split is not None
    assert read.split.asked == 5000
    assert not read.done


def test_small_payloads_share_frames_of_at_most_a_mebibyte_and_large_ones_are_not_copied() -> None:
    granted = welcome(depth_max=256, batch_max=256, bytes_max=32 << 20, request_bytes_max=4 << 20)
    session = Session(granted, 0.0)
    large = bytes(100_000)
    for _ in range(40):
        session.add(write_request(1, bytes(60_000), 0))
    session.add(write_request(1, large, 0))
    (message,) = session.messages_to_send(0.0)
    assert [len(frame) for frame in message[1:]] == [1_020_000, 1_020_000, 360_000, 100_000]
    assert max(len(frame) for frame in message[1:]) <= SHARED_FRAME_MAX
    assert message[-1] is large


def test_a_write_of_no_bytes_names_no_frame() -> None:
    session = Session(welcome(), 0.0)
    session.add(write_request(1, b"", 0))
    (message,) = session.messages_to_send(0.0)
    assert len(message) == 1


def test_no_more_opens_are_in_flight_than_the_engine_admits() -> None:
    session = Session(welcome(depth_max=2), 0.0)
    calls = [Call(MessageType.OPEN, "scratch", str(number), 1, 0) for number in range(5)]
    for call in calls:
        session.add(call)
    session.add(Call(MessageType.NAME, "stat", "scratch", "x", {}))
    session.messages_to_send(0.0)
    in_flight = [call for call in calls if call.sent]
    assert len(in_flight) == 2
    assert session.pending == 6
    waiting = [call for call in calls if not call.sent]
    session.abandon(waiting[-1], TimeoutError())
    while in_flight:
        session.receive([wire.pack(MessageType.REPLY, in_flight.pop(0).cookie, 7, None, {})])
        session.messages_to_send(0.0)
        in_flight += [call for call in calls if call.sent and not call.done and call not in in_flight]
        assert len(in_flight) <= 2
    assert [call.result for call in calls if call is not waiting[-1]] == [(7, {})] * 4
    assert not waiting[-1].sent


def test_opens_that_wait_for_others_fail_with_the_session() -> None:
    session = Session(welcome(depth_max=1), 0.0)
    calls = [Call(MessageType.OPEN, "scratch", str(number), 1, 0) for number in range(3)]
    for call in calls:
        session.add(call)
    session.messages_to_send(0.0)
    assert set(session.lose("gone")) == set(calls)
    assert session.pending == 0
