"""Requests other than plain reads and writes in a session: pieces, ranges, appends, deadlines, cancellation, errors."""

from __future__ import annotations

import errno
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiod_client import operations
from aiod_client.errors import ProtocolError
from aiod_client.requests import split
from aiod_client.requests.pending import GRACE_S, Call
from aiod_client.session.session import Session
from aiod_protocol import wire
from aiod_protocol.operations import Op, OpFlag
from aiod_protocol.wire import COMPLETION, SUBMISSION, MessageType
from tests.client.test_session_flow import TOKEN, Engine, run, welcome

if TYPE_CHECKING:
    from aiod_client.requests.pending import Pending, Request


def new_session(**grant: Any) -> Session:
    return Session(welcome(**grant), 0.0)


def rows_of(messages: list[Any]) -> list[tuple[int, ...]]:
    """The records of all SUBMITs."""
    headers = [wire.unpack(message[0]) for message in messages]
    return [row for header in headers if header[0] == MessageType.SUBMIT for row in SUBMISSION.iter_unpack(header[3])]


def complete(session_: Session, *records: tuple[int, ...], messages: dict[int, str] | None = None) -> list[Pending]:
    """COMPLETE of (cookie, result, written)."""
    packed = b"".join(COMPLETION.pack(cookie, result, 0, 0, written, 0) for cookie, result, written in records)
    return session_.receive([wire.pack(MessageType.COMPLETE, packed, messages or {})])


# ---- pieces


sizes = st.lists(st.sampled_from([0, 1, 3, 100, 65535, 65536, 70000, 200_000]), max_size=30)
grants = st.sampled_from([
    {"request_bytes_max": 512, "bytes_max": 4096},
    {"request_bytes_max": 100_000, "bytes_max": 100_000},
    {"request_bytes_max": 4 << 20, "bytes_max": 32 << 20, "depth_max": 64, "batch_max": 64},
])  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(sizes, grants, st.integers(0, 1000))
def test_pieces_make_one_request_wherever_they_are_in_the_frames(
    lengths: list[int], grant: dict[str, Any], seed: int
) -> None:
    random = Random(seed)  # noqa: S311
    pieces = [random.randbytes(length) for length in lengths]
    whole = b"".join(pieces)
    engine, own = Engine(welcome(**grant)), new_session(**grant)
    write = operations.writev_request(1, pieces, 7)
    neighbour = operations.write_request(1, b"neighbour", len(whole) + 7)
    own.add(write)
    own.add(neighbour)
    run(own, engine, random)
    assert (write.outcome(), neighbour.outcome()) == (len(whole), 9)
    assert engine.data[7 : 7 + len(whole) + 9] == whole + b"neighbour"

    into = [bytearray(length) for length in lengths]
    read = operations.readv_request(1, into, 7)
    own.add(read)
    run(own, engine, random)
    assert read.outcome() == len(whole)
    assert b"".join(into) == whole


def test_many_large_pieces_do_not_become_too_many_frames() -> None:
    """64 KiB each and a byte between them: they would take two frames each if they were not joined."""
    pieces = [bytes(65536), b"x"] * 900
    own = new_session(request_bytes_max=64 << 20, bytes_max=128 << 20)
    own.add(operations.writev_request(1, pieces, 0))
    (message,) = own.messages_to_send(0.0)
    assert b"".join(message[1:]) == b"".join(pieces)
    assert len(message) - 1 <= wire.FRAMES_MAX


def test_large_pieces_are_not_copied() -> None:
    piece = bytearray(100_000)
    own = new_session(request_bytes_max=1 << 20, bytes_max=1 << 20)
    own.add(operations.writev_request(1, [piece, b"small", b"small"], 0))
    (message,) = own.messages_to_send(0.0)
    assert [len(frame) for frame in message[1:]] == [100_000, 10]
    piece[0] = 7
    assert message[1][0] == 7


# ---- ranges


