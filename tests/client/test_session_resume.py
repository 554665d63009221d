"""A session that continues with another engine: which requests are sent again, when, and which fail."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from aiod_client import operations
from aiod_client.errors import AiodError
from aiod_client.requests.pending import Call, Pending, Request
from aiod_client.session.handshake import ShutdownNotice, Terms, Welcome, resume_session
from aiod_client.session.session import Session
from aiod_protocol import wire
from aiod_protocol.operations import Op
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import COMPLETION, SUBMISSION, MessageType

REPEAT = 0x8000
FILE = 17


LIMITS: dict[str, Any] = {
    "depth_max": 8,
    "bytes_max": 1 << 20,
    "request_bytes_max": 1 << 16,
    "batch_max": 8,
    "heartbeat_s": 2.0,
    "session_timeout_s": 30.0,
}


def welcome(**more: Any) -> Welcome:
    return Welcome(**{"token": b"t" * 16, "engine": "main"} | LIMITS | more)


def reply(call: Call, result: int, body: Any = None) -> list[bytes]:
    return [wire.pack(MessageType.REPLY, call.cookie, result, None, body)]


@pytest.fixture
def session() -> Session:
    """A session that has opened a file, with the handle FILE."""
    made = Session(welcome(), 0.0)
    made.resumable = True
    call = Call(MessageType.OPEN, "scratch", "file", 7, 0o644)
    made.add(call)
    made.messages_to_send(0.0)
    made.receive(reply(call, FILE, {"size": 0, "file": [1, 2, 3]}))
    return made


def records(messages: list[Any]) -> list[tuple[int, ...]]:
    """(op, flags, offset) of every record submitted by `messages`."""
    found: list[tuple[int, ...]] = []
    for message in messages:
        header = wire.unpack(message[0])
        if header[0] == MessageType.SUBMIT:
            found += [(op, flags, offset) for _, op, flags, _, offset, *_ in SUBMISSION.iter_unpack(header[3])]
    return found


def kinds(messages: list[Any]) -> list[int]:
    return [wire.unpack(message[0])[0] for message in messages]


def complete(session: Session, *requests: Request, result: int = 4) -> list[Pending]:
    packed = b"".join(COMPLETION.pack(request.cookie, result, 0, 0, 0, 0) for request in requests)
    return session.receive([wire.pack(MessageType.COMPLETE, packed, {})])


def write(offset: int) -> Request:
    return operations.write_request(FILE, b"data", offset, fua=False)


def test_unanswered_writes_are_replayed_before_new_requests_are_sent(session: Session) -> None:
    sent, waiting = [write(0), operations.read_request(FILE, 4, 100), write(4)], write(8)
    for request in sent:
        session.add(request)
    assert records(session.messages_to_send(0.0)) == [(Op.WRITE, 0, 0), (Op.READ, 0, 100), (Op.WRITE, 0, 4)]
    session.add(waiting)
    assert session.interrupt("gone") == []
    assert session.messages_to_send(0.1) == []
    session.add(write(12))
    assert session.messages_to_send(0.1) == []

    assert session.resume(welcome(grace=True), 1.0, {}) == []
    assert [session.sends_new] == [False]
    assert records(session.messages_to_send(1.0)) == [(Op.WRITE, REPEAT, 0), (Op.WRITE, REPEAT, 4)]
    assert session.messages_to_send(1.0) == []
    assert complete(session, sent[0]) == [sent[0]]
    assert session.messages_to_send(1.0) == []
    assert complete(session, sent[2]) == [sent[2]]
    assert kinds(session.messages_to_send(1.0)) == [MessageType.REPEATED]
    assert session.messages_to_send(1.0) == []
    session.receive([wire.pack(MessageType.GO)])
    assert session.sends_new
    assert records(session.messages_to_send(1.0)) == [(Op.READ, 0, 100), (Op.WRITE, 0, 8), (Op.WRITE, 0, 12)]


def test_without_a_grace_period_replays_and_new_requests_are_sent_at_once(session: Session) -> None:
    request = write(0)
    session.add(request)
    session.messages_to_send(0.0)
    session.interrupt("gone")
    session.add(operations.read_request(FILE, 4, 0))
    session.resume(welcome(), 1.0, {})
    assert records(session.messages_to_send(1.0)) == [(Op.WRITE, REPEAT, 0), (Op.READ, 0, 0)]


@pytest.mark.parametrize(
    "request_",
    [
        operations.append_request(FILE, b"data"),
        operations.truncate_request(FILE, 10),
        operations.allocate_request(FILE, 0, 10, keep_size=False),
        operations.ioctl_request(FILE, 1, b"1234"),
        operations.copy_range_request(FILE, FILE, 0, 1 << 20, 10),
    ],
    ids=["append", "truncate", "allocate", "ioctl", "copy within a file"],
)
def test_an_unanswered_request_that_must_not_be_repeated_fails_with_eio(session: Session, request_: Request) -> None:
    session.add(request_)
    session.messages_to_send(0.0)
    assert session.interrupt("gone") == [request_]
    assert isinstance(request_.error, OSError)
    assert request_.error.errno == errno.EIO
    assert "unknown whether done" in str(request_.error)


def test_an_operation_that_no_table_lists_is_not_sent_again(session: Session) -> None:
    request = Request(99, FILE, 0, 0, None, 0)
    session.add(request)
    session.messages_to_send(0.0)
    assert session.interrupt("gone") == [request]
    assert "unknown whether done" in str(request.error)


def test_an_operation_that_no_table_lists_leaves_the_file_changed(session: Session) -> None:
    request = Request(99, FILE, 0, 0, None, 0)
    session.add(request)
    session.messages_to_send(0.0)
    assert complete(session, request, result=0) == [request]
    assert session.files[FILE].changed


def test_an_unsent_append_is_sent_to_the_next_engine_without_repeat(session: Session) -> None:
    session.interrupt("gone")
    request = operations.append_request(FILE, b"data")
    session.add(request)
    session.resume(welcome(), 1.0, {})
    assert records(session.messages_to_send(1.0)) == [(Op.APPEND, 0, 0)]


def test_a_long_write_is_replayed_from_its_beginning(session: Session) -> None:
    request = operations.write_request(FILE, bytes(3 << 16), 0, fua=False)
    session.add(request)
    first = records(session.messages_to_send(0.0))
    assert len(first) == 3
    cookie = session.in_flight.cookie - 2
    session.receive([wire.pack(MessageType.COMPLETE, COMPLETION.pack(cookie, 1 << 16, 0, 0, 0, 0), {})])
    session.interrupt("gone")
    session.resume(welcome(grace=True), 1.0, {})
    assert records(session.messages_to_send(1.0)) == [(Op.WRITE, REPEAT, offset << 16) for offset in range(3)]
    packed = b"".join(COMPLETION.pack(session.in_flight.cookie - left, 1 << 16, 0, 0, 0, 0) for left in (2, 1, 0))
    assert session.receive([wire.pack(MessageType.COMPLETE, packed, {})]) == [request]
    assert request.outcome() == 3 << 16


def test_calls_are_sent_again_unless_they_must_not_be_repeated(session: Session) -> None:
    plain = Call(MessageType.OPEN, "scratch", "other", 1, 0)
    truncating = Call(MessageType.OPEN, "scratch", "other", 2 | 16, 0)
    listing = Call(MessageType.NAME, "list", "scratch", "", {"cursor": 0})
    removing = Call(MessageType.NAME, "remove", "scratch", "other", {})
    for call in (plain, truncating, listing, removing):
        session.add(call)
    session.messages_to_send(0.0)
    assert set(session.interrupt("gone")) == {truncating, removing}
    session.resume(welcome(), 1.0, {})
    assert kinds(session.messages_to_send(1.0)) == [
        MessageType.NAME,
        MessageType.OPEN,
    ]  # calls go first, the last one before the others
    assert not plain.done
    assert not listing.done


def test_a_file_counts_as_changed_until_a_flush_covers_its_writes(session: Session) -> None:
    file = session.files[FILE]
    one, two, flush = write(0), write(4), operations.whole_request(Op.FLUSH, FILE)
    session.add(one)
    session.messages_to_send(0.0)
    complete(session, one)
    assert file.changed
    session.add(two)
    session.add(flush)
    session.messages_to_send(0.0)
    complete(session, two)
    complete(session, flush, result=0)
    assert file.changed  # the flush was submitted before the second write had completed
    again = operations.whole_request(Op.FLUSH, FILE)
    session.add(again)
    session.messages_to_send(0.0)
    complete(session, again, result=0)
    assert not file.changed


def test_requests_of_a_file_that_could_not_be_reopened_fail(session: Session) -> None:
    request = write(0)
    session.add(request)
    session.messages_to_send(0.0)
    session.interrupt("gone")
    stale = OSError(errno.ESTALE, "another file has this name now")
    assert session.resume(welcome(grace=True), 1.0, {FILE: stale}) == [request]
    assert "unknown whether done" in str(request.error)
    with pytest.raises(OSError, match="another file") as caught:
        session.add(write(4))
    assert caught.value.errno == errno.ESTALE
    assert kinds(session.messages_to_send(1.0)) == [MessageType.REPEATED]


def test_a_request_abandoned_while_suspended_is_not_sent_again(session: Session) -> None:
    request, other = write(0), write(4)
    session.add(request)
    session.add(other)
    session.messages_to_send(0.0)
    session.interrupt("gone")
    assert session.abandon(request, TimeoutError())
    session.resume(welcome(grace=True), 1.0, {})
    assert records(session.messages_to_send(1.0)) == [(Op.WRITE, REPEAT, 4)]


@pytest.mark.parametrize(("code", "details", "continues"), [
    (errno.ESHUTDOWN, {}, True), (errno.ESHUTDOWN, {"final": True}, False), (errno.ENOTCONN, {}, True),
    (errno.EPROTO, {}, False), (errno.EAGAIN, {}, False),
])  # fmt: skip
def test_a_refusal_suspends_or_ends_the_session_by_its_errno(
    session: Session, code: int, details: dict[str, Any], *, continues: bool
) -> None:
    session.receive([wire.pack(MessageType.REFUSAL, code, "why", details)])
    assert (session.suspended is not None) == continues
    assert (session.ended is None) == continues


def test_a_second_engine_death_during_the_replay_replays_everything_again(session: Session) -> None:
    sent = [write(0), write(4)]
    for request in sent:
        session.add(request)
    session.messages_to_send(0.0)
    session.interrupt("gone")
    session.resume(welcome(grace=True, depth_max=1), 1.0, {})
    assert records(session.messages_to_send(1.0)) == [(Op.WRITE, REPEAT, 0)]
    assert session.interrupt("gone again") == []
    session.resume(welcome(grace=True), 2.0, {})
    assert records(session.messages_to_send(2.0)) == [(Op.WRITE, REPEAT, 0), (Op.WRITE, REPEAT, 4)]


STOPPING = "write on scratch/file: the daemon is stopping; it was not executed (ESHUTDOWN)"
REWORDED = "reworded"


def refuse(
    session: Session, *requests: Request, reason: int = Reason.STOPPING, message: str | None = REWORDED
) -> list[Pending]:
    """Complete `requests` as a stopping daemon does."""
    packed = b"".join(COMPLETION.pack(request.cookie, -errno.ESHUTDOWN, 0, 0, 0, reason) for request in requests)
    messages = {} if message is None else dict.fromkeys(range(len(requests)), message)
    return session.receive([wire.pack(MessageType.COMPLETE, packed, messages)])


@pytest.mark.parametrize("message", [STOPPING, REWORDED, "", None])
def test_requests_refused_by_a_stopping_daemon_are_sent_to_the_next_one_whatever_the_message_says(
    session: Session, message: str | None
) -> None:
    appended, read = operations.append_request(FILE, b"data"), operations.read_request(FILE, 4, 0)
    session.add(appended)
    session.add(read)
    session.messages_to_send(0.0)
    assert refuse(session, appended, read, message=message) == []
    assert session.pending == 2
    session.receive([wire.pack(*wire.refusal(errno.ESHUTDOWN, REWORDED, Reason.STOPPING))])
    session.resume(welcome(), 1.0, {})
    assert records(session.messages_to_send(1.0)) == [(Op.APPEND, 0, 0), (Op.READ, 0, 0)]
    assert complete(session, appended, result=0) == [appended]


def test_a_request_that_the_ring_refuses_after_the_suspension_is_sent_to_the_next_engine(session: Session) -> None:
    request = write(0)
    request.sent = True
    session.interrupt("gone")
    session.put_off(request)
    session.resume(welcome(), 1.0, {})
    assert records(session.messages_to_send(1.0)) == [(Op.WRITE, 0, 0)]


def test_a_request_refused_by_a_stopping_daemon_fails_in_a_session_that_is_not_resumable(session: Session) -> None:
    session.resumable = False
    request = write(0)
    session.add(request)
    session.messages_to_send(0.0)
    assert refuse(session, request) == [request]
    assert isinstance(request.error, OSError)
    assert request.error.errno == errno.ESHUTDOWN
    assert request.error.reason is Reason.STOPPING  # type: ignore[attr-defined]


@pytest.mark.parametrize("message", [STOPPING, REWORDED, None])
@pytest.mark.parametrize("reason", [Reason.BY_KERNEL, Reason.CANCELLED, 4711])
def test_a_shutdown_error_without_the_reason_is_the_requests_own(
    session: Session, reason: int, message: str | None
) -> None:
    """A device may report ESHUTDOWN, too; the message of a daemon without reasons does not decide."""
    request = operations.append_request(FILE, b"data")
    session.add(request)
    session.messages_to_send(0.0)
    assert refuse(session, request, reason=reason, message=message) == [request]
    assert isinstance(request.error, OSError)
    assert request.error.errno == errno.ESHUTDOWN
    assert request.error.reason == reason  # type: ignore[attr-defined]


@pytest.mark.parametrize("message", ["open scratch/other: the daemon is stopping", REWORDED, "", None])
def test_calls_refused_by_a_stopping_daemon_are_sent_to_the_next_one_whatever_the_message_says(
    session: Session, message: str | None
) -> None:
    opening = Call(MessageType.OPEN, "scratch", "other", 7 | 8, 0o644)
    removing = Call(MessageType.NAME, "remove", "scratch", "another", {})
    for call in (opening, removing):
        session.add(call)
        session.messages_to_send(0.0)
        answer = [MessageType.REPLY, call.cookie, -errno.ESHUTDOWN, message, None, int(Reason.STOPPING)]
        assert session.receive([wire.pack(*answer)]) == []
    session.receive([wire.pack(*wire.refusal(errno.ESHUTDOWN, REWORDED, Reason.STOPPING))])
    assert session.resume(welcome(), 1.0, {}) == []
    assert kinds(session.messages_to_send(1.0)) == [MessageType.OPEN, MessageType.NAME]


def test_a_reply_of_five_elements_is_that_of_a_daemon_without_reasons(session: Session) -> None:
    call = Call(MessageType.OPEN, "scratch", "other", 7, 0o644)
    session.add(call)
    session.messages_to_send(0.0)
    answer = [MessageType.REPLY, call.cookie, -errno.ESHUTDOWN, "open: the daemon is stopping", None]
    assert session.receive([wire.pack(*answer)]) == [call]
    assert isinstance(call.error, OSError)
    assert call.error.reason is Reason.BY_KERNEL  # type: ignore[attr-defined]


def test_a_request_in_doubt_says_so_by_its_reason(session: Session) -> None:
    request = operations.append_request(FILE, b"data")
    session.add(request)
    session.messages_to_send(0.0)
    session.interrupt("gone")
    assert isinstance(request.error, AiodError)
    assert request.error.reason is Reason.UNKNOWN


class Interrupted(list[Any]):
    """A list whose append() is followed by a signal's handler that raises."""

    def append(self, item: Any) -> None:
        """Append, and be interrupted."""
        super().append(item)
        raise KeyboardInterrupt


