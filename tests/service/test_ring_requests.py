"""Requests over a ring, under disturbances."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.patience import scaled
from tests.service.faulty_disk import faulty_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Daemon

MIB = 2**20


@pytest.fixture(name="daemon")
def daemon_fixture(renewed_daemon: Daemon) -> Daemon:
    """The same one for all tests."""
    return renewed_daemon


@pytest.fixture(name="client")
def client_fixture(shared_daemon: Any) -> Iterator[aiod_client.Client]:
    """With a ring."""
    with aiod_client.connect(shared_daemon.endpoint, transport="ring") as client:
        yield client


@pytest.fixture(name="file")
def file_fixture(client: aiod_client.Client) -> Iterator[aiod_client.File]:
    """An empty file."""
    with client.open("scratch/requests", "w+") as file:
        yield file


def test_requests_accept_buffers_in_the_rings_memory(client: aiod_client.Client, file: aiod_client.File) -> None:
    buffer = client.buffer(8192)
    assert bytes(buffer) == bytes(8192)
    buffer[:4] = b"data"
    assert file.pwrite(buffer[:4], 100) == 4
    assert file.pread_into(buffer[4096:], 102) == 2
    assert bytes(buffer[4096:4099]) == b"ta\0"
    future = file.submit([("read_into", buffer[10:20], 100)])[0]
    assert future.result(timeout=scaled(60)) == 4
    assert bytes(buffer[10:14]) == b"data"
    assert len(file.buffer(1)) == 1


def take_all(client: aiod_client.Client, nbytes: int) -> Iterator[memoryview]:
    """Allocate buffers until there is none of that size left."""
    try:
        while True:
            yield client.buffer(nbytes)
    except aiod_client.AiodError:
        return


def test_requests_work_while_all_of_the_rings_memory_is_in_use(
    client: aiod_client.Client, file: aiod_client.File
) -> None:
    buffers = list(take_all(client, MIB))
    assert len(buffers) >= 6
    buffers += take_all(client, 4096)  # the small rest
    with pytest.raises(aiod_client.AiodError, match="has no room for it"):
        client.buffer(1)
    data = os.urandom(3 * MIB)
    assert file.pwrite(data, 0) == len(data)
    assert file.pread(len(data), 0) == data
    futures = file.submit([("read", MIB, number * MIB) for number in range(3)])
    assert b"".join(future.result(timeout=scaled(60)) for future in futures) == data
    buffers.clear()
    assert len(client.buffer(8 * MIB)) == 8 * MIB


def test_more_requests_than_the_ring_holds_all_complete(file: aiod_client.File) -> None:
    futures = file.submit([("write", bytes([number % 251]) * 65536, number * 65536) for number in range(1000)])
    assert sum(future.result(timeout=scaled(60)) for future in futures) == 1000 * 65536
    found = file.pread(1000 * 65536, 0)
    assert all(found[number * 65536 :: 65536][:1] == bytes([number % 251]) for number in range(1000))


def test_a_signal_handler_may_use_the_file_its_thread_waits_for(file: aiod_client.File) -> None:
    file.pwrite(b"before", 0)
    found: list[bytes] = []

    def handle(*_: object) -> None:
        found.append(file.pread(6, 0))

    def signal_ourselves() -> None:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        timer = threading.Thread(target=signal_ourselves)
        timer.start()
        for _ in range(2000):
            assert file.pread(6, 0) == b"before"
        timer.join()
        while not found:
            assert file.pread(6, 0) == b"before"
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert set(found) == {b"before"}


def test_a_forked_child_gets_an_error_and_does_no_harm(file: aiod_client.File) -> None:
    file.pwrite(b"parent", 0)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            file.pread(6, 0)
        except aiod_client.AiodError as error:
            status = 0 if "before fork()" in str(error) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert file.pread(6, 0) == b"parent"


def ends(child: Callable[[], object]) -> int:
    """Exit status of a forked child that calls it, and then collects all garbage."""
    pid = os.fork()
    if pid == 0:
        status = 1
        faulthandler.disable()  # it would report what is expected
        try:
            child()
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_cannot_use_ring_buffers(client: aiod_client.Client, file: aiod_client.File) -> None:
    """The buffers belong to its parent: shared memory, maybe about to be written to a file."""
    buffer = client.buffer(4096)
    buffer[:6] = b"parent"

    def write() -> None:
        buffer[:5] = b"child"

    def let_go() -> None:
        nonlocal buffer, client, file
        del buffer, client, file

    assert ends(write) == -signal.SIGSEGV
    assert ends(lambda: None) == 0
    assert ends(let_go) == 0
    assert ends(client.close) == 0
    assert subprocess.run(["true"], check=True).returncode == 0
    worker = multiprocessing.get_context("fork").Process(target=len, args=(b"",))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert file.pwrite(buffer[:6], 0) == 6
    assert file.pread(6, 0) == b"parent"


def test_a_file_may_be_closed_with_requests_in_flight(client: aiod_client.Client) -> None:
    file = client.open("scratch/closed", "w+")
    futures = file.submit([("write", b"x" * 4096, number * 4096) for number in range(200)])
    file.close()
    assert [future.result(timeout=scaled(60)) for future in futures] == [4096] * 200
    with pytest.raises(aiod_client.AiodError, match="closed"):
        file.pread(1, 0)
    with client.open("scratch/closed") as again:
        assert again.size() == 200 * 4096


class Held:
    """A file on a disk that can be held, and a client with a ring."""

    def __init__(self, disk: Any, client: aiod_client.Client) -> None:
        self.disk = disk
        self.client = client
        self.file = client.open("disk", "r", direct=True)


@pytest.fixture(name="held")
def held_fixture(new_daemon: Callable[..., Any], disk_path: Path) -> Iterator[Held]:
    """Any number of workers."""
    with faulty_disk(disk_path) as disk:
        daemon = new_daemon(**{"exports.disk": {"path": str(disk.path)}})
        daemon.start()
        with aiod_client.connect(daemon.endpoint, transport="ring", timeout=scaled(60)) as client:
            made = Held(disk, client)
            yield made
            made.file.close()
        daemon.stop()


class InterruptedHereError(Exception):
    """Raised by a signal handler."""


def test_an_exception_in_a_signal_handler_ends_the_wait(held: Held, wait_until: Callable[..., None]) -> None:
    def handle(*_: object) -> None:
        raise InterruptedHereError

    previous = signal.signal(signal.SIGUSR1, handle)
    before = held.disk.arrived("Read")
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        wait_until(lambda: held.disk.arrived("Read") > before, "the read at the disk")
        signal.pthread_kill(main, signal.SIGUSR1)

    try:
        with held.disk.holding("pread"):
            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(InterruptedHereError):
                held.file.pread(4096, 0)
            thread.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert held.file.pread(10, 0) == bytes(10)


def test_a_buffer_given_up_in_flight_stays_until_the_read_is_over(held: Held) -> None:
    buffer = held.client.buffer(MIB)
    with held.disk.holding("pread"):
        with pytest.raises(TimeoutError, match="unknown whether done"):
            held.file.pread_into(buffer, 0, timeout=0.2)
        del buffer
        # What is left does not have its place.
        others = [held.client.buffer(MIB) for _ in range(6)]
        for other in others:
            other[:] = b"\xff" * MIB
    for _ in range(3):
        assert held.file.pread(4096, 0) == bytes(4096)
    assert all(bytes(other) == b"\xff" * MIB for other in others)


def test_a_client_may_be_closed_while_a_thread_reads(held: Held, wait_until: Callable[..., None]) -> None:
    outcome: list[BaseException] = []
    before = held.disk.arrived("Read")

    def read() -> None:
        try:
            held.file.pread(4096, 0)
        except OSError as error:
            outcome.append(error)

    with held.disk.holding("pread"):
        thread = threading.Thread(target=read)
        thread.start()
        wait_until(lambda: held.disk.arrived("Read") > before, "the read at the disk")
        held.client.close()
        thread.join(scaled(60))
        assert not thread.is_alive()
    (error,) = outcome
    assert isinstance(error, aiod_client.AiodError)
    assert "the client was closed" in str(error)


READS_IN_DAEMON_THREADS = """
import sys, threading, time, aiod_client
client = aiod_client.connect(sys.argv[1], transport="ring")
file = client.open("scratch/requests", "w+", direct=True)
file.pwrite(bytes(4096), 0)
def read():
    while True:
        file.pread(4096, 0)
