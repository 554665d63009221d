"""Locks of files between the sessions of one daemon."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod.engine.locks import WAITING_MAX
from aiod_client import aio
from aiod_protocol.wire import LOCK_LAST, MessageType
from tests.conftest import wait_until
from tests.patience import scaled
from tests.service.locking import is_free

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG_S = scaled(60.0)


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport: both, for a test that is marked so."""
    return getattr(request, "param", "auto")


by_both = pytest.mark.parametrize("transport", ["zmq", "ring"], indirect=True)


@pytest.fixture
def clients(renewed_daemon: Any, transport: Any) -> Iterator[list[aiod_client.Client]]:
    """Three clients, each with a session of its own."""
    made = [connect(renewed_daemon, transport) for _ in range(3)]
    yield made
    for client in made:
        client.close()


def connect(daemon: Any, transport: Any = "auto") -> aiod_client.Client:
    return aiod_client.connect(daemon.endpoint, transport=transport, timeout=LONG_S, reconnect_timeout=LONG_S)


@pytest.fixture
def files(clients: list[aiod_client.Client]) -> list[aiod_client.File]:
    """The same file, opened by each client."""
    first = clients[0].open("scratch/locked", "w+")
    return [first, *(client.open("scratch/locked", "r+") for client in clients[1:])]


def waiting(daemon: Any) -> int:
    return int(daemon.engine["locks"]["waiting"])


def test_an_exclusive_lock_keeps_off_all_others(files: list[aiod_client.File]) -> None:
    with files[0].lock() as lock:
        assert lock.exclusive
        assert not lock.lost
        assert not is_free(files[1])
        assert not is_free(files[1], exclusive=False)
        assert not is_free(files[1], offset=LOCK_LAST, length=1)
    assert is_free(files[1])


def test_shared_locks_and_other_ranges_do_not_conflict(files: list[aiod_client.File]) -> None:
    with files[0].lock(exclusive=False, length=10) as lock, files[1].lock(exclusive=False, offset=5, length=10):
        assert not lock.exclusive
        assert not is_free(files[2], length=1)
        assert not is_free(files[2], offset=14, length=1)
        assert is_free(files[2], offset=15)
        with files[0].lock(offset=20):
            assert not is_free(files[1], offset=30, length=1)


