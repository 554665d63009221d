"""The handshakes HELLO, LOCATE and REOPEN, and CONTROL, as generators without sockets.

Each yields the message to send ([]: none) and is sent the frames of the answer. `blocking` and `aio` drive the same
generators over their sockets.
"""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from aiod_client.errors import AiodError, Failure, ProtocolError, lock_lost, refused
from aiod_protocol import wire
from aiod_protocol.reasons import parse_reason
from aiod_protocol.ring_wire import TICKET_BYTES
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from aiod_client.session.open_files import OpenFile

DISTRIBUTION: Final = "aiod-io"
TOKEN_BYTES: Final = 16

_TEMPORARY: Final = frozenset({errno.ESHUTDOWN, errno.ENOTCONN})
"""Errnos of a REFUSAL after which a reconnection may help: the daemon is stopping, or has forgotten the session."""

_HEARTBEATS: Final = 5
"""In the time after which a silent daemon is left."""
_GRACE_LOCK_WAIT_S: Final = 0.5
"""The longest wait for a lock in an engine's grace period, whose end the repeats of other files must not miss."""

T = TypeVar("T")
Frames = Sequence[bytes | memoryview]
Message = list[bytes | memoryview]
Conversation = Generator[Message, Frames, T]


@dataclass(frozen=True, slots=True)
class RingOffer:
    """Where a session may attach a shared-memory ring (docs/ring.md)."""

    version: int
    path: str
    ticket: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """The grant of an engine to a session (bytes, seconds; `token` is `session` on the wire)."""

    token: bytes
    engine: str
    depth_max: int
    bytes_max: int
    request_bytes_max: int
    batch_max: int
    heartbeat_s: float
    session_timeout_s: float
    ring: RingOffer | None = None
    grace: bool = False
    """The engine accepts only replays until it says GO."""
    moves: bool = False
    """The engine can take over the files of another daemon."""
    locks: bool = False
    """The engine knows LOCK and UNLOCK."""


class Terms(NamedTuple):
    """What a client that may use several daemons asks of a session. The default: nothing."""

    lease_s: float = 0.0
    """After how long a silence the session may be continued elsewhere (HELLO); 0: never."""
    silence_max_s: float | None = None
    """After how long a silence the client leaves the daemon; None: after the time that WELCOME names."""

    def applied_to(self, welcome: Welcome) -> Welcome:
        """The grant, with heartbeats that are frequent enough."""
        if self.silence_max_s is None:
            return welcome
        return replace(
            welcome,
            heartbeat_s=min(welcome.heartbeat_s, self.silence_max_s / _HEARTBEATS),
            session_timeout_s=min(welcome.session_timeout_s, self.silence_max_s),
        )


@dataclass(frozen=True, slots=True)
class Location:
    """Which engine serves an export, and where."""

    engine: str
    endpoint: str


@functools.cache
def version() -> str:
    """The version of this client."""
    from importlib import metadata  # noqa: PLC0415 - megabytes that the daemon, which imports this too, does not need

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "uninstalled"


def software() -> str:
    """The name and version of this client in HELLO."""
    return f"aiod_client/{version()} (Python)"


def hello(resume: bytes = b"", lease_s: float = 0.0) -> Message:
    """The HELLO of this client; `resume` is the token of a session that it continues.

    `lease_s`: after how long a silence the session may be continued at another daemon; 0: never.
    """
    body: dict[str, Any] = {
        "versions": list(wire.VERSIONS),
        "features": list(wire.FEATURES),
        "software": software(),
    }
    if resume:
        body["resume"] = resume
    if lease_s:
        body["lease_s"] = lease_s
    return [wire.pack(MessageType.HELLO, body)]


def greet_front() -> Conversation[None]:
    """HELLO to the front endpoint."""
    _welcome_body((yield hello()))


NO_TERMS: Final = Terms()