for _ in range(3):
    threading.Thread(target=read, daemon=True).start()
time.sleep(0.1)
"""


def test_a_program_may_exit_while_daemon_threads_wait(shared_daemon: Any) -> None:
    command = [sys.executable, "-W", "ignore", "-c", READS_IN_DAEMON_THREADS, shared_daemon.endpoint]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


async def read_into_buffers(endpoint: str, *, cancelled: bool) -> None:
    """In sequence, more buffers than fit at once."""
    async with (
        aio.connect(endpoint, transport="ring") as client,
        await client.open("scratch/requests", "w+") as file,
    ):
        await file.pwrite(bytes(MIB // 4), 0)
        for _ in range(100):
            buffer = client.buffer(MIB // 4)
            read = asyncio.ensure_future(file.pread_into(buffer, 0))
            await asyncio.sleep(0)
            if cancelled:
                read.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert await read == MIB // 4
            del buffer, read
            await file.size()  # behind it


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_buffer_is_released_with_its_request(shared_daemon: Any, *, cancelled: bool) -> None:
    gc.disable()
    try:
        asyncio.run(read_into_buffers(shared_daemon.endpoint, cancelled=cancelled))
    finally:
        gc.enable()


READS_IN_A_FINALIZER = """
import ctypes, sys, aiod_client
class Array(ctypes.c_char * 4096):
    def __del__(self):
        file.pread_into(bytearray(16), 0)