def test_a_write_whose_completion_was_interrupted_is_sent_again_with_its_data(session: Session) -> None:
    request = write(0)
    session.add(request)
    session.messages_to_send(0.0)
    with pytest.raises(KeyboardInterrupt):
        session._completed(request, request.cookie, 4, b"", None, Interrupted())
    assert session.interrupt("interrupted") == []
    assert not request.done
    session.resume(welcome(), 1.0, {})
    messages = session.messages_to_send(1.0)
    assert records(messages) == [(Op.WRITE, REPEAT, 0)]
    assert bytes(messages[-1][1]) == b"data"


# ---- at another daemon ----------------------------------------------------------------------------------------------


def test_at_another_daemon_writes_in_doubt_fail_and_the_rest_is_sent(session: Session) -> None:
    doubt, waiting = write(0), write(8)
    for request in (doubt, operations.read_request(FILE, 4, 100)):
        session.add(request)
    session.messages_to_send(0.0)
    assert session.interrupt("gone") == []
    session.add(waiting)
    assert not session.files[FILE].changed
    assert session.files_in_doubt()[FILE].changed
    assert session.resume(welcome(), 1.0, {}, moved=True) == [doubt]
    assert isinstance(doubt.error, AiodError)
    assert doubt.error.errno == errno.EIO
    assert "unknown whether done: gone" in str(doubt.error)
    assert session.files[FILE].changed
    assert records(session.messages_to_send(1.0)) == [(Op.READ, 0, 100), (Op.WRITE, 0, 8)]
    assert session.failovers == 1