def test_a_request_without_payload_takes_no_credit_of_bytes() -> None:
    own = new_session(bytes_max=512, request_bytes_max=512, depth_max=16, batch_max=16)
    asked = [
        operations.range_request(Op.DISCARD, 1, 0, 1 << 40),
        operations.allocate_request(1, 0, 1 << 40, keep_size=True),
        operations.range_request(Op.PREFETCH, 1, 5, 1 << 40),
        operations.range_request(Op.EXTENTS, 1, 0, operations.OFFSET_MAX),
        operations.truncate_request(1, 1 << 50),
        operations.write_zeroes_request(1, 0, wire.RANGE_BYTES_MAX, unmap=True, fua=True),
    ]
    for request in asked:
        own.add(request)
    rows = rows_of(own.messages_to_send(0.0))
    assert [(row[1], row[2], row[4], row[5]) for row in rows] == [
        (Op.DISCARD, 0, 0, 1 << 40),
        (Op.ALLOCATE, OpFlag.KEEP_SIZE, 0, 1 << 40),
        (Op.PREFETCH, 0, 5, 1 << 40),
        (Op.EXTENTS, 0, 0, operations.OFFSET_MAX),
        (Op.TRUNCATE, 0, 0, 1 << 50),
        (Op.WRITE_ZEROES, OpFlag.UNMAP | OpFlag.FUA, 0, wire.RANGE_BYTES_MAX),
    ]
    assert own.bytes_inflight == 0
    assert len(complete(own, *((row[0], 0, 0) for row in rows[:3]), *((row[0], 0, 0) for row in rows[4:]))) == 5


def test_long_zeroes_and_copies_are_sent_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "RANGE_BYTES_MAX", 1 << 20)
    own = new_session()
    zeroes = operations.write_zeroes_request(1, 10, 5 << 19)
    copy = operations.copy_range_request(1, 2, (1 << 32) - 7, 0, 3 << 20)
    own.add(zeroes)
    own.add(copy)
    rows: list[tuple[int, ...]] = []
    while more := rows_of(own.messages_to_send(0.0)):
        rows += more
    assert [(row[4], row[5]) for row in rows if row[1] == Op.WRITE_ZEROES] == [
        (10, 1 << 20),
        (10 + (1 << 20), 1 << 20),
        (10 + (2 << 20), 1 << 19),
    ]
    copies = [row for row in rows if row[1] == Op.COPY_RANGE]
    assert [row[7] for row in copies] == [2, 2, 2]
    assert [row[8] | row[9] << 32 for row in copies] == [(1 << 32) - 7 + part * (1 << 20) for part in range(3)]
    complete(own, *((row[0], 0, 0) for row in rows if row[1] == Op.WRITE_ZEROES))
    assert zeroes.outcome() == 0
    complete(own, (copies[0][0], 1 << 20, 0), (copies[2][0], 0, 0), (copies[1][0], 77, 0))
    assert copy.outcome() == (1 << 20) + 77  # the former end of the source


def test_the_source_of_a_copy_in_parts_is_not_closed_before_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "RANGE_BYTES_MAX", 1 << 20)
    own = new_session(depth_max=1, batch_max=1)
    copy = operations.copy_range_request(1, 2, 0, 0, 3 << 20)
    own.add(copy)
    own.add(Call(MessageType.CLOSE, 2, handle=2))
    sent: list[int] = []
    while not copy.done:
        messages = own.messages_to_send(0.0)
        sent += [wire.unpack(message[0])[0] for message in messages]
        complete(own, *((row[0], row[5], 0) for row in rows_of(messages)))
    sent += [wire.unpack(message[0])[0] for message in own.messages_to_send(0.0)]
    assert sent == [MessageType.SUBMIT] * 3 + [MessageType.CLOSE]


# ---- failures part-way