def resume_session(
    token: bytes,
    files: Mapping[int, OpenFile],
    terms: Terms = NO_TERMS,
    *,
    elsewhere: bool = False,
    deadline_s: float = 0.0,
) -> Conversation[tuple[Welcome, dict[int, OSError]]]:
    """HELLO to an engine, and REOPEN of `files`; `token` is that of the session to continue, b"" for a new one.

    `elsewhere`: another daemon has opened the files. Half of the time until `deadline_s` (monotonic) may pass in
    waiting for locks. Returns the grant, and the handles that could not be opened again, or whose locks are lost, with
    the errors.
    """
    welcome = terms.applied_to(parse_welcome((yield hello(token, terms.lease_s))))
    if elsewhere and files and not welcome.moves:
        raise AiodError(
            errno.EPROTONOSUPPORT, "the daemon is too old to take over files of another daemon: install a later version"
        )
    lost: dict[int, OSError] = {}
    wait_until_s = (time.monotonic() + deadline_s) / 2
    if welcome.grace:
        wait_until_s = min(wait_until_s, time.monotonic() + _GRACE_LOCK_WAIT_S)
    for cookie, (handle, file) in enumerate(list(files.items()), 1):
        claims = file.lock_claims
        message = wire.pack(
            MessageType.REOPEN,
            welcome.token,
            cookie,
            handle,
            file.export,
            file.path,
            file.flags,
            list(file.identity) or [0, 0, 0],
            file.changed,
            *([file.origin if elsewhere else None] if elsewhere or claims else []),
            *([claims, _wait_ms(wait_until_s)] if claims else []),
        )
        answer = yield [message]
        if _header(answer)[0] == MessageType.GO:
            welcome = replace(welcome, grace=False)
            answer = yield []
        try:
            body = _reply_body(answer, cookie, f"{file.export}/{file.path}")
            if claims and (ranges := _lost_ranges(claims, body)):
                lost[handle] = lock_lost(f"{file.export}/{file.path}", ranges)
        except AiodError:
            raise
        except OSError as error:
            lost[handle] = error
    return welcome, lost


def _wait_ms(until_s: float) -> int:
    return max(0, int((until_s - time.monotonic()) * 1000))


def _lost_ranges(claims: list[list[int]], body: Any) -> tuple[tuple[int, int], ...]:
    """Offset and length of the claimed locks that the engine has not regained. An older engine regains none."""
    held = body.get("locks") if isinstance(body, dict) else None
    if not isinstance(held, list) or len(held) != len(claims):
        held = [False] * len(claims)
    return tuple((claim[1], claim[2]) for claim, is_held in zip(claims, held, strict=True) if is_held is not True)


def locate(export: str) -> Conversation[Location]:
    """HELLO and LOCATE. Raises FileNotFoundError for an unknown export, OSError (EIO) while its engine is away."""
    yield from greet_front()
    body = _reply_body((yield [wire.pack(MessageType.LOCATE, 1, export)]), 1, export)
    engine, endpoint = body.get("engine"), body.get("endpoint")
    if not isinstance(engine, str) or not isinstance(endpoint, str):
        raise _bad(f"LOCATED of {export} lacks its engine or endpoint")
    return Location(engine, endpoint)


def control(verb: str, arguments: Mapping[str, Any]) -> Conversation[Any]:
    """HELLO and CONTROL: the body of the reply. Raises OSError with the daemon's error."""
    yield from greet_front()
    answer = yield [wire.pack(MessageType.CONTROL, 1, verb, dict(arguments))]
    return _reply_body(answer, 1, None, wire.CONTROL_REPLY_BYTES_MAX)


def parse_welcome(frames: Frames) -> Welcome:
    """The grant in an engine's WELCOME. Raises ProtocolError, or AiodError for a REFUSAL."""
    body = _welcome_body(frames)
    token = body.get("session")
    if not isinstance(token, bytes) or len(token) != TOKEN_BYTES:
        raise _bad(f"WELCOME without a session token of {TOKEN_BYTES} bytes")
    depth_max, bytes_max, request_bytes_max, batch_max = (
        _positive_int(body, key) for key in ("depth_max", "bytes_max", "request_bytes_max", "batch_max")
    )
    return Welcome(
        token,
        str(body.get("engine", "")),
        depth_max,
        bytes_max,
        request_bytes_max,
        batch_max,
        _positive_number(body, "heartbeat_s"),
        _positive_number(body, "session_timeout_s"),
        _ring_offer(body.get("ring")),
        body.get("grace") is True,
        body.get("moves") is True,
        body.get("locks") is True,
    )


def _ring_offer(offer: Any) -> RingOffer | None:
    """The offer of a ring; None for one of an unknown form: the session uses no ring then."""
    if not isinstance(offer, dict):
        return None
    version, path, ticket = offer.get("version"), offer.get("path"), offer.get("ticket")
    if type(version) is not int or not isinstance(path, str) or not isinstance(ticket, bytes):
        return None
    return RingOffer(version, path, ticket) if len(ticket) == TICKET_BYTES else None