def test_another_program_sees_the_lock(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    program = (
        "import fcntl, sys\n"
        f"with open({str(renewed_daemon.path / 'locked')!r}, 'r+') as f:\n"
        "    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    )
    with files[0].lock():
        assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode
    subprocess.run([sys.executable, "-c", program], check=True)


def test_who_waits_gets_the_lock_when_it_is_released(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    with ThreadPoolExecutor() as threads:
        with files[0].lock():
            waits = threads.submit(files[1].lock)
            wait_until(lambda: waiting(renewed_daemon) == 1, "it waits")
            assert not waits.done()
        with waits.result(LONG_S):
            assert not is_free(files[0])


def test_waiting_ends_at_the_timeout(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    with files[0].lock(offset=100, length=1):
        with pytest.raises(TimeoutError, match="another one has a lock"):
            files[1].lock(timeout=0.05)
        assert waiting(renewed_daemon) == 0
    assert is_free(files[1])


def test_locks_are_granted_in_the_order_of_the_requests(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    """A shared request does not overtake an exclusive one that waits, or that would wait for ever."""
    order = []

    def take(number: int, *, exclusive: bool) -> None:
        with files[number].lock(exclusive=exclusive):
            order.append(number)

    with ThreadPoolExecutor() as threads:
        with files[0].lock(exclusive=False):
            waits = [threads.submit(take, 1, exclusive=True)]
            wait_until(lambda: waiting(renewed_daemon) == 1, "the first waits")
            waits.append(threads.submit(take, 2, exclusive=False))
            wait_until(lambda: waiting(renewed_daemon) == 2, "the second waits behind it")
        for each in waits:
            each.result(LONG_S)
    assert order == [1, 2]


def test_one_open_file_does_not_wait_for_itself(files: list[aiod_client.File]) -> None:
    with files[0].lock(length=10):
        for offset in (0, 9):
            with pytest.raises(OSError, match="release it first") as refused:
                files[0].lock(offset=offset, length=1)
            assert refused.value.errno == errno.EDEADLK
        with pytest.raises(OSError, match="as a whole") as refused:
            files[0].unlock(length=5)
        assert refused.value.errno == errno.EINVAL
        assert not is_free(files[1], length=1)
    assert is_free(files[1])


def test_a_lock_needs_the_right_mode_and_a_range(clients: list[aiod_client.Client], files: Any) -> None:
    with clients[0].open("scratch/locked") as reader:
        with pytest.raises(OSError, match="open for writing") as refused:
            reader.lock()
        assert refused.value.errno == errno.EBADF
        with reader.lock(exclusive=False):
            assert not is_free(files[1])
    assert is_free(files[1])
    for wrong in ({"offset": -1}, {"length": 0}, {"offset": LOCK_LAST, "length": 2}):
        with pytest.raises(ValueError, match="no range"):
            files[0].lock(**wrong)


def test_closing_releases_the_locks(files: list[aiod_client.File], clients: list[aiod_client.Client]) -> None:
    """Also those of the description that stays open because the file's flushes use it."""
    files[0].lock()
    files[0].close()
    files[1].lock(length=1)
    assert not is_free(files[2])
    clients[1].close()
    wait_until(lambda: is_free(files[2]), "the end of the session has released it")


def test_the_death_of_a_client_releases_its_locks(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    program = (
        "import aiod_client, time\n"
        f"client = aiod_client.connect({renewed_daemon.endpoint!r})\n"
        "client.open('scratch/locked', 'r+').lock()\n"
        "print('locked', flush=True)\n"
        "time.sleep(3600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        assert not is_free(files[0])
        child.kill()
        files[0].lock().unlock()


@by_both
def test_unlock_waits_for_requests_in_flight(new_daemon: Callable[..., Any], transport: Any) -> None:
    """Else a write whose caller has given it up could be carried out when another one has the lock."""
    slow = {"operations": ["write"], "every": 1, "delay_ms": 300}
    daemon = new_daemon(**{"exports.scratch": {"faults": [slow]}})
    daemon.start()
    with connect(daemon, transport) as client, client.open("scratch/slow", "w+") as file:
        lock = file.lock()
        (write,) = file.submit([("write", b"late", 0)])
        lock.unlock()
        assert write.done()


def test_a_cancelled_wait_leaves_nothing_behind(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    async def until(condition: Callable[[], bool], what: str) -> None:
        await asyncio.to_thread(wait_until, condition, what)

    async def scenario() -> None:
        client = aio.connect(renewed_daemon.endpoint, timeout=LONG_S)
        async with client as connected, await connected.open("scratch/locked", "r+") as file:
            waits = asyncio.create_task(file.lock())
            await until(lambda: waiting(renewed_daemon) == 1, "it waits")
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            await until(lambda: waiting(renewed_daemon) == 0, "it waits no more")
            lock.unlock()
            async with await file.lock(length=7) as again:
                assert again.exclusive
                assert not is_free(files[0], length=1)
        assert is_free(files[0])

    lock = files[0].lock()
    asyncio.run(scenario())


@by_both
def test_an_engine_that_dies_loses_no_lock(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    locks = [files[0].lock(length=10), files[1].lock(offset=10, length=10), files[2].lock(exclusive=False, offset=20)]
    pid = renewed_daemon.engine["pid"]
    os.kill(pid, signal.SIGKILL)
    for number, file in enumerate(files):
        file.pwrite(b"x", number * 10)
    assert not any(lock.lost for lock in locks)
    assert renewed_daemon.engine["locks"]["regained"] == len(locks)
    assert not is_free(files[0], offset=10, length=1)
    assert not is_free(files[1], offset=20)
    locks[0].unlock()
    assert is_free(files[1], length=10)


def test_an_orderly_restart_loses_no_lock(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    lock = files[0].lock()
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(files[1].lock)
        wait_until(lambda: waiting(renewed_daemon) == 1, "it waits")
        renewed_daemon.stop()
        renewed_daemon.start()
        files[0].pwrite(b"x", 0)
        assert not lock.lost
        lock.unlock()
        waits.result(LONG_S).unlock()


HOLDER = """
import sys, aiod_client
with aiod_client.connect(sys.argv[1], timeout=float(sys.argv[2]), reconnect_timeout=float(sys.argv[2])) as client:
    file = client.open("scratch/locked", "r+")
    with file.lock():
        print("locked", flush=True)
        sys.stdin.readline()
        file.pwrite(b"held", 0)
        print("written", flush=True)
        sys.stdin.readline()
"""


@contextlib.contextmanager
def other_holder(daemon: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the file; for each line that it gets it does the next step of HOLDER."""
    command = [sys.executable, "-c", HOLDER, daemon.endpoint, str(LONG_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as holder:
        try:
            assert line_of(holder) == "locked"
            yield holder
        finally:
            holder.kill()  # a test that fails may have left it stopped


def line_of(process: subprocess.Popen[str], said: str = "") -> str:
    """The next line of `process`, which is told `said` before."""
    assert process.stdout is not None
    assert process.stdin is not None
    if said:
        print(said, file=process.stdin, flush=True)
    return process.stdout.readline().strip()


def test_after_an_orderly_restart_new_locks_wait_for_clients_that_come_back_late(
    files: list[aiod_client.File], renewed_daemon: Any
) -> None:
    with other_holder(renewed_daemon) as holder, ThreadPoolExecutor() as threads:
        os.kill(holder.pid, signal.SIGSTOP)
        renewed_daemon.stop()
        renewed_daemon.start()
        assert not is_free(files[0])
        waits = threads.submit(files[0].lock)
        wait_until(lambda: waiting(renewed_daemon) == 1, "it waits")
        os.kill(holder.pid, signal.SIGCONT)
        assert line_of(holder, "write") == "written"
        assert not waits.done()
        line_of(holder, "release")
        waits.result(LONG_S).unlock()
        assert files[0].pread(4, 0) == b"held"


def test_after_an_orderly_restart_no_lock_waits_for_clients_that_have_ended(
    files: list[aiod_client.File], renewed_daemon: Any
) -> None:
    with other_holder(renewed_daemon) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        renewed_daemon.stop()
        holder.kill()
        holder.wait()
        renewed_daemon.start()
        assert is_free(files[0])


def test_a_lock_that_another_program_took_meanwhile_is_lost(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    """Every request but a flush fails until the lock is released."""
    program = (
        "import fcntl, sys\n"
        f"with open({str(renewed_daemon.path / 'locked')!r}, 'r+') as f:\n"
        "    print('begin', flush=True)\n"
        "    fcntl.lockf(f, fcntl.LOCK_EX)\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    files[0].pwrite(b"mine", 0)
    lock = files[0].lock()
    pid = renewed_daemon.engine["pid"]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"begin\n"
        wait_until(lambda: _sleeps_in_lock(other.pid), "the other program waits for the lock")
        os.kill(pid, signal.SIGKILL)
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(aiod_client.LockLostError) as lost:
            files[0].pwrite(b"not mine", 0)
        assert lost.value.errno == errno.EIO
        assert lost.value.reason == aiod_client.Reason.LOCK_LOST
        assert lock.lost
        files[0].flush()
        other.stdin.close()
    for request in (files[0].size, lambda: files[0].pread(1, 0), lambda: files[0].truncate(0)):
        with pytest.raises(aiod_client.LockLostError):
            request()
    lock.unlock()
    assert files[0].pread(8, 0) == b"mine"


def test_a_with_block_whose_lock_was_lost_ends_with_an_error(files: list[aiod_client.File]) -> None:
    """Also when nothing was asked of the file since."""
    block = files[1].lock()
    with pytest.raises(aiod_client.LockLostError), block:
        files[1]._opened.locks[0, 0].lost = True  # as if the daemon had said so
    assert is_free(files[0])


def _sleeps_in_lock(pid: int) -> bool:
    return Path(f"/proc/{pid}/wchan").read_text().startswith(("fcntl_setlk", "locks_lock", "posix_lock"))


@by_both
def test_the_daemon_itself_refuses_requests_under_a_lost_lock(
    files: list[aiod_client.File], renewed_daemon: Any
) -> None:
    """A client that does not look is fenced as well, by message and by ring, until it locks again."""
    lock = files[0].lock()
    file = files[0]._opened
    file.locks[0, 0] = dataclasses.replace(file.locks[0, 0], number=0)
    os.kill(renewed_daemon.engine["pid"], signal.SIGKILL)
    with pytest.raises(aiod_client.LockLostError):
        files[0].size()
    files[0]._link.session.files.lost.clear()
    for request in (lambda: files[0].pwrite(b"x", 0), lambda: files[0].pread(1, 0), files[0].size):
        with pytest.raises(aiod_client.LockLostError, match="lock of this handle was lost"):
            request()
    with files[0].lock():
        files[0].pwrite(b"x", 0)
    lock.unlock()


def test_a_session_has_a_limit_of_waiting_requests(renewed_daemon: Any, connect: Callable[..., Any]) -> None:
    front = connect(renewed_daemon.endpoint)
    endpoint = front.ask(MessageType.LOCATE, 1, "scratch")[4]["endpoint"]
    raw, other = connect(endpoint), connect(endpoint)
    raw.hello()
    other.hello()
    handle, others = raw.handle("limit"), other.handle("limit")
    assert other.ask(MessageType.LOCK, other.token, 1, others, 1, 0, 0, 0)[2] > 0
    for number in range(WAITING_MAX):
        raw.send(MessageType.LOCK, raw.token, number, handle, 1, number, 1, 3_600_000)
    result, text = raw.ask(MessageType.LOCK, raw.token, WAITING_MAX, handle, 1, 5000, 1, 3_600_000)[2:4]
    assert (result, "wait already" in text) == (-errno.EAGAIN, True)
    assert waiting(renewed_daemon) == WAITING_MAX
    assert raw.ask(MessageType.LOCK, raw.token, 1000, handle, 3, 0, 1, 0)[2] == -errno.EINVAL
    assert raw.ask(MessageType.LOCK, raw.token, 1000, handle, 1, LOCK_LAST, 2, 0)[2] == -errno.EINVAL
    assert raw.ask(MessageType.LOCK, raw.token, 1000, handle + 1, 1, 0, 1, 0)[2] == -errno.EBADF
    raw.send(MessageType.UNLOCK, raw.token, 1001, handle, 0, 0)
    answers = [raw.answer() for _ in range(WAITING_MAX + 1)]
    assert sorted(answer[2] for answer in answers) == [*[-errno.ECANCELED] * WAITING_MAX, 0]
    assert waiting(renewed_daemon) == 0
    for each in (raw, other):
        assert each.ask(MessageType.GOODBYE, each.token, 1)[2] == 0


def test_an_export_may_forbid_locks(new_daemon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = new_daemon(**{"exports.scratch": {"locks": False}})
    daemon.start()
    with connect(daemon) as client, client.open("scratch/f", "w+") as file:
        with pytest.raises(PermissionError, match="its option locks does"):
            file.lock()
        welcome = file._link.session.welcome
        monkeypatch.setattr(file._link.session, "welcome", dataclasses.replace(welcome, locks=False))
        with pytest.raises(OSError, match="too old") as refused:
            file.lock()
        assert refused.value.errno == errno.EOPNOTSUPP


def test_locks_on_each_file_system(place: Any) -> None:
    with place.open("locked") as file, place.open("locked", "r+") as other:
        with file.lock(length=5):
            assert not is_free(other)
            assert is_free(other, offset=5)
        assert is_free(other)


def test_aiodctl_shows_locks(files: list[aiod_client.File], renewed_daemon: Any) -> None:
    with files[0].lock(offset=5, length=7):
        handles = renewed_daemon.json("handles")["handles"]
        (lock,) = [lock for handle in handles for lock in handle["locks"]]
        assert lock == {"offset": 5, "length": 7, "exclusive": True, "lost": False}
        counts = [client["locks"] for client in renewed_daemon.json("clients")["clients"]]
        assert sorted(count["held"] for count in counts) == [0, 0, 1]
