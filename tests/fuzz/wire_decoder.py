"""python -m tests.fuzz.wire_decoder [libFuzzer's options] CORPUS...: the wire's decoders, coverage-guided (atheris).

An input is one byte, which selects the decoder, and frames, each after its length (two bytes). Whatever a peer sends, a
decoder raises only its documented exceptions, and the process goes on.

    engine   the message router, and admission in the native core: every message, with a session that has one file open
    client   a session with a read in flight, and a daemon that says anything
    hello    the answers to the handshake
    names    the answers to directory operations
    ring     entries of a ring, with paths (ring_entries.py)
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import math
import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import atheris

from aiod import _core
from aiod.engine import dispatch, message_router
from aiod.engine.replies import Replies
from aiod.engine.session import Session
from aiod.engine.user_quotas import UserQuota
from aiod.engine_api.settings import RateLimits, UserLimits
from aiod.net.peer import Peer
from aiod_client import records
from aiod_client.blocking.names import DirEntry
from aiod_client.errors import AiodError, ProtocolError
from aiod_client.operations import read_request
from aiod_client.requests import names, split
from aiod_client.requests import pending as requests
from aiod_client.session import handshake, session
from aiod_protocol import listings, wire
from tests.fuzz import ring_entries

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from aiod.engine.file_requests import ReopenRequest

VECTORS: Final = Path(__file__).parents[2] / "clients" / "vectors"
_LENGTH: Final = struct.Struct("<H")
_LIMITS: Final = {
    "depth_max": 8,
    "bytes_max": 1 << 16,
    "request_bytes_max": 1 << 16,
    "batch_max": 8,
    "handles_max": 8,
}
_BOUNDS: Final = SimpleNamespace(bytes_inflight_max=1 << 30)


class Frame:
    """Like zmq.Frame, of which the message router uses only the buffer."""

    def __init__(self, data: bytes) -> None:
        self.buffer = memoryview(data)


class Transport:
    """A transport that sends nothing, but checks that it could be decoded."""

    def send(self, _: Peer, frames: list[Any]) -> bool:
        """Check that the frames are a message."""
        wire.unpack(frames[0])
        return True


class Engine:
    """The handlers of a message router: a session for every token, and the native core behind SUBMIT and CANCEL."""

    def __init__(self) -> None:
        core = ring_entries.core_of_one_thread("fuzz")
        self.core = core
        self.replies = Replies(self.end_session)
        self.message_router = message_router.MessageRouter(self, self.replies, 16)
        self.peer = Peer(b"", -1, "", 0, 0, 0, None, Transport())  # type: ignore[arg-type]
        self.session = self.begin()
        self.dispatch = dispatch.Dispatch(core, _BOUNDS, self.completed, lambda: None, lambda: None, lambda: None)  # type: ignore[arg-type]

    def begin(self) -> Session:
        """A session with one file, which is handle 1 of it."""
        core = _core.Session(None, client="", transport="ipc", rate=None, **_LIMITS)
        session = Session(
            token=b"",
            peer=self.peer,
            software="",
            core=core,
            depth_max=8,
            bytes_max=1 << 16,
            request_bytes_max=1 << 16,
            quota=UserQuota(self.peer.principal, UserLimits(0, 0, 0, 0, 0, 0, 0, RateLimits(0, 0, 0))),
            gids=frozenset(),
            hello_connection=self.peer.connection,
            started_s=0,
            last_message_s=0,
        )
        fd = os.memfd_create("fuzz")
        status = os.fstat(fd)
        self.core.add_handle(
            core,
            fd,
            status.st_dev,
            status.st_ino,
            readable=True,
            writable=False,
            append=False,
            alignment=None,
            ioctls=(),
            size_max=1 << 20,
            name="memory",
        )
        return session

    def receive(self, frames: list[bytes]) -> None:
        """One message."""
        self.message_router.receive(self.peer, [Frame(frame) for frame in frames])  # type: ignore[misc]
        if self.session.ended:
            self.core.end_session(self.session.core)
            self.session = self.begin()
        # What was queued is ended, so that nothing is left from one input to the next.
        self.core.cancel(self.session.core, list(range(1, 9)))
        while self.core.inflight:
            self.core.spawn()
            self.core.reap()

    def completed(self, session: Session, completions: Any) -> None:
        """A batch that was done at once."""
        self.replies.send_to(session, [int(wire.MessageType.COMPLETE), completions[0], {}], completions[1])

    # ---- message_router.Handlers

    def find_session(self, _: bytes, __: Peer) -> Session:
        """Whoever asks."""
        return self.session

    def end_session(self, session: Session, _: str) -> None:
        """It broke a rule, or said goodbye."""
        session.ended = True

    def hello(self, _: Peer, version: int, software: str, resume: bytes, lease_s: float) -> list[Any]:
        """An answer."""
        assert 0 <= lease_s < math.inf
        assert version in wire.VERSIONS
        assert type(resume) is bytes
        assert software.isprintable()
        return [wire.MessageType.WELCOME, {}]

    def reopen(self, session: Session, cookie: int, handle: int, opened: ReopenRequest) -> None:
        """Check the types that Handlers documents."""
        assert all(
            0 <= number < 1 << 64 for number in (cookie, opened.flags, opened.dev, opened.ino, opened.generation)
        )
        assert 0 < handle < 1 << 32
        assert type(opened.changed) is bool
        self.replies.reply(session, cookie, 0)

    def repeated(self, session: Session) -> None:
        """Nothing to it."""

    def open(self, session: Session, cookie: int, export: str, path: str, flags: int, mode: int) -> None:
        """Check the types that Handlers documents."""
        assert all(0 <= number < 1 << 64 for number in (cookie, flags, mode))
        assert type(export) is type(path) is str
        self.replies.reply(session, cookie, 0)

    def close(self, session: Session, cookie: int, handle: int) -> None:
        """The same."""
        assert all(0 <= number < 1 << 64 for number in (cookie, handle))
        self.replies.reply(session, cookie, 0)

    def lock(
        self, session: Session, cookie: int, handle: int, flags: int, offset: int, length: int, wait_ms: int
    ) -> None:
        """The same."""
        assert all(0 <= number < 1 << 64 for number in (cookie, handle, flags, offset, length, wait_ms))
        self.replies.reply(session, cookie, 0)

    def unlock(self, session: Session, cookie: int, handle: int, offset: int, length: int) -> None:
        """The same."""
        assert all(0 <= number < 1 << 64 for number in (cookie, handle, offset, length))
        self.replies.reply(session, cookie, 0)

    def name(self, session: Session, cookie: int, verb: str, export: str, path: str, arguments: dict[str, Any]) -> None:
        """The same."""
        assert type(verb) is type(export) is type(path) is str
        assert isinstance(arguments, dict)
        self.replies.reply(session, cookie, 0)

    def submit(self, session: Session, received: int, records: bytes, payloads: Any) -> None:
        """To the native core."""
        self.dispatch.submit(session, received, records, [frame.buffer for frame in payloads])

    def cancel(self, session: Session, cookies: list[int]) -> int:
        """The same."""
        return self.dispatch.cancel(session, cookies)


def vector(name: str) -> list[bytes]:
    """Frames of a golden message of the handshake."""
    vectors = json.loads((VECTORS / "handshake.json").read_text())["vectors"]
    return [bytes.fromhex(frame) for each in vectors if each["name"] == name for frame in each["frames"]]


WELCOME: Final = handshake.parse_welcome(vector("welcome-engine"))


def to_client(frames: list[bytes]) -> None:
    """A session of the client gets a message."""
    client = session.Session(WELCOME, 0.0)
    client.add(read_request(17, 4096, 0))
    client.messages_to_send(0.0)
    client.receive(frames)
    client.tick(1.0)
    client.lose("enough")
    assert client.pending == 0


def to_greeting(frames: list[bytes]) -> None:
    """The conversations of the handshake get an answer."""
    resume, locate = handshake.resume_session(b"", {}), handshake.locate("export")
    for conversation in (resume, locate, handshake.control("ping", {})):
        next(conversation)
        with contextlib.suppress(StopIteration, AiodError, OSError):
            conversation.send(frames)


def to_names(frames: list[bytes]) -> None:
    """The client reads the bodies of answers to directory operations."""
    readers: list[Callable[[Any], Any]] = [
        records.parse_page,
        records.parse_stat_body,
        lambda body: records.parse_dir_entries(DirEntry, None, None, "export", body),
        lambda body: names.names_in("listxattr", body),
    ]
    with contextlib.suppress(wire.WireError):
        for body in wire.unpack(frames[0])[1:]:
            for read in readers:
                with contextlib.suppress(ProtocolError):
                    read(body)


def frames_of(data: bytes) -> list[bytes]:
    """The frames of an input; at least one, as every message has."""
    frames: list[bytes] = []
    while len(data) > _LENGTH.size and len(frames) < 16:
        (length,) = _LENGTH.unpack_from(data)
        frames.append(data[_LENGTH.size : _LENGTH.size + length])
        data = data[_LENGTH.size + length :]
    return frames or [b""]


def instrument(module: ModuleType) -> None:
    """Have every function of `module` tell its coverage; atheris' own hook does not see what is installed editable."""
    for _, member in inspect.getmembers(module):
        if getattr(member, "__module__", None) != module.__name__:
            continue
        functions = vars(member).values() if inspect.isclass(member) else [member]
        for function in functions:
            if inspect.isfunction(function):
                atheris.instrument_func(function)


def main() -> None:
    """Fuzz."""
    logging.disable(logging.CRITICAL)
    for module in (wire, listings, records, names, handshake, session, split, requests, message_router, dispatch):
        instrument(module)
    instrument(ring_entries)
    engine = Engine()
    ring = ring_entries.RingOfStranger()
    ends: list[Callable[[list[bytes]], None]] = [engine.receive, to_client, to_greeting, to_names, ring.receive]

    def one_input(data: bytes) -> None:
        if data:
            ends[data[0] % len(ends)](frames_of(data[1:]))

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
