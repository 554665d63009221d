"""Resumable sessions of the ring socket, by the messages themselves: tokens, REOPEN, REPEATED and GO."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from aiod_protocol import ring_wire
from aiod_protocol.reasons import Reason
from aiod_protocol.ring_wire import AttachFlag, RingMessage, SessionFlag
from aiod_protocol.wire import OpenFlag
from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 2**20
NO_TOKEN = bytes(16)
RESUMES = AttachFlag.RESUMABLE | AttachFlag.RESUMES
RDWR = OpenFlag.READ | OpenFlag.WRITE | OpenFlag.CREATE


@pytest.fixture(name="daemon")
def daemon_fixture(renewed_daemon: Any) -> Any:
    return renewed_daemon


class Attached(NamedTuple):
    """The answer to ATTACH: the errno of a refusal, else the token (none: not resumable) and the flags."""

    error: int
    token: bytes
    flags: SessionFlag


class Raw:
    """A client of the ring socket that speaks its messages only."""

    def __init__(self, daemon: Any) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(scaled(60))
        self.socket.connect(str(daemon.runtime_dir / "ring" / "scratch"))

    def attach(self, flags: AttachFlag, token: bytes = NO_TOKEN) -> Attached:
        """Attach, and close the ring's descriptors."""
        self.socket.send(ring_wire.ATTACH.pack(RingMessage.ATTACH, ring_wire.VERSION, token, 8, flags, MIB, b"raw"))
        message, fds, _, _ = socket.recv_fds(self.socket, 8192, 2)
        for fd in fds:
            os.close(fd)
        if ring_wire.HEAD.unpack_from(message)[0] != RingMessage.ATTACHED:
            return Attached(-ring_wire.REPLY.unpack_from(message)[3], NO_TOKEN, SessionFlag(0))
        if len(message) == ring_wire.ATTACHED.size:
            return Attached(0, NO_TOKEN, SessionFlag(0))
        given, bits, _ = ring_wire.SESSION.unpack_from(message, ring_wire.ATTACHED.size)
        return Attached(0, given, SessionFlag(bits))

    def reply(self) -> tuple[int, int, list[int]]:
        """The result and the reason of the next REPLY, and the identity of the file."""
        message = self.socket.recv(8192)
        kind, reason, _, result = ring_wire.REPLY.unpack_from(message)
        assert kind == RingMessage.REPLY, message
        file = list(ring_wire.FILE.unpack_from(message, ring_wire.REPLY.size)) if result > 0 else []
        return result, reason, file

    def open(self, path: str, flags: int = RDWR) -> tuple[int, list[int]]:
        """OPEN: the handle, and the identity."""
        self.socket.send(ring_wire.OPEN.pack(RingMessage.OPEN, flags, 1, 0o644, 0) + path.encode())
        handle, _, file = self.reply()
        assert handle > 0
        return handle, file

    def reopen(self, path: str, handle: int, file: list[int], *, flags: int = RDWR) -> tuple[int, int]:
        """REOPEN: result and reason."""
        message = ring_wire.REOPEN.pack(RingMessage.REOPEN, flags, 2, handle, 1, *file)
        self.socket.send(message + path.encode())
        result, reason, _ = self.reply()
        return result, reason

    def repeated(self) -> None:
        """REPEATED."""
        self.socket.send(ring_wire.PLAIN.pack(RingMessage.REPEATED, 0))

    def wait_go(self) -> None:
        """Receive GO."""
        assert self.socket.recv(8192) == ring_wire.PLAIN.pack(RingMessage.GO, 0)


@pytest.fixture(name="attach")
def attach_fixture(daemon: Any) -> Iterator[Callable[[], Raw]]:
    """Makes clients that end with the test."""
    made: list[Raw] = []

    def connect() -> Raw:
        made.append(Raw(daemon))
        return made[-1]

    yield connect
    for client in made:
        client.socket.close()


def kill_engine(daemon: Any) -> None:
    """Kill the engine, and wait for the next one to serve."""
    pid = daemon.engine["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: (now := daemon.engine)["pid"] != pid and now["state"] == "serving", "another engine")


def test_a_session_is_resumable_if_its_client_asks(attach: Callable[[], Raw]) -> None:
    assert attach().attach(AttachFlag(0)) == (0, NO_TOKEN, 0)
    first, second = (attach().attach(AttachFlag.RESUMABLE) for _ in range(2))
    assert first.error == second.error == first.flags == 0
    assert len({NO_TOKEN, first.token, second.token}) == 3


def test_a_token_that_no_engine_knows_is_replaced(attach: Callable[[], Raw]) -> None:
    attached = attach().attach(RESUMES, b"x" * 16)
    assert (attached.error, attached.flags) == (0, 0)
    assert attached.token not in {b"x" * 16, NO_TOKEN}


def test_the_next_engine_has_the_session_and_its_files(daemon: Any, attach: Callable[[], Raw]) -> None:
    """Also of a file whose name is gone; on a slow machine the grace period may be over by then."""
    before = attach()
    token = before.attach(AttachFlag.RESUMABLE).token
    kept, kept_file = before.open("scratch/kept")
    other, other_file = before.open("scratch/other")
    for name in ("kept", "other"):
        (daemon.path / name).unlink()
    kill_engine(daemon)
    client = attach()
    attached = client.attach(RESUMES, token)
    assert (attached.error, attached.token) == (0, token)
    assert client.reopen("scratch/kept", kept, kept_file) == (kept, 0)
    assert client.reopen("scratch/other", other + 1, other_file)[0] == -errno.ENOENT, "not its number"
    client.repeated()
    if attached.flags:
        client.wait_go()
    assert client.open("scratch/new")[0] not in {kept, other + 1}


def test_a_file_that_was_replaced_is_refused(attach: Callable[[], Raw]) -> None:
    client = attach()
    client.attach(AttachFlag.RESUMABLE)
    _, (device, inode, generation) = client.open("scratch/file")
    assert client.reopen("scratch/file", 7, [device, inode, generation]) == (7, 0)
    assert client.reopen("scratch/file", 8, [device, inode + 1, generation]) == (-errno.ESTALE, Reason.OTHER_FILE)


@pytest.mark.parametrize(
    "message",
    [
        ring_wire.REOPEN.pack(RingMessage.REOPEN, 1, 1, 0, 0, 1, 1, 1) + b"scratch/file",
        ring_wire.REOPEN.pack(RingMessage.REOPEN, 1, 1, 1, 0, 1, 1, 1)[:-1],
        struct.pack("<II", RingMessage.GO, 0),
    ],
)
def test_a_malformed_message_ends_the_session(attach: Callable[[], Raw], message: bytes) -> None:
    client = attach()
    client.attach(AttachFlag.RESUMABLE)
    client.socket.send(message)
    assert client.socket.recv(8192) == b""


def test_repeated_without_a_grace_period_is_ignored(attach: Callable[[], Raw]) -> None:
    client = attach()
    client.attach(AttachFlag.RESUMABLE)
    client.repeated()
    assert client.open("scratch/file")[0] > 0
