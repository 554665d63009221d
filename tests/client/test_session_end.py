"""A session that ends or falls silent, and requests that are given up: their errors, and what is still sent."""

from __future__ import annotations

import errno

import pytest

from aiod_client.errors import AiodError, SessionLostError
from aiod_client.operations import read_into_request, read_request, write_request
from aiod_client.requests.pending import Call, Request
from aiod_client.session.handshake import Welcome
from aiod_client.session.session import Session
from aiod_protocol import wire
from aiod_protocol.wire import COMPLETION, MessageType

TOKEN = bytes(range(16))


@pytest.fixture
def session() -> Session:
    """Depth 2, parts of 100 bytes."""
    return Session(Welcome(TOKEN, "main", 2, 1000, 100, 2, 2.0, 30.0), 0.0)


def sent(session: Session, now_s: float = 0.0) -> list[int]:
    """Types of the messages that the session has to send."""
    return [wire.unpack(message[0])[0] for message in session.messages_to_send(now_s)]


def reads(session: Session, count: int) -> list[Request]:
    """Add `count` reads, and send as many as the credit allows; returns them."""
    made = [read_request(1, 10, number) for number in range(count)]
    for request in made:
        session.add(request)
    session.messages_to_send(0.0)
    return made


def complete(cookie: int, data: bytes) -> list[bytes]:
    """COMPLETE of one read."""
    return [wire.pack(MessageType.COMPLETE, COMPLETION.pack(cookie, len(data), 0, 0, 0, 0), {}), data]


def test_errors_of_a_lost_session_say_which_requests_had_been_sent(session: Session) -> None:
    requests = reads(session, 3)
    assert session.lose("gone") == requests
    for request, word in zip(requests, ("unknown whether done", "unknown whether done", "not sent"), strict=True):
        with pytest.raises(SessionLostError, match=word) as caught:
            request.outcome()
        assert caught.value.errno == errno.ECONNRESET
    assert session.pending == 0
    assert session.lose("again") == []


def test_the_outcome_of_a_request_with_one_part_sent_is_unknown(session: Session) -> None:
    write = write_request(1, bytes(500), 0)
    session.add(write)
    session.messages_to_send(0.0)
    assert session.lose("gone") == [write]
    with pytest.raises(SessionLostError, match="unknown whether done"):
        write.outcome()


def test_an_ended_session_accepts_no_request(session: Session) -> None:
    session.lose("gone")
    with pytest.raises(SessionLostError, match="not sent: gone"):
        session.add(read_request(1, 1, 0))
    assert session.messages_to_send(0.0) == []
    assert session.receive(complete(1, b"x")) == []
    assert session.goodbye(0.0) == []


def test_a_refusal_ends_the_session(session: Session) -> None:
    requests = reads(session, 1)
    assert session.receive([wire.pack(MessageType.REFUSAL, errno.ENOTCONN, "never heard of you", {})]) == requests
    with pytest.raises(SessionLostError, match="never heard of you"):
        requests[0].outcome()


def test_requests_completed_before_an_invalid_record_have_their_results(session: Session) -> None:
    first, second = reads(session, 2)
    records = COMPLETION.pack(1, 3, 0, 0, 0, 0) + COMPLETION.pack(2, 3, 9, 0, 0, 0)
    assert session.receive([wire.pack(MessageType.COMPLETE, records, {}), b"abc"]) == [first, second]
    assert first.outcome() == b"abc"
    with pytest.raises(AiodError) as caught:
        second.outcome()
    assert caught.value.errno == errno.EPROTO


def test_abandoning_an_unsent_request_drops_it(session: Session) -> None:
    requests = reads(session, 4)
    assert session.abandon(requests[3], TimeoutError()) is False
    assert sent(session) == []
    session.receive(complete(1, b"a"))
    session.receive(complete(2, b"b"))
    assert sent(session) == [MessageType.SUBMIT]
    assert session.pending == 1  # requests[2]


def test_abandoning_a_sent_request_cancels_it_and_keeps_its_credit(session: Session) -> None:
    buffer = bytearray(10)
    request = read_into_request(1, buffer, 0)
    session.add(request)
    session.messages_to_send(0.0)
    assert session.abandon(request, TimeoutError("mine")) is True
    (message,) = session.messages_to_send(0.0)
    assert wire.unpack(message[0]) == [MessageType.CANCEL, TOKEN, None, [1]]
    assert (session.depth, session.bytes_inflight) == (1, 10)
    assert session.receive(complete(1, b"late bytes")) == []
    assert buffer == bytes(10)
    assert (session.depth, session.bytes_inflight) == (0, 0)
    with pytest.raises(TimeoutError, match="mine"):
        request.outcome()


def test_abandoning_a_request_in_parts_cancels_the_sent_parts_and_sends_no_more(session: Session) -> None:
    request = read_request(1, 1000, 0)
    session.add(request)
    session.messages_to_send(0.0)
    session.abandon(request, TimeoutError())
    (message,) = session.messages_to_send(0.0)
    assert wire.unpack(message[0]) == [MessageType.CANCEL, TOKEN, None, [1, 2]]
    session.receive(complete(1, bytes(100)))
    session.receive([wire.pack(MessageType.COMPLETE, COMPLETION.pack(2, -errno.ECANCELED, 0, 0, 0, 0), {})])
    assert session.pending == 0
    assert sent(session) == []


