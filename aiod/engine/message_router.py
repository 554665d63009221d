"""Decodes the clients' messages, checks their form once, and calls the handler of each type.

Handlers get values of the right types. A message without the form of docs/protocol.md is answered with REFUSAL, and the
session that it names is ended.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from aiod.engine.file_requests import LockClaim, ReopenRequest
from aiod.engine.name_verbs import NAME_VERBS
from aiod_protocol import wire
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import zmq

    from aiod.engine.replies import Replies
    from aiod.engine.session import Session
    from aiod.net.peer import Peer

log = logging.getLogger(__name__)

U64_MAX = 2**64 - 1

# Looked up once: in Python 3.11 a look at an IntEnum's member costs as much as a call.
_HELLO: Final = int(MessageType.HELLO)
_SUBMIT: Final = int(MessageType.SUBMIT)


class Handlers(Protocol):
    """What the engine does with each message (message_handlers.py). A WireError ends the session."""

    def find_session(self, token: bytes, peer: Peer) -> Session | None:
        """The live session of `token`, whose timeout starts anew; None: there is none that `peer` may use."""

    def end_session(self, session: Session, reason: str) -> None:
        """End the session; `reason` goes to the log."""

    def hello(self, peer: Peer, version: int, software: str, resume: bytes, lease_s: float) -> list[Any] | None:
        """The elements of WELCOME or REFUSAL; None: the answer comes later.

        `resume`: token of the session that the client had with a previous engine; empty: it had none. `lease_s`: after
        how long a silence its client may have moved to another daemon; 0: it does not move.
        """

    def open(self, session: Session, cookie: int, export: str, path: str, flags: int, mode: int) -> None:
        """OPEN; answered by REPLY."""

    def reopen(self, session: Session, cookie: int, handle: int, opened: ReopenRequest) -> None:
        """REOPEN; answered by REPLY."""

    def repeated(self, session: Session) -> None:
        """REPEATED: the session has sent all its requests again."""

    def close(self, session: Session, cookie: int, handle: int) -> None:
        """CLOSE; answered by REPLY."""

    def lock(
        self, session: Session, cookie: int, handle: int, flags: int, offset: int, length: int, wait_ms: int
    ) -> None:
        """LOCK; answered by REPLY."""

    def unlock(self, session: Session, cookie: int, handle: int, offset: int, length: int) -> None:
        """UNLOCK; answered by REPLY."""

    def name(self, session: Session, cookie: int, verb: str, export: str, path: str, arguments: dict[str, Any]) -> None:
        """NAME, with the verb's arguments; answered by REPLY."""

    def submit(self, session: Session, received: int, records: bytes, payloads: Sequence[zmq.Frame]) -> None:
        """SUBMIT; answered by COMPLETE."""

    def cancel(self, session: Session, cookies: list[int]) -> int:
        """CANCEL; returns the number of cancelled requests."""


class _Form(NamedTuple):
    """Types of the elements after the message's type, and the method that handles it."""

    types: tuple[type, ...]
    handle: Callable[[MessageRouter, Session, list[Any], list[zmq.Frame]], None]


