"""Requests of asyncio tasks by the ring: futures of the native ring, and what the session adopts of them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import aiod_client
from aiod_client import aio
from aiod_client.aio import file as aio_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from tests.conftest import Daemon

BLOCK = 4096
LARGE = 1 << 20


@pytest.fixture(name="daemon")
def daemon_fixture(renewed_daemon: Daemon) -> Daemon:
    """The same one for all tests."""
    return renewed_daemon


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on the loop of that kind; fails if the loop has something to complain about."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run_on(coroutine: Coroutine[Any, Any, None]) -> None:
        complaints: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
            runner.run(asyncio.wait_for(coroutine, 60))
            gc.collect()
        assert complaints == []

    return run_on


@contextlib.asynccontextmanager
async def opened(daemon: Any, **options: Any) -> AsyncIterator[aio.File]:
    """An empty file, by the ring."""
    async with (
        aio.connect(daemon.endpoint, transport="ring", **options) as client,
        await client.open("scratch/awaited", "w+") as file,
    ):
        yield file


def ring_of(file: aio.File) -> Any:
    """Its native ring."""
    return file._link.ring


def changes(file: aio.File) -> set[int]:
    """Epochs of the changes that no flush is known to cover."""
    return file._link.opened(file._handle).dirty


def test_many_tasks_read_what_they_wrote(run: Any, shared_daemon: Any) -> None:
    async def work(file: aio.File, number: int) -> None:
        into = bytearray(BLOCK)
        for turn in range(40):
            data = bytes([number, turn]) * (BLOCK // 2)
            assert await file.pwrite(data, number * BLOCK, fua=turn == 0) == BLOCK
            if turn % 8 == 0:
                await file.flush()
            assert await file.pread(BLOCK, number * BLOCK) == data
            assert await file.pread_into(into, number * BLOCK) == BLOCK
            assert into == data

    async def main() -> None:
        async with opened(shared_daemon) as file:
            await asyncio.gather(*(work(file, number) for number in range(32)))
            assert len(await file.pread(10, 32 * BLOCK - 4)) == 4
            assert await file.pread(10, 1 << 40) == b""
            assert ring_of(file).awaited == 0

    run(main())


def test_more_tasks_than_the_ring_holds_are_all_served(run: Any, shared_daemon: Any) -> None:
    async def main() -> None:
        async with opened(shared_daemon) as file:
            writes = [file.pwrite(bytes([number % 251]) * 65536, number * 65536) for number in range(600)]
            long = file.pwrite(b"z" * (12 << 20), 600 * 65536)  # in parts, each with a place in the buffer pool
            assert await asyncio.gather(*writes, long) == [65536] * 600 + [12 << 20]
            found = await file.pread(600 * 65536, 0)
            assert all(found[number * 65536] == number % 251 for number in range(600))
            assert not ring_of(file).held

    run(main())


@pytest.mark.parametrize(("length", "left"), [(LARGE, 3), (BLOCK, 0)])
def test_large_results_are_copied_one_at_a_time(run: Any, shared_daemon: Any, length: int, left: int) -> None:
    async def main() -> None:
        async with opened(shared_daemon) as file:
            data = os.urandom(length)
            await file.pwrite(data, 0)
            ring = ring_of(file)
            before = ring.done_count
            tasks = [asyncio.ensure_future(file.pread(length, 0)) for _ in range(4)]
            await asyncio.sleep(0)  # they have asked; the loop does nothing else until the end of its turn
            ring.adopt(asyncio.Future())  # submits what waited for the engine to wake up
            while (seen := ring.done_count) < before + len(tasks):
                ring.wait(seen, 60.0)
            assert ring.reap(look=True) == []
            assert ring.awaited == left  # of the others the tasks that go on now need not wait for the copies
            assert await asyncio.gather(*tasks) == [data] * len(tasks)

    run(main())


def test_requests_of_a_turn_of_the_loop_are_all_submitted(run: Any, daemon: Any, stopped: Callable[[], int]) -> None:
    """An engine that slept when it was stopped hears of the first one; the others wait for the end of the turn."""

    async def main() -> None:
        async with opened(daemon) as file:
            pid = stopped()
            tasks = [asyncio.ensure_future(file.pwrite(b"x" * BLOCK, number * BLOCK)) for number in range(8)]
            await asyncio.sleep(0)
            assert ring_of(file).awaited == 8
            os.kill(pid, signal.SIGCONT)
            assert await asyncio.gather(*tasks) == [BLOCK] * 8

    run(main())


def test_a_timeout_says_whether_the_request_may_be_done(run: Any, daemon: Any, stopped: Callable[[], int]) -> None:
    async def main() -> None:
        async with opened(daemon) as file:
            pid = stopped()
            late = [file.pwrite(b"x", 0, timeout=0.2), file.pread(1, 0, timeout=0.2), file.flush(timeout=0.2)]
            for error in await asyncio.gather(*late, file.pread(1, 0, timeout=0.3), return_exceptions=True):
                assert isinstance(error, TimeoutError)
                assert error.errno == errno.ETIMEDOUT
                assert "scratch/awaited: " in str(error)
                assert "unknown whether done" in str(error)
            assert ring_of(file).awaited == 0
            os.kill(pid, signal.SIGCONT)
            assert await file.pwrite(b"y", 0) == 1
            assert await file.pread(1, 0) == b"y"

    run(main())


def test_a_request_in_time_is_not_disturbed_by_the_timer_of_an_earlier_one(
    run: Any, daemon: Any, stopped: Callable[[], int]
) -> None:
    async def main() -> None:
        async with opened(daemon) as file:
            pid = stopped()
            early = asyncio.ensure_future(file.pread(1, 0, timeout=0.1))
            late = asyncio.ensure_future(file.pwrite(b"y", 0, timeout=40))
            with pytest.raises(TimeoutError):
                await early
            os.kill(pid, signal.SIGCONT)
            assert await late == 1

    run(main())


def test_a_cancelled_await_ends_its_request_and_no_other(run: Any, daemon: Any, stopped: Callable[[], int]) -> None:
    async def main() -> None:
        async with opened(daemon) as file:
            await file.pwrite(b"before", 0)
            pid = stopped()
            into = bytearray(6)
            cancelled = [
                asyncio.ensure_future(file.pwrite(b"after!", 0)),
                asyncio.ensure_future(file.pread_into(into, 0)),
                asyncio.ensure_future(file.flush()),
            ]
            kept = asyncio.ensure_future(file.pread(6, 0))
            await asyncio.sleep(0)
            for task in cancelled:
                task.cancel()
            for task in cancelled:
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert ring_of(file).awaited == 1
            os.kill(pid, signal.SIGCONT)
            assert len(await kept) == 6
            assert into == bytes(6)
            await file.flush()

    run(main())


def test_a_request_cancelled_as_its_result_arrives_is_cancelled(run: Any, shared_daemon: Any) -> None:
    async def main() -> None:
        async with opened(shared_daemon) as file:
            for number in range(50):
                tasks = [asyncio.ensure_future(file.pwrite(b"x", at)) for at in range(4)]
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(outcome == 1 or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            assert await file.pwrite(b"y", 0) == 1

    run(main())


def test_a_close_waits_for_the_requests_in_flight(run: Any, daemon: Any, stopped: Callable[[], int]) -> None:
    async def main() -> None:
        async with aio.connect(daemon.endpoint, transport="ring") as client:
            file = await client.open("scratch/awaited", "w+")
            pid = stopped()
            writes = [asyncio.ensure_future(file.pwrite(b"x" * BLOCK, number * BLOCK)) for number in range(4)]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(file.close())
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGCONT)
            assert await asyncio.gather(*writes) == [BLOCK] * 4
            await closing
            with pytest.raises(aiod_client.AiodError, match="closed"):
                await file.pwrite(b"x", 0)
            assert (await client.stat("scratch/awaited")).size == 4 * BLOCK

    run(main())


def test_errors_have_their_errno_and_a_sentence(run: Any, shared_daemon: Any) -> None:
    async def main() -> None:
        async with (
            aio.connect(shared_daemon.endpoint, transport="ring") as client,
            await client.open("scratch/awaited", "w") as file,
        ):
            for refused in file.pread(1, 0), file.pread_into(bytearray(1), 0), file.pwrite(b"x", (1 << 63) - 1):
                with pytest.raises(OSError, match=r"scratch/awaited|write of 1 bytes") as caught:
                    await refused
                assert caught.value.errno in {errno.EBADF, errno.EACCES, errno.EINVAL, errno.EPERM, errno.EFBIG}
            for odd in -1, "x", 1.5:
                with pytest.raises((OSError, TypeError)):
                    await file.pwrite(b"x", odd)  # type: ignore[arg-type]
            assert await file.pwrite(b"", 0) == 0

    run(main())


@pytest.mark.parametrize("reconnect_s", [0, 300])
def test_requests_outlive_their_engine_only_if_the_client_reconnects(
    run: Any, daemon: Any, stopped: Callable[[], int], reconnect_s: int
) -> None:
    async def main() -> None:
        async with opened(daemon, reconnect_timeout=reconnect_s) as file:
            await file.pwrite(b"before", 0)
            await file.flush()
            pid = stopped()
            reads = [asyncio.ensure_future(file.pread(6, 0)) for _ in range(3)]
            write = asyncio.ensure_future(file.pwrite(b"after!", 0))
            cancelled = asyncio.ensure_future(file.pread(6, 0))
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            if not reconnect_s:
                for error in await asyncio.gather(*reads, write, cancelled, return_exceptions=True):
                    assert isinstance(error, aiod_client.SessionLostError)
                    assert "unknown whether done" in str(error) or "not sent" in str(error)
                return
            while ring_of(file) is not None:  # noqa: ASYNC110 - the client has no event for that
                await asyncio.sleep(0.001)
            cancelled.cancel()
            assert await asyncio.gather(*reads) in ([b"before"] * 3, [b"after!"] * 3)
            assert await write == 6
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert await file.pread(6, 0) == b"after!"
            assert file._link._adopted == {}

    run(main())


def test_acknowledged_changes_are_noted_until_a_flush_covers_them(run: Any, shared_daemon: Any) -> None:
    async def main() -> None:
        async with opened(shared_daemon) as file:
            await file.pwrite(b"x", 0, fua=True)
            await file.pread(1, 0)
            assert changes(file) == set()
            await asyncio.gather(*(file.pwrite(b"x", at) for at in range(8)))
            assert changes(file)
            await file.flush()
            assert changes(file) == set()
            before = file._link.opened(file._handle).epoch
            for _ in range(aio_file.AT_ONCE_MAX * 2):  # one at a time, also those that complete at once
                await file.pwrite(b"x", 0)
                assert changes(file) == {before}

    run(main())


def test_a_write_acknowledged_during_a_flush_is_not_covered_by_it(
    run: Any, daemon: Any, stopped: Callable[[], int]
) -> None:
    async def main() -> None:
        async with opened(daemon) as file:
            pid = stopped()
            flush = asyncio.ensure_future(file.flush())
            write = asyncio.ensure_future(file.pwrite(b"x", 0))
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGCONT)
            await asyncio.gather(flush, write)
            assert changes(file)

    run(main())


def test_other_tasks_run_while_one_task_writes_without_a_pause(run: Any, shared_daemon: Any) -> None:
    turns: list[int] = []

    async def main() -> None:
        async with opened(shared_daemon) as file:
            done = False

            async def other() -> None:
                while not done:
                    turns.append(0)
                    await asyncio.sleep(0)

            task = asyncio.ensure_future(other())
            for _ in range(2000):
                turns[-1:] = [turns[-1] + 1] if turns else []
                await file.pwrite(b"x", 0)
            done = True
            await task

    run(main())
    assert max(turns) <= aio_file.AT_ONCE_MAX + 1