def test_abandoning_a_request_that_is_done_changes_nothing(session: Session) -> None:
    (request,) = reads(session, 1)
    session.receive(complete(1, b"done"))
    session.abandon(request, TimeoutError())
    assert request.outcome() == b"done"
    assert sent(session) == []


def test_the_handle_of_an_abandoned_open_is_closed_when_the_answer_comes(session: Session) -> None:
    call = Call(MessageType.OPEN, "scratch", "x", 1, 0)
    session.add(call)
    session.messages_to_send(0.0)
    session.abandon(call, TimeoutError())
    assert session.receive([wire.pack(MessageType.REPLY, call.cookie, 5, None, {"size": 0})]) == []
    (message,) = session.messages_to_send(0.0)
    header = wire.unpack(message[0])
    assert (header[0], header[3]) == (MessageType.CLOSE, 5)


def test_a_close_abandoned_before_it_is_sent_is_sent_nevertheless(session: Session) -> None:
    reads(session, 3)  # one above the credit
    close = Call(MessageType.CLOSE, 1, handle=1)
    session.add(close)
    assert sent(session) == []
    assert session.abandon(close, TimeoutError()) is True
    assert session.abandon(close, TimeoutError()) is False  # it is done already
    session.receive(complete(1, b"a"))
    session.receive(complete(2, b"b"))
    assert sent(session) == [MessageType.SUBMIT, MessageType.CLOSE]
    assert session.receive([wire.pack(MessageType.REPLY, close.cookie, 0, None, {})]) == []
    session.receive(complete(3, b"c"))
    assert session.pending == 0


def test_abandoning_a_request_that_was_never_added_changes_nothing(session: Session) -> None:
    requests = reads(session, 3)
    late = read_request(1, 1, 0)
    assert session.abandon(late, TimeoutError("mine")) is False
    assert late.done
    assert session.pending == len(requests)
    assert sent(session) == []


def test_heartbeats_are_sent_when_nothing_else_is(session: Session) -> None:
    assert session.next_tick_s() == 2.0
    session.tick(1.9)
    assert sent(session, 1.9) == []
    reads(session, 1)  # at 0.0
    session.receive(complete(1, b"a"))
    session.add(read_request(1, 1, 0))
    assert sent(session, 1.5) == [MessageType.SUBMIT]
    session.tick(3.4)
    assert sent(session, 3.4) == []
    session.tick(3.5)
    assert sent(session, 3.5) == [MessageType.HEARTBEAT]
    assert session.next_tick_s() == 5.5


def test_heartbeats_are_sent_to_a_daemon_that_does_not_answer_whatever_else_is_sent(session: Session) -> None:
    (request,) = reads(session, 1)  # at 0.0
    session.abandon(request, TimeoutError())
    assert sent(session, 1.5) == [MessageType.CANCEL]
    assert session.next_tick_s() == 2.0
    session.tick(2.0)
    assert sent(session, 2.0) == [MessageType.HEARTBEAT]
    assert session.next_tick_s() == 4.0


def test_a_silent_daemon_is_noticed_although_requests_and_cancels_are_sent(session: Session) -> None:
    now_s = 0.0
    while session.ended is None:
        assert now_s < 40
        request = read_request(1, 1, 0)
        session.add(request)
        session.messages_to_send(now_s)
        now_s += 1.0
        session.abandon(request, TimeoutError())
        session.messages_to_send(now_s)
        session.tick(now_s)
        session.messages_to_send(now_s)
    assert now_s == 32
    assert "silent for 32 s" in str(session.ended)


def test_hanging_requests_do_not_end_the_session_while_heartbeats_are_answered(session: Session) -> None:
    for now_s in range(300):
        request = read_request(1, 1, 0)
        session.add(request)
        session.messages_to_send(now_s)
        session.abandon(request, TimeoutError())
        assert session.tick(now_s) == []
        if MessageType.HEARTBEAT in sent(session, now_s):
            session.receive([wire.pack(MessageType.HEARTBEAT)])
    assert session.ended is None


def test_silence_without_a_heartbeat_does_not_end_the_session(session: Session) -> None:
    (request,) = reads(session, 1)  # then this process is stopped for a while
    assert session.tick(100.0) == []
    assert sent(session, 100.0) == [MessageType.HEARTBEAT]
    assert session.tick(102.0) == [request]


def test_silence_after_a_heartbeat_ends_the_session(session: Session) -> None:
    (request,) = reads(session, 1)
    now_s = 2.0
    while not (done := session.tick(now_s)):
        assert now_s < 40
        assert sent(session, now_s) == [MessageType.HEARTBEAT]
        now_s += 2.0
    assert done == [request]
    assert now_s > 30
    with pytest.raises(SessionLostError, match="silent for 32 s"):
        request.outcome()


def test_any_message_ends_the_silence(session: Session) -> None:
    for now_s in range(2, 200, 2):
        assert session.tick(now_s) == []
        assert sent(session, now_s) == [MessageType.HEARTBEAT]
        if now_s % 20 == 0:
            session.receive([wire.pack(MessageType.HEARTBEAT)])
    assert session.ended is None