def test_a_write_that_comes_back_from_the_ring_after_the_move_fails(session: Session) -> None:
    session.interrupt("gone")
    session.resume(welcome(), 1.0, {}, moved=True)
    late = write(0)
    late.sent = True
    session.add(late)
    assert session.take_failed() == [late]
    assert "unknown whether done" in str(late.error)
    assert session.files[FILE].changed
    assert session.messages_to_send(1.0) == []


def test_another_daemon_gets_what_a_stopping_one_has_refused(session: Session) -> None:
    request = write(0)
    session.add(request)
    session.messages_to_send(0.0)
    session.take_notice(ShutdownNotice(drained=True, flushed=None))
    session.interrupt("stopping")
    assert not session.files_in_doubt()[FILE].changed
    assert session.resume(welcome(), 1.0, {}, moved=True) == []
    assert records(session.messages_to_send(1.0)) == [(Op.WRITE, 0, 0)]


def test_a_silent_engine_is_remembered_as_hung(session: Session) -> None:
    session.tick(2.0)
    session.messages_to_send(2.0)
    told = [session.hung]
    session.tick(40.0)
    assert session.suspended is not None
    told.append(session.hung)
    session.resume(welcome(), 41.0, {}, moved=True)
    assert [*told, session.hung] == [False, True, False]