client = aiod_client.connect(sys.argv[1], transport="ring")
file = client.open("scratch/requests", "w+")
file.pwrite(bytes(4096), 0)
for _ in range(300):
    array = Array.from_buffer(client.buffer(4096))
    future = file.submit([("read_into", array, 0)])[0]
    file._link.abandon(future._request, OSError())
    del array, future
    file.pread_into(bytearray(16), 0)
"""


def test_a_finalizer_of_a_buffer_may_read(shared_daemon: Any) -> None:
    command = [sys.executable, "-W", "ignore", "-c", READS_IN_A_FINALIZER, shared_daemon.endpoint]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_request_with_an_expired_timeout_is_not_executed(daemon: Any, stopped: Callable[[], int]) -> None:
    with aiod_client.connect(daemon.endpoint, transport="ring") as client:
        file = client.open("scratch/requests", "w+")
        stopped()
        with pytest.raises(TimeoutError):
            file.pread(1, 0, timeout=-1)
        with pytest.raises(TimeoutError):
            file.pwrite(b"x", 0, timeout=-1)


def test_an_error_that_refers_to_its_request_does_not_keep_the_ring(daemon: Any, stopped: Callable[[], int]) -> None:
    """The error's traceback refers to the waiting frame, and that to the request: a cycle for the garbage collector."""

    async def go() -> None:
        async with aio.connect(daemon.endpoint, transport="ring") as client:
            file = await client.open("scratch/requests", "w+")
            stopped()
            asked = asyncio.gather(*(file.pread(1, 0) for _ in range(8)), return_exceptions=True)
            await asyncio.sleep(0)
            await client.close()
            assert all(isinstance(error, OSError) for error in await asked)

    def rings() -> int:
        gc.collect()
        return Path("/proc/self/maps").read_text().count("/memfd:aiod")

    before = rings()
    asyncio.run(go())
    assert rings() == before


@pytest.mark.parametrize("killed", [False, True])
def test_a_waiting_close_returns_when_the_session_ends(
    daemon: Any, stopped: Callable[[], int], *, killed: bool
) -> None:
    client = aiod_client.connect(daemon.endpoint, transport="ring", timeout=None)
    file = client.open("scratch/requests", "w+")
    pid = stopped()
    flushed = file.submit([("flush",)])[0]
    raised: list[OSError] = []

    def close() -> None:
        try:
            file.close()
        except OSError as error:
            raised.append(error)

    closer = threading.Thread(target=close, daemon=True)
    closer.start()
    closer.join(0.2)
    ender = threading.Thread(target=client.close, daemon=True)
    if killed:
        os.kill(pid, signal.SIGKILL)
    else:
        ender.start()
    with pytest.raises(aiod_client.AiodError):
        flushed.result(timeout=scaled(60))
    closer.join(scaled(60))
    assert "not sent" in str(raised)
    if killed:
        ender.start()
    ender.join(scaled(60))
    assert not ender.is_alive()


@pytest.mark.parametrize("killed", [False, True])
def test_an_awaited_close_returns_when_the_session_ends(
    daemon: Any, stopped: Callable[[], int], *, killed: bool
) -> None:
    async def main() -> None:
        async with aio.connect(daemon.endpoint, transport="ring", timeout=None) as client:
            file = await client.open("scratch/requests", "w+")
            pid = stopped()
            flushed = file.submit([("flush",)])[0]
            closing = asyncio.ensure_future(file.close())
            await asyncio.sleep(0.2)
            if killed:
                os.kill(pid, signal.SIGKILL)
            else:
                await client.close()
            for ended in flushed, closing:
                with pytest.raises(aiod_client.AiodError):
                    await asyncio.wait_for(ended, 20)

    asyncio.run(main())


CANCELS_IN_THREADS = """
import concurrent.futures, sys, threading, time, aiod_client
sys.setswitchinterval(1e-6)
client = aiod_client.connect(sys.argv[1], transport="ring")
file = client.open("scratch/requests", "w+")
file.pwrite(bytes(4096), 0)
end_s = time.monotonic() + 3
def cancel():
    while time.monotonic() < end_s:
        futures = file.submit([("read", 4096, 0)] * 8 + [("size",)] * 4)
        for future in futures:
            future.cancel()
        concurrent.futures.wait(futures, timeout=60)
        for future in futures:
            future.cancelled() or future.result(timeout=60)
threads = [threading.Thread(target=cancel) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_cancel_while_others_reap(shared_daemon: Any) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CANCELS_IN_THREADS, shared_daemon.endpoint]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_forked_child_cannot_cancel_its_parents_requests(daemon: Any, stopped: Callable[[], int]) -> None:
    async def main() -> None:
        async with (
            aio.connect(daemon.endpoint, transport="ring") as client,
            await client.open("scratch/requests", "w+") as file,
        ):
            pid = stopped()
            size = file.submit([("size",)])[0]
            child = os.fork()
            if child == 0:
                size.cancel()
                os._exit(0)
            os.waitpid(child, 0)  # noqa: ASYNC222 - the child is to be over
            os.kill(pid, signal.SIGCONT)
            assert await size == 0
            assert await asyncio.gather(*[file.size() for _ in range(300)]) == [0] * 300

    asyncio.run(main())