def test_the_error_of_a_write_says_how_many_bytes_were_written() -> None:
    own = new_session()
    request = operations.write_request(1, bytes(512), 0)
    own.add(request)
    ((cookie, *_),) = rows_of(own.messages_to_send(0.0))
    complete(own, (cookie, -errno.ENOSPC, 100), messages={0: "full"})
    with pytest.raises(OSError, match="full") as caught:
        request.outcome()
    assert caught.value.written == 100  # type: ignore[attr-defined]


def test_the_error_of_the_foremost_failed_part_is_that_of_the_request() -> None:
    own = new_session()  # 512 bytes a part
    request = operations.write_request(1, bytes(2048), 0)
    own.add(request)
    cookies = [row[0] for row in rows_of(own.messages_to_send(0.0))]
    assert len(cookies) == 4
    complete(own, (cookies[3], -errno.EIO, 10), (cookies[1], -errno.ENOSPC, 7), (cookies[2], 512, 0))
    assert not request.done
    complete(own, (cookies[0], 512, 0))
    assert isinstance(request.error, OSError)
    assert (request.error.errno, request.error.written) == (errno.ENOSPC, 519)  # type: ignore[attr-defined]


def test_a_long_request_that_cannot_be_split_fails_before_it_is_sent() -> None:
    own = new_session()
    requests = [operations.append_request(1, bytes(513)), operations.ioctl_request(1, 5, bytes(513))]
    for request in requests:
        own.add(request)
    assert own.messages_to_send(0.0) == []
    assert own.take_failed() == requests
    assert own.take_failed() == []
    for request in requests:
        with pytest.raises(OSError, match="at most 512 bytes") as caught:
            request.outcome()
        assert caught.value.errno == errno.EMSGSIZE


# ---- deadlines


def read(deadline_s: float) -> Request:
    request = operations.read_request(1, 10, 0)
    request.deadline_s = deadline_s
    return request


def test_a_deadline_is_sent_as_the_time_that_remains() -> None:
    own = new_session()
    for deadline_s in (1.2345, 10.0, 1e9, float("inf")):
        own.add(read(deadline_s))
    assert [row[6] for row in rows_of(own.messages_to_send(1.0))] == [235, 9000, (1 << 32) - 1, 0]


def test_a_request_past_its_deadline_is_never_sent() -> None:
    own = new_session(depth_max=1, batch_max=1)
    first, late, last = read(5.0), read(2.0), read(9.0)
    for request in (first, late, last):
        own.add(request)
    ((cookie, *_),) = rows_of(own.messages_to_send(0.0))
    complete(own, (cookie, 0, 0))
    assert len(rows_of(own.messages_to_send(3.0))) == 1
    assert own.take_failed() == [late]
    with pytest.raises(TimeoutError, match="not sent"):
        late.outcome()
    assert last.sent
    assert not last.done


def test_a_request_behind_a_late_one_is_sent_at_once() -> None:
    own = new_session()
    own.add(read(2.0))
    own.add(Call(MessageType.CLOSE, 1, handle=1))
    (message,) = own.messages_to_send(3.0)
    assert wire.unpack(message[0])[0] == MessageType.CLOSE


def test_a_watched_deadline_fails_the_request_without_a_waiting_thread() -> None:
    own = new_session(depth_max=1, batch_max=1)
    sent, waiting = read(1.0), read(1.5)
    for request in (sent, waiting):
        own.add(request)
        own.watch_deadline(request)
    assert len(rows_of(own.messages_to_send(0.0))) == 1
    assert own.next_tick_s() == 1.0
    assert own.tick(1.0) == []  # the daemon may still report the outcome
    assert own.next_tick_s() == 1.0 + GRACE_S
    assert own.tick(1.0 + GRACE_S) == [sent]
    with pytest.raises(TimeoutError, match="unknown whether done"):
        sent.outcome()
    assert own.tick(1.5) == [waiting]
    with pytest.raises(TimeoutError, match="not sent"):
        waiting.outcome()
    assert own.tick(1.6) == []