def test_reopen_hands_the_origin_on_at_another_daemon_only(session: Session) -> None:
    session.files[FILE].origin = b"origin"
    for elsewhere, origin in ((False, []), (True, [b"origin"])):
        talk = resume_session(b"", session.files, Terms(4.0, 5.0), elsewhere=elsewhere)
        assert wire.unpack(next(talk)[0])[1]["lease_s"] == 4.0
        granted = {"version": 1, "session": b"s" * 16, "engine": "main", "moves": True} | LIMITS
        (reopen,) = talk.send([wire.pack(MessageType.WELCOME, granted)])
        assert wire.unpack(reopen)[9:] == origin
        with pytest.raises(StopIteration) as end:
            talk.send([wire.pack(MessageType.REPLY, 1, FILE, None, None)])
        found, lost = end.value.value
        assert (found.heartbeat_s, found.session_timeout_s, lost) == (1.0, 5.0, {})


def test_an_older_daemon_is_not_asked_to_take_over_files(session: Session) -> None:
    talk = resume_session(b"", session.files, elsewhere=True)
    next(talk)
    with pytest.raises(AiodError, match="too old to take over files"):
        talk.send([wire.pack(MessageType.WELCOME, {"version": 1, "session": b"s" * 16, "engine": "main"} | LIMITS)])


