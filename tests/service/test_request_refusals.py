"""Refused requests: the right errno and message; the rest of the batch is done, and the session continues."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_protocol.operations import Op
from aiod_protocol.wire import SUBMISSION, MessageType
from tests.service.records import record

if TYPE_CHECKING:
    from collections.abc import Callable

INT64_MAX = 2**63 - 1


def test_each_wrong_record_gets_its_errno(raw: Any) -> None:
    handle = raw.handle("records")
    assert raw.submit(record(0, Op.WRITE, handle, 0, 5), payloads=[b"right"]) == {0: (5, "")}
    done = raw.submit(
        record(1, Op.READ, handle, 2**63, 1),
        record(2, Op.READ, handle, INT64_MAX, 1),
        record(3, Op.READ, handle, 0, 4 * 2**20 + 1),
        record(4, Op.READ, handle, 0, 2**64 - 1),
        record(5, Op.READ, handle + 1, 0, 1),
        record(6, 77, handle, 0, 1),
        record(7, Op.READ, handle, 0, 1, flags=1),
        record(8, Op.READ, handle, 0, 1, reserved=1),
        record(9, Op.FLUSH, handle, 0, 1),
        record(10, Op.READ, handle, 0, 5),
        record(11, Op.READ, handle, 5, 10),
        record(12, Op.READ, handle, 10**12, 10),
        record(13, Op.READ, handle, 0, 0),
        record(14, Op.WRITE, handle, 3, 0),
    )
    results = {cookie: result for cookie, (result, _) in done.items()}
    assert results == {
        **dict.fromkeys((1, 2, 4, 6, 7, 8, 9), -errno.EINVAL),
        3: -errno.EMSGSIZE,
        5: -errno.EBADF,
        10: 5,
        **dict.fromkeys((11, 12, 13, 14), 0),
    }
    for cookie, (result, text) in done.items():
        assert (errno.errorcode[-result] in text) if result < 0 else not text, cookie
    assert "split it" in done[3][1]


def test_requests_with_closed_read_only_or_foreign_handles_are_refused(
    raw: Any, connect: Callable[[str], Any], engine_endpoint: str
) -> None:
    handle = raw.handle("handles")
    reading, writing = raw.handle("handles", 1), raw.handle("handles", 2)
    other = connect(engine_endpoint)
    other.hello()
    assert other.submit(record(1, Op.READ, handle, 0, 1))[1][0] == -errno.EBADF
    assert other.ask(MessageType.CLOSE, other.token, 2, handle)[2] == -errno.EBADF
    assert raw.submit(record(1, Op.WRITE, reading, 0, 1), payloads=[b"x"])[1][0] == -errno.EBADF
    assert raw.submit(record(1, Op.READ, writing, 0, 1))[1][0] == -errno.EBADF
    assert raw.ask(MessageType.CLOSE, raw.token, 2, handle)[2] == 0
    assert raw.submit(record(1, Op.READ, handle, 0, 1))[1][0] == -errno.EBADF
    assert raw.ask(MessageType.CLOSE, raw.token, 2, handle)[2] == -errno.EBADF
    assert raw.ask(MessageType.CLOSE, raw.token, 2, 2**40)[2] == -errno.EBADF
    assert raw.submit(record(1, Op.SIZE, reading))[1][0] == 0


def test_a_session_token_is_valid_for_its_uid_only_and_unknown_tokens_are_refused(raw: Any) -> None:
    kind, number, text, _ = raw.ask(MessageType.HEARTBEAT, b"\0" * 16)
    assert (kind, number) == (MessageType.REFUSAL, errno.ENOTCONN)
    assert "connect again" in text
    assert raw.ask(MessageType.HEARTBEAT, raw.token) == [MessageType.HEARTBEAT]


def test_requests_above_the_credit_get_eagain_and_are_not_executed(
    connect: Callable[[str], Any], engine_endpoint: str
) -> None:
    """Requests within the credit are executed."""
    raw = connect(engine_endpoint)
    depth = raw.hello()["depth_max"]
    handle = raw.handle("credit")
    raw.submit(record(0, Op.WRITE, handle, 0, 4), payloads=[b"data"])
    raw.received -= 1  # as if the completion had not been seen: one request of the credit is used up
    done = raw.submit(*(record(cookie, Op.READ, handle, 0, 4) for cookie in range(depth)))
    assert [cookie for cookie, (result, _) in done.items() if result == -errno.EAGAIN] == [depth - 1]
    assert sum(result == 4 for result, _ in done.values()) == depth - 1
    raw.received += 1
    assert raw.submit(record(9, Op.READ, handle, 0, 4))[9] == (4, "")


def test_far_above_the_credit_ends_the_session(connect: Callable[[str], Any], engine_endpoint: str) -> None:
    raw = connect(engine_endpoint)
    raw.hello()
    handle = raw.handle("credit")
    batch = [record(cookie, Op.READ, handle, 0, 4) for cookie in range(256)]
    raw.submit(*batch)
    raw.received = 0
    raw.submit(*batch)
    raw.received = 0
    packed = b"".join(SUBMISSION.pack(*each) for each in batch)
    kind, number, text, _ = raw.ask(MessageType.SUBMIT, raw.token, 0, packed)
    assert (kind, number) == (MessageType.REFUSAL, errno.EPROTO)
    assert "over twice the credit" in text
    assert raw.ask(MessageType.HEARTBEAT, raw.token)[1] == errno.ENOTCONN


def test_a_request_whose_deadline_passes_in_the_queue_is_not_executed(
    new_daemon: Callable[..., Any], connect: Callable[[str], Any], locate: Callable[[str], str]
) -> None:
    """There is one worker, and it is busy."""
    daemon = new_daemon(**{"engine.main": {"max_threads": 1}})
    daemon.start()
    raw = connect(locate(daemon.endpoint))
    raw.hello()
    handle = raw.handle("busy")
    payload = bytes(4 * 2**20)
    writes = [record(cookie, Op.WRITE, handle, cookie * len(payload), len(payload), frame=0) for cookie in range(6)]
    flushes = [record(cookie, Op.FLUSH, handle) for cookie in range(10, 20)]
    late = record(99, Op.WRITE, handle, 0, 1, deadline_ms=1, frame=0)
    done = raw.submit(*writes, *flushes, late, payloads=[payload])
    assert done[99][0] == -errno.ETIMEDOUT
    assert "not executed" in done[99][1]
    assert all(done[cookie][0] == len(payload) for cookie in range(6))


def test_cancel_ends_queued_requests(
    new_daemon: Callable[..., Any], connect: Callable[[str], Any], locate: Callable[[str], str]
) -> None:
    daemon = new_daemon(**{"engine.main": {"max_threads": 1}})
    daemon.start()
    raw = connect(locate(daemon.endpoint))
    raw.hello()
    handle = raw.handle("busy")
    payload = bytes(4 * 2**20)
    records = [record(cookie, Op.WRITE, handle, cookie * len(payload), len(payload)) for cookie in range(7)]
    packed = b"".join(SUBMISSION.pack(*each) for each in records)
    raw.send(MessageType.SUBMIT, raw.token, 0, packed, payloads=[payload])
    raw.send(MessageType.CANCEL, raw.token, 77, [*range(7), 12345])
    results = [result for result, _ in raw.completions(7).values()]
    assert set(results) <= {-errno.ECANCELED, len(payload)}
    cookie, ended, *_ = raw.replies.pop() if raw.replies else raw.answer()[1:]
    assert (cookie, ended) == (77, results.count(-errno.ECANCELED))
    assert ended > 0
    raw.send(MessageType.CANCEL, raw.token, None, [*range(7)])  # unanswered
    assert raw.submit(record(50, Op.SIZE, handle))[50][0] >= 0


def test_the_client_library_raises_the_same_errors(shared_daemon: Any) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client, client.open("scratch/library", "w+") as file:
        for wrong in (lambda: file.pread(-1, 0), lambda: file.pread(1, -1), lambda: file.pwrite(b"x", 2**63)):
            with pytest.raises(OSError, match="bytes at") as caught:
                wrong()
            assert caught.value.errno == errno.EINVAL
        assert file.pwrite(b"still", 0) == 5