def test_deadlines_of_completed_requests_are_dropped() -> None:
    own = new_session(depth_max=8)
    for _ in range(2000):
        request = read(1e6)
        own.add(request)
        own.watch_deadline(request)
        ((cookie, *_),) = rows_of(own.messages_to_send(0.0))
        complete(own, (cookie, 0, 0))
    assert len(own._deadlines._heap) < 200


# ---- cancelling


def test_a_cancelled_request_stays_in_flight_until_its_completion() -> None:
    own = new_session()
    request = operations.whole_request(Op.FLUSH, 1)
    own.add(request)
    ((cookie, *_),) = rows_of(own.messages_to_send(0.0))
    request.cancelling = True
    own.cancel(request)
    (message,) = own.messages_to_send(0.0)
    assert wire.unpack(message[0]) == [MessageType.CANCEL, TOKEN, None, [cookie]]
    assert own.depth == 1
    assert complete(own, (cookie, -errno.ECANCELED, 0)) == [request]
    assert request.cancelled


# ---- results with a payload


def test_abandoning_thousands_of_parts_takes_several_messages() -> None:
    own = new_session(depth_max=30_000, batch_max=256)
    zeroes = operations.write_zeroes_request(1, 0, 1 << 60)
    own.add(zeroes)
    sent: set[int] = set()
    while more := rows_of(own.messages_to_send(0.0)):
        sent |= {row[0] for row in more}
    own.abandon(zeroes, TimeoutError())
    cancelled: list[int] = []
    for (header,) in own.messages_to_send(0.0):
        kind, _, answer, cookies = wire.unpack(header)  # WireError: too long for the daemon
        assert (kind, answer) == (MessageType.CANCEL, None)
        cancelled += cookies
    assert len(cancelled) == len(sent) == 30_000
    assert set(cancelled) == sent


def test_payloads_of_completions_become_results() -> None:
    own = new_session()
    stat, extents, ioctl = (
        operations.whole_request(Op.STAT, 1),
        operations.range_request(Op.EXTENTS, 1, 4096, 12288),
        operations.ioctl_request(1, 5, b"arg"),
    )
    for request in (stat, extents, ioctl):
        own.add(request)
    rows = rows_of(own.messages_to_send(0.0))
    numbers = tuple(range(1, 14))
    payload = wire.STAT.pack(*numbers) + wire.EXTENT.pack(8192, 0) + wire.EXTENT.pack(4096, 1)
    payload += (-3).to_bytes(8, "little", signed=True) + b"ARG"
    records = [(rows[0][0], 80, 0), (rows[1][0], 32, 80), (rows[2][0], 11, 112)]
    packed = b"".join(COMPLETION.pack(cookie, result, 0, start, 0, 0) for cookie, result, start in records)
    own.receive([wire.pack(MessageType.COMPLETE, packed, {}), payload])
    assert stat.outcome() == numbers
    assert extents.outcome() == [(4096, 8192, False), (12288, 4096, True)]
    assert ioctl.outcome() == (-3, b"ARG")


@pytest.mark.parametrize("result", [1, 79, 81])
def test_a_payload_of_the_wrong_size_breaks_the_protocol(result: int) -> None:
    own = new_session()
    own.add(operations.whole_request(Op.STAT, 1))
    ((cookie, *_),) = rows_of(own.messages_to_send(0.0))
    packed = COMPLETION.pack(cookie, result, 0, 0, 0, 0)
    own.receive([wire.pack(MessageType.COMPLETE, packed, {}), bytes(100)])
    assert own.ended is not None
    assert own.ended.errno == errno.EPROTO


# ---- errors