def close(handle: int) -> Call:
    return Call(MessageType.CLOSE, handle, handle=handle)


def test_a_file_whose_close_was_sent_is_not_opened_again(session: Session) -> None:
    # The engine may have closed it, and given its slot to another file: both cannot be opened again.
    closing = close(FILE)
    session.add(closing)
    session.messages_to_send(0.0)
    assert session.interrupt("gone") == [closing]
    assert (closing.done, closing.error) == (True, None)
    assert FILE not in session.files
    session.resume(welcome(), 1.0, {})
    assert session.messages_to_send(1.0) == []


def test_a_close_behind_a_request_without_an_answer_is_sent_again(session: Session) -> None:
    request, closing = write(0), close(FILE)
    session.add(request)
    session.add(closing)
    session.messages_to_send(0.0)
    assert session.interrupt("gone") == []
    assert FILE in session.files
    session.resume(welcome(), 1.0, {})
    assert kinds(session.messages_to_send(1.0)) == [MessageType.SUBMIT, MessageType.CLOSE]


def test_no_handle_of_an_engine_that_has_gone_is_closed_at_the_next(session: Session) -> None:
    unsent, late = close(FILE + 1), close(FILE + 2)  # neither is a file's: NAMES, or opened too late
    session.add(unsent)
    assert session.interrupt("gone") == [unsent]
    session.add(late)
    assert session.take_failed() == [late]
    session.resume(welcome(), 1.0, {})
    assert session.messages_to_send(1.0) == []


def test_an_open_whose_answer_was_taken_in_part_is_sent_again(session: Session) -> None:
    opening = Call(MessageType.OPEN, "scratch", "other", 1, 0)
    session.add(opening)
    session.messages_to_send(0.0)
    opening.result = (FILE + 1, {})  # then a signal's handler has raised
    session.files.opened(FILE + 1, opening.arguments, {})
    assert session.interrupt("interrupted") == []
    assert list(session.files) == [FILE]
    session.resume(welcome(), 1.0, {})
    session.messages_to_send(1.0)
    assert session.receive(reply(opening, FILE + 2, {})) == [opening]
    assert list(session.files) == [FILE, FILE + 2]


def test_a_refusal_without_a_message_has_a_sentence_nevertheless(session: Session) -> None:
    request = write(8)
    session.add(request)
    session.messages_to_send(0.0)
    assert complete(session, request, result=-errno.ENOSPC) == [request]
    assert isinstance(request.error, OSError)
    assert "scratch/file" in str(request.error)
    assert "write of 4 bytes at 8" in str(request.error)