class MessageRouter:
    """Main loop thread only."""

    def __init__(self, handlers: Handlers, replies: Replies, cancel_max: int) -> None:
        """`cancel_max`: most cookies of one CANCEL."""
        self._handlers = handlers
        self._replies = replies
        self._cancel_max = cancel_max
        self._counters = {"messages": 0, "refusals": 0}

    def stats(self) -> dict[str, int]:
        """Number of messages received, and of those refused."""
        return dict(self._counters)

    def receive(self, peer: Peer, frames: list[zmq.Frame]) -> None:
        """Handle one message of `peer`."""
        self._counters["messages"] += 1
        try:
            message = wire.unpack(frames[0].buffer)
            if message[0] == _HELLO:
                _check_payloads(message, frames)
                self._hello(peer, message)
                return
        except wire.WireError as error:
            self._refuse(peer, errno.EPROTO, str(error), Reason.MALFORMED)
            return
        self._receive_of_session(peer, message, frames)

    def _receive_of_session(self, peer: Peer, message: list[Any], frames: list[zmq.Frame]) -> None:
        """Handle a message that names a session by its token."""
        form = _FORMS.get(message[0])
        token = message[1] if len(message) > 1 else None
        if form is None or not isinstance(token, bytes):
            text = f"message of type {message[0]}: unknown, or without a session's token"
            self._refuse(peer, errno.EPROTO, text, Reason.MALFORMED)
            return
        session = self._handlers.find_session(token, peer)
        if session is None:
            text = "unknown session: it has ended or timed out, or there was no HELLO; connect again"
            if message[0] != MessageType.GOODBYE:  # the end of its ring's connection may have ended it before
                self._refuse(peer, errno.ENOTCONN, text, Reason.NO_SESSION)
            else:
                self._replies.send(peer, wire.refusal(errno.ENOTCONN, text, Reason.NO_SESSION))
            return
        if session.quota.too_many_messages():
            limit = session.quota.limits.messages_per_second_max
            text = (
                f"more than {limit} messages a second of {session.peer.principal}; "
                "connect again, and put more into each"
            )
            self._refuse(peer, errno.EAGAIN, text, Reason.LIMIT)
            self._handlers.end_session(session, text)
            return
        try:
            _check_form(message, form.types)
            _check_payloads(message, frames)
            form.handle(self, session, message, frames)
        except wire.WireError as error:
            self._refuse(peer, errno.EPROTO, str(error), Reason.MALFORMED)
            self._handlers.end_session(session, f"malformed message: {error}")

    def _hello(self, peer: Peer, message: list[Any]) -> None:
        _check_form(message, (dict,))
        version = wire.negotiate(message[1].get("versions"))
        if version is None:
            text = f"no common protocol version: this daemon speaks {list(wire.VERSIONS)}; use a matching client"
            self._refuse(peer, errno.EPROTONOSUPPORT, text, Reason.NO_VERSION)
            return
        software = message[1].get("software")
        name = _printable(software[:64]) if isinstance(software, str) else "unknown software"
        resume, lease_s = message[1].get("resume"), message[1].get("lease_s")
        lease_s = min(float(lease_s), _LEASE_MAX_S) if type(lease_s) in (int, float) and lease_s > 0 else 0.0
        answer = self._handlers.hello(peer, version, name, resume if isinstance(resume, bytes) else b"", lease_s)
        if answer is not None:
            self._replies.send(peer, answer)

    def _open(self, session: Session, message: list[Any], _: list[zmq.Frame]) -> None:
        self._handlers.open(session, *message[2:7])

    def _reopen(self, session: Session, message: list[Any], _: list[zmq.Frame]) -> None:
        cookie, handle, export, path, flags, file, changed = message[2:9]
        if len(file) != _FILE_NUMBERS:
            raise wire.WireError(f"REOPEN of a file of {len(file)} numbers, not {_FILE_NUMBERS}")
        for number in file:
            _check_number(number)
        if not 0 < handle < 1 << 32:
            raise wire.WireError(f"REOPEN of handle {handle}")
        dev, ino, generation = file
        origin = message[9] if len(message) > _REOPEN_ELEMENTS else None
        if origin is not None and not isinstance(origin, bytes):
            raise wire.WireError(f"REOPEN has {type(origin).__name__} for the origin, which is bytes")
        locks, wait_ms = _lock_claims(*message[10:12])
        opened = ReopenRequest(
            export,
            path,
            flags,
            dev,
            ino,
            generation,
            changed=changed,
            origin=origin,
            locks=locks,
            wait_ms=wait_ms,
        )
        self._handlers.reopen(session, cookie, handle, opened)

    def _repeated(self, session: Session, _: list[Any], __: list[zmq.Frame]) -> None:
        self._handlers.repeated(session)

    def _close(self, session: Session, message: list[Any], _: list[zmq.Frame]) -> None:
        self._handlers.close(session, *message[2:4])

    def _lock(self, session: Session, message: list[Any], _: list[zmq.Frame]) -> None:
        self._handlers.lock(session, *message[2:8])

    def _unlock(self, session: Session, message: list[Any], _: list[zmq.Frame]) -> None:
        self._handlers.unlock(session, *message[2:6])

    def _name(self, session: Session, message: list[Any], _: list[zmq.Frame]) -> None:
        cookie, verb, export, path, given = message[2:7]
        known = NAME_VERBS.get(verb)  # admission refuses an unknown one
        arguments = {}
        if known is not None:
            arguments = {key: _argument(given, key, wanted) for key, wanted in known.arguments.items()}
            options = known.options.items()
            arguments |= {key: _argument(given, key, wanted) for key, wanted in options if key in given}
        self._handlers.name(session, cookie, verb, export, path, arguments)

    def _submit(self, session: Session, message: list[Any], frames: list[zmq.Frame]) -> None:
        self._handlers.submit(session, message[2], message[3], frames[1:])

    def _cancel(self, session: Session, message: list[Any], _: list[zmq.Frame]) -> None:
        answer, cookies = message[2], message[3]
        if len(cookies) > self._cancel_max:
            raise wire.WireError(f"CANCEL of {len(cookies)} cookies: at most {self._cancel_max}")
        for cookie in cookies if answer is None else [answer, *cookies]:
            _check_number(cookie)
        cancelled = self._handlers.cancel(session, cookies)
        if answer is not None:
            self._replies.reply(session, answer, cancelled)

    def _heartbeat(self, session: Session, _: list[Any], __: list[zmq.Frame]) -> None:
        self._replies.send_to(session, [MessageType.HEARTBEAT])

    def _goodbye(self, session: Session, message: list[Any], _: list[zmq.Frame]) -> None:
        peer = session.peer
        self._handlers.end_session(session, "")
        self._replies.send(peer, wire.reply(message[2], 0, None, None))

    def _refuse(self, peer: Peer, number: int, text: str, reason: Reason) -> None:
        self._counters["refusals"] += 1
        log.warning("refused a message of %s: %s", peer, text)
        self._replies.send(peer, wire.refusal(number, text, reason))