def _welcome_body(frames: Frames) -> dict[str, Any]:
    header = _header(frames)
    if header[0] == MessageType.REFUSAL:
        raise refusal(header)
    if header[0] != MessageType.WELCOME or len(header) < 2 or not isinstance(header[1], dict):  # noqa: PLR2004
        raise _bad("HELLO was not answered by WELCOME")
    if header[1].get("version") not in wire.VERSIONS:
        raise _bad(f"the daemon chose protocol version {header[1].get('version')!r}, which was not offered")
    body: dict[str, Any] = header[1]
    return body


def _reply_body(frames: Frames, cookie: int, filename: str | None, bytes_max: int = wire.HEADER_BYTES_MAX) -> Any:
    header = _header(frames, bytes_max)
    if header[0] == MessageType.REFUSAL:
        raise refusal(header)
    reply = parse_reply(header, cookie)
    if reply.failure is not None:
        raise reply.failure.error(filename)
    return reply.body


def goodbye(welcome: Welcome) -> Message:
    """The GOODBYE of a session that was never used."""
    return [wire.pack(MessageType.GOODBYE, welcome.token, 1)]


class Reply(NamedTuple):
    """The content of a REPLY."""

    result: int
    failure: Failure | None
    """None where `result` is not negative."""
    body: Any


def parse_reply(header: list[Any], cookie: int | None = None) -> Reply:
    """A REPLY (to `cookie`, if given). Older daemons leave the reason out. Raises ProtocolError."""
    if header[0] != MessageType.REPLY or len(header) < 5 or type(header[2]) is not int:  # noqa: PLR2004
        raise _bad("the answer is not a REPLY of five elements")
    if cookie is not None and header[1] != cookie:
        raise _bad(f"REPLY to {header[1]!r} instead of {cookie}")
    _, _, result, message, body, *more = header
    if result >= 0:
        return Reply(result, None, body)
    message = message if isinstance(message, str) else None
    return Reply(result, Failure(-result, message, reason=parse_reason(more[0] if more else None)), body)


def refusal(header: list[Any]) -> OSError:
    """The exception for a REFUSAL's header."""
    code = header[1] if len(header) > 1 and type(header[1]) is int else 0
    message = header[2] if len(header) > 2 and isinstance(header[2], str) else None  # noqa: PLR2004
    if code <= 0:
        return _bad("REFUSAL without an errno")
    return refused(code, message, parse_reason(_details(header).get("reason")))


def is_refusal(frames: Frames) -> bool:
    """Whether the message is a REFUSAL. Raises ProtocolError for an invalid message."""
    return bool(_header(frames)[0] == MessageType.REFUSAL)


def final_refusal(frames: Frames) -> OSError | None:
    """The exception for a REFUSAL after which reconnecting does not help; None for any other message."""
    if not is_refusal(frames):
        return None
    header = _header(frames)
    error = refusal(header)
    return None if error.errno in _TEMPORARY and not _details(header).get("final") else error


class ShutdownNotice(NamedTuple):
    """The engine's notice of an orderly stop."""

    drained: bool = False
    """Whether the engine has executed none of the requests that it has not answered."""
    flushed: Collection[int] | None = ()
    """Handles of the files whose acknowledged changes are all on disk; None: of all files."""


def shutdown_notice(frames: Frames) -> ShutdownNotice:
    """The notice in a REFUSAL."""
    details = _details(_header(frames))
    handles = details.get("flushed")
    flushed = [handle for handle in handles if type(handle) is int] if isinstance(handles, list) else []
    return ShutdownNotice(details.get("drained") is True, flushed)


def _details(header: list[Any]) -> dict[str, Any]:
    return header[3] if len(header) > 3 and isinstance(header[3], dict) else {}  # noqa: PLR2004


def _header(frames: Frames, bytes_max: int = wire.HEADER_BYTES_MAX) -> list[Any]:
    try:
        return wire.unpack(frames[0], bytes_max)
    except wire.WireError as error:
        raise _bad(str(error)) from error


def _positive_int(body: dict[str, Any], key: str) -> int:
    value = body.get(key)
    if type(value) is not int or value <= 0:
        raise _bad(f"WELCOME: {key} is {value!r}, not a positive integer")
    return value


def _positive_number(body: dict[str, Any], key: str) -> float:
    value = body.get(key)
    if not isinstance(value, int | float) or not value > 0:
        raise _bad(f"WELCOME: {key} is {value!r}, not a positive number")
    return float(value)


def _bad(message: str) -> ProtocolError:
    return ProtocolError(errno.EPROTO, f"the daemon broke the protocol: {message}")