def test_every_failed_request_says_how_many_bytes_are_written() -> None:
    own = new_session()
    requests = [operations.write_request(1, b"x", 0), operations.append_request(1, bytes(513))]
    for request in requests:
        own.add(request)
    own.messages_to_send(0.0)
    requests += own.lose("gone")  # type: ignore[arg-type]
    late = operations.whole_request(Op.SIZE, 1)
    new_session().abandon(late, TimeoutError())
    for request in [*requests, late]:
        assert isinstance(request.error, OSError)
        assert request.error.written == 0  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="gone") as caught:
        own.add(operations.whole_request(Op.SIZE, 1))
    assert caught.value.written == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(("done", "written"), [([], 0), ([1], 512), ([2], 0), ([1, 2], 1024), ([3, 1], 512)])
def test_a_lost_write_in_parts_counts_the_bytes_done_up_to_the_first_gap(done: list[int], written: int) -> None:
    own = new_session()
    write = operations.write_request(1, bytes(2048), 0)
    own.add(write)
    own.messages_to_send(0.0)
    complete(own, *((cookie, 512, 0) for cookie in done))
    own.lose("gone")
    assert isinstance(write.error, OSError)
    assert write.error.written == written  # type: ignore[attr-defined]


def test_a_request_refused_before_it_is_sent_is_returned_although_the_session_ends_first() -> None:
    own = new_session()
    long = operations.append_request(1, bytes(513))
    own.add(long)
    assert own.lose("gone") == [long]
    assert isinstance(long.error, OSError)
    assert long.error.errno == errno.EMSGSIZE


@pytest.mark.parametrize(("source_offset", "offset"), [(0, 1 << 30), (3 << 30, 1 << 30), (5, 5)])
def test_a_long_copy_of_overlapping_ranges_of_one_file_raises(source_offset: int, offset: int) -> None:
    """No part of it overlaps itself, but one part would read what another has written."""
    with pytest.raises(OSError, match="overlap") as caught:
        operations.copy_range_request(1, 1, source_offset, offset, 5 << 29)
    assert caught.value.errno == errno.EINVAL
    assert operations.copy_range_request(1, 2, source_offset, offset, 5 << 29).length == 5 << 29
    assert operations.copy_range_request(1, 1, 0, 5 << 29, 5 << 29).length == 5 << 29


def test_payloads_of_their_own_never_fill_more_frames_than_a_message_has() -> None:
    own = new_session(depth_max=4096, batch_max=4096, bytes_max=1 << 30, request_bytes_max=4 << 20)
    for number in range(2000):
        own.add(operations.write_request(1, bytes(65536), 0))
        if number % 50 == 0:
            own.add(operations.writev_request(1, [bytes(65536), b"x"] * 30, 0))
    messages = own.messages_to_send(0.0)
    assert own.depth == 2040
    assert max(len(message) - 1 for message in messages) <= wire.FRAMES_MAX


def test_deadlines_of_one_batch_may_differ() -> None:
    own = new_session(depth_max=64, batch_max=64)
    deadlines = [1.5, 1.5, float("inf"), 1.5, 3.0, float("inf")]
    for deadline_s in deadlines:
        own.add(read(deadline_s))
    assert [row[6] for row in rows_of(own.messages_to_send(1.0))] == [500, 500, 0, 500, 2000, 0]


@pytest.mark.parametrize(("request_", "data"), [
    (operations.ioctl_request(1, 5, b"1234"), b"x"),
    (operations.ioctl_request(1, 5, b"1234"), bytes(11)),
    (operations.range_request(Op.EXTENTS, 1, 0, 1 << 40), bytes(16) * (wire.EXTENTS_MAX + 1)),
])  # fmt: skip
def test_an_answer_that_the_request_cannot_have_breaks_the_protocol(request_: Request, data: bytes) -> None:
    own = new_session()
    own.add(request_)
    own.messages_to_send(0.0)
    records = COMPLETION.pack(1, len(data), 0, 0, 0, 0)
    assert own.receive([wire.pack(MessageType.COMPLETE, records, {}), data]) == [request_]
    assert isinstance(own.ended, ProtocolError)