_LEASE_MAX_S: Final = 86400.0
_FILE_NUMBERS: Final = 3
_REOPEN_ELEMENTS: Final = 9
"""Of a REOPEN without an origin."""
_CLAIM_NUMBERS: Final = 4
_NO_NUMBER: Final = "a number that is no unsigned 64-bit integer"

_FORMS = {
    int(MessageType.OPEN): _Form((bytes, int, str, str, int, int), MessageRouter._open),  # noqa: SLF001
    int(MessageType.REOPEN): _Form((bytes, int, int, str, str, int, list, bool), MessageRouter._reopen),  # noqa: SLF001
    int(MessageType.REPEATED): _Form((bytes,), MessageRouter._repeated),  # noqa: SLF001
    int(MessageType.CLOSE): _Form((bytes, int, int), MessageRouter._close),  # noqa: SLF001
    int(MessageType.LOCK): _Form((bytes, int, int, int, int, int, int), MessageRouter._lock),  # noqa: SLF001
    int(MessageType.UNLOCK): _Form((bytes, int, int, int, int), MessageRouter._unlock),  # noqa: SLF001
    int(MessageType.NAME): _Form((bytes, int, str, str, str, dict), MessageRouter._name),  # noqa: SLF001
    int(MessageType.SUBMIT): _Form((bytes, int, bytes), MessageRouter._submit),  # noqa: SLF001
    int(MessageType.CANCEL): _Form((bytes, object, list), MessageRouter._cancel),  # noqa: SLF001
    int(MessageType.HEARTBEAT): _Form((bytes,), MessageRouter._heartbeat),  # noqa: SLF001
    int(MessageType.GOODBYE): _Form((bytes, int), MessageRouter._goodbye),  # noqa: SLF001
}


def _lock_claims(claims: Any = (), wait_ms: Any = 0) -> tuple[tuple[LockClaim, ...], int]:
    """The locks of a REOPEN: [[flags, offset, length, number], ...], and how long to wait for them."""
    if not isinstance(claims, list | tuple):
        raise wire.WireError("REOPEN with locks that are no array")
    found = []
    for claim in claims:
        if not isinstance(claim, list) or len(claim) < _CLAIM_NUMBERS:
            raise wire.WireError(f"REOPEN with a lock that is no array of {_CLAIM_NUMBERS} numbers")
        for number in claim[:_CLAIM_NUMBERS]:
            _check_number(number)
        flags, offset, length, number = claim[:_CLAIM_NUMBERS]
        last = offset + length - 1 if length else wire.LOCK_LAST
        if offset > wire.LOCK_LAST or last > wire.LOCK_LAST:
            raise wire.WireError("REOPEN with a lock of a range that no lock has")
        found.append(LockClaim(bool(flags & wire.LOCK_EXCLUSIVE), offset, last, number))
    _check_number(wait_ms)
    return tuple(found), wait_ms


def _printable(text: str) -> str:
    """`text` without control characters: the client chose it, and it goes to the log."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _check_form(message: list[Any], types: tuple[type, ...]) -> None:
    """Check that the elements are of `types`, and integers unsigned 64-bit. Further elements are ignored."""
    if len(message) <= len(types):
        raise wire.WireError(f"message of type {message[0]} has {len(message)} elements, not {len(types) + 1}")
    for element, wanted in zip(message[1:], types, strict=False):
        if type(element) is not wanted and wanted is not object:
            raise wire.WireError(f"message of type {message[0]} has {type(element).__name__} for {wanted.__name__}")
        if wanted is int and not 0 <= element <= U64_MAX:
            raise wire.WireError(_NO_NUMBER)


def _argument(given: dict[Any, Any], key: str, wanted: type) -> Any:
    """The argument `key` of a NAME. Raises WireError unless it is of type `wanted`."""
    value = given.get(key)
    if type(value) is not wanted:
        raise wire.WireError(f"NAME has {type(value).__name__} for {key}, which is {wanted.__name__}")
    if wanted is int:
        _check_number(value)
    return value


def _check_payloads(message: list[Any], frames: list[zmq.Frame]) -> None:
    if len(frames) > 1 and message[0] != _SUBMIT:
        raise wire.WireError(f"a message of type {message[0]} has no payload frames")


def _check_number(number: Any) -> None:
    if type(number) is not int or not 0 <= number <= U64_MAX:
        raise wire.WireError(_NO_NUMBER)
