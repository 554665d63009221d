"""Locks of C programs with libaiod, beside those of other clients, and when their engine dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, Self

import pytest

import aiod_client
from aiod.engine.locks import HELD_MAX
from aiod_protocol import ring_wire
from aiod_protocol.ring_wire import RingFeature, RingMessage
from aiod_protocol.wire import LOCK_CLAIM, LOCK_EXCLUSIVE, LOCK_LAST
from tests.conftest import freeze, kill, wait_until
from tests.patience import scaled
from tests.service.locking import is_free
from tests.service.resuming import Program, build_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG_S = scaled(60.0)
RECONNECT_MS = int(LONG_S * 1000)
RDWR = 1 | 2 | 4


@pytest.fixture(scope="module", name="directory")
def directory_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resuming")


@pytest.fixture
def run(directory: Path, renewed_daemon: Any) -> Iterator[Callable[..., Program]]:
    """Starts programs, which are killed after the test; the library is checked by a sanitizer."""
    programs: list[Program] = []

    def run(*arguments: object, sanitizer: str = "address,undefined") -> Program:
        programs.append(Program(build_program(directory, sanitizer), renewed_daemon, *map(str, arguments)))
        return programs[-1]

    yield run
    for program in programs:
        program.process.kill()
        program.process.communicate()


@pytest.fixture
def file(renewed_daemon: Any) -> Iterator[aiod_client.File]:
    """The file that the program locks, opened by a client in Python."""
    with aiod_client.connect(renewed_daemon.endpoint, timeout=LONG_S, reconnect_timeout=LONG_S) as client:
        yield client.open("scratch/f", "w+")


def waiting(daemon: Any) -> int:
    return int(daemon.engine.get("locks", {}).get("waiting", 0))  # none while an engine starts


@pytest.mark.parametrize("reconnect_ms", [0, RECONNECT_MS])
def test_a_c_program_and_a_python_client_exclude_each_other(
    run: Callable[..., Program], renewed_daemon: Any, file: aiod_client.File, reconnect_ms: int
) -> None:
    program = run(reconnect_ms)
    handle = program.say("open", "scratch/f", RDWR)
    assert program.say("lock", "x:0", handle, 10) == 0
    assert program.say("lock", "s:0", handle, 1) == -errno.EDEADLK
    assert not is_free(file)
    assert not is_free(file, exclusive=False)
    assert is_free(file, offset=10)
    assert program.say("unlock", "-", handle, 5) == -errno.EINVAL, "a lock is released as a whole"
    assert program.say("unlock", "-", handle, 0) == 0
    with file.lock(exclusive=False):
        assert program.say("lock", "s:0", handle, 0) == 0
        assert program.say("unlock", "-", handle, 0) == 0
        assert program.say("lock", "x:0", handle, 0) == -errno.EAGAIN
        assert program.say("lock", "x:1", handle, 0) == -errno.ETIMEDOUT
        program.send("lock", "x:-1", handle, 0)
        wait_until(lambda: waiting(renewed_daemon) == 1, "the program waits")
    assert program.answer().split()[0] == "0"
    assert program.say("lock", "x:0", handle + 1, 0) == -errno.EBADF
    assert program.say("unlock", "-", handle + 1, 0) == -errno.EBADF
    assert program.say("close", "-", handle) == 0
    assert is_free(file)


def test_an_unlock_follows_the_requests_in_flight(
    run: Callable[..., Program], renewed_daemon: Any, file: aiod_client.File
) -> None:
    """Nobody reaps the request meanwhile."""
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/f", RDWR)
    assert program.say("lock", "x:0", handle, 0) == 0
    pid = renewed_daemon.engine["pid"]
    freeze(pid)
    program.say("begin-write", "w", handle, 6)
    program.send("unlock", "-", handle, 0)
    os.kill(pid, signal.SIGCONT)
    assert program.answer().split()[0] == "0"
    assert file.pread(6, 0) == b"w" * 6
    assert is_free(file)
    program.send("end")
    assert program.answer() == "6 0"


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_locks_are_regained_when_the_engine_dies(
    run: Callable[..., Program], renewed_daemon: Any, file: aiod_client.File, sanitizer: str
) -> None:
    program = run(RECONNECT_MS, sanitizer=sanitizer)
    handle = program.say("open", "scratch/f", RDWR)
    assert program.say("lock", "x:0", handle, 10) == 0
    for restart in (
        lambda: kill(renewed_daemon.engine["pid"]),
        lambda: (renewed_daemon.stop(), renewed_daemon.start()),
    ):
        restart()
        program.say("read", "w", handle, 4)  # a write could be of unknown outcome
        assert program.say("write", "w", handle, 4) == 4
        assert not is_free(file)
    assert program.say("unlock", "-", handle, 0) == 0
    assert is_free(file)


def test_a_wait_for_a_lock_goes_on_at_the_next_engine(
    run: Callable[..., Program], renewed_daemon: Any, file: aiod_client.File
) -> None:
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/f", RDWR)
    lock = file.lock()
    program.send("lock", "x:-1", handle, 0)
    wait_until(lambda: waiting(renewed_daemon) == 1, "the program waits")
    before = renewed_daemon.engine["pid"]
    kill(before)
    wait_until(lambda: renewed_daemon.engine["pid"] != before and waiting(renewed_daemon) == 1, "it waits again")
    assert not lock.lost
    lock.unlock()
    assert program.answer().split()[0] == "0"


def test_a_lock_that_others_had_in_between_is_lost(run: Callable[..., Program], renewed_daemon: Any) -> None:
    """The handle is fenced until the program releases the lock, but for flushes; another handle is not."""
    program = run(RECONNECT_MS)
    handle, other = (program.say("open", "scratch/f", RDWR) for _ in range(2))
    assert program.say("write", "w", handle, 4) == 4
    assert program.say("flush", "-", handle) == 0
    assert program.say("lock", "x:0", handle, 10) == 0
    with _taken_after_the_death_of_the_engine(renewed_daemon):
        program.send("read", "n", handle, 4)
        said = program.answer()
        assert said.startswith(f"{-errno.EIO} ")
        assert said.endswith("[LOCK_LOST]")
        assert program.say("flush", "-", handle) == 0
        assert program.say("read", "w", other, 4) == 4
    kill(renewed_daemon.engine["pid"])
    assert program.say("read", "-", handle, 4) == -errno.EIO, "it is lost at the next engine, too"
    assert program.say("unlock", "-", handle, 10) == 1
    assert program.say("unlock", "-", handle, 10) == 0
    assert program.say("read", "w", handle, 4) == 4
    assert program.say("lock", "x:0", handle, 10) == 0
    kill(renewed_daemon.engine["pid"])
    assert program.say("read", "w", handle, 4) == 4
    assert program.say("write", "n", handle, 4) == 4


def test_a_new_lock_takes_the_place_of_a_lost_one(run: Callable[..., Program], renewed_daemon: Any) -> None:
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/f", RDWR)
    assert program.say("lock", "x:0", handle, 10) == 0
    with _taken_after_the_death_of_the_engine(renewed_daemon):
        assert program.say("read", "-", handle, 4) == -errno.EIO
    assert program.say("lock", "x:-1", handle, 20) == 0
    assert program.say("write", "n", handle, 4) == 4
    assert program.say("unlock", "-", handle, 20) == 0


def test_the_locks_of_a_lost_file_are_lost(run: Callable[..., Program], renewed_daemon: Any) -> None:
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/f", RDWR)
    assert program.say("lock", "x:0", handle, 10) == 0
    (renewed_daemon.path / "f").unlink()
    (renewed_daemon.path / "f").write_bytes(b"another one")
    renewed_daemon.stop(signal.SIGKILL)  # with the descriptors that it keeps
    renewed_daemon.start()
    assert program.say("lock", "x:0", handle, 30) < 0
    assert program.say("unlock", "-", handle, 30) == 1
    assert program.say("unlock", "-", handle, 30) == 0


def test_an_engine_refuses_claims_that_make_no_sense(renewed_daemon: Any, file: aiod_client.File) -> None:
    """A claim beyond the limit of a session, of another range, of a handle that is not open: nothing grows."""
    with _RingSession(renewed_daemon) as session:
        handle = session.open("scratch/f")
        claim = LOCK_EXCLUSIVE | LOCK_CLAIM
        assert session.lock(handle, flags=claim, number=0) == -errno.EOWNERDEAD
        assert session.lock(handle, flags=claim, number=1) == -errno.EOWNERDEAD
        assert session.lock(handle, flags=claim, number=(1 << 64) - 1) == -errno.EOWNERDEAD
        assert session.lock(handle + 1, flags=claim, number=1) == -errno.EBADF
        assert session.lock(handle, flags=claim, offset=LOCK_LAST + 1, number=1) == -errno.EINVAL
        assert session.lock(handle, flags=claim | 4, number=1) == -errno.EINVAL
        results = [session.lock(handle, flags=claim, number=0) for _ in range(HELD_MAX)]
        assert results[-1] == -errno.ENOLCK
        assert session.unlock(handle) == results.index(-errno.ENOLCK) + 3
        assert session.lock(handle, flags=LOCK_EXCLUSIVE) > 0
        assert not is_free(file)
    wait_until(lambda: is_free(file), "the lock ends with the session")


@contextlib.contextmanager
def _taken_after_the_death_of_the_engine(daemon: Any) -> Iterator[None]:
    """Kill the engine; another program has the whole file locked when the next engine comes."""
    engine = daemon.engine["pid"]
    freeze(daemon.pid)
    try:
        kill(engine)
        with (daemon.path / "f").open("r+b") as other:
            fcntl.lockf(other, fcntl.LOCK_EX)
            os.kill(daemon.pid, signal.SIGCONT)
            yield
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


class _RingSession:
    """A session on the ring socket, message by message."""

    def __init__(self, daemon: Any) -> None:
        self._cookies = itertools.count(1)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(LONG_S)
        self._socket.connect(str(daemon.runtime_dir / "ring" / "scratch"))
        self._socket.send(
            ring_wire.ATTACH.pack(
                RingMessage.ATTACH, ring_wire.VERSION, bytes(ring_wire.TICKET_BYTES), 8, 0, 4096, b"test"
            )
        )
        answer, fds, *_ = socket.recv_fds(self._socket, ring_wire.MESSAGE_BYTES_MAX, 2)
        for fd in fds:
            os.close(fd)
        assert ring_wire.ATTACHED.unpack_from(answer)[-1] & RingFeature.LOCKS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _ask(self, cookie: int, message: bytes) -> int:
        self._socket.send(message)
        _, _, answered, result = ring_wire.REPLY.unpack_from(self._socket.recv(ring_wire.MESSAGE_BYTES_MAX))
        assert answered == cookie
        return int(result)

    def open(self, name: str) -> int:
        """A handle."""
        cookie = next(self._cookies)
        return self._ask(cookie, ring_wire.OPEN.pack(RingMessage.OPEN, RDWR, cookie, 0o644, 0) + name.encode())

    def lock(self, handle: int, *, flags: int, offset: int = 0, number: int = 0) -> int:
        """Lock from `offset` on."""
        cookie = next(self._cookies)
        return self._ask(cookie, ring_wire.LOCK.pack(RingMessage.LOCK, handle, cookie, offset, 0, number, flags, 0))

    def unlock(self, handle: int) -> int:
        """Release all locks."""
        cookie = next(self._cookies)
        return self._ask(cookie, ring_wire.UNLOCK.pack(RingMessage.UNLOCK, handle, cookie, 0, 0))
