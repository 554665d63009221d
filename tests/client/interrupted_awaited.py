"""A program: raises KeyboardInterrupt anywhere in the asyncio client; nothing may hang, and nothing be left open.

A process of its own, because CPython 3.11 miscounts its recursion depth after such exceptions of tasks.

    python -m tests.client.interrupted_awaited ENDPOINT TRANSPORT STEP PATIENCE
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiod_client
from aiod_client import aio
from tests.client.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Use = Callable[[aio.Client, aio.File], Coroutine[Any, Any, None]]

DATA: Final = b"0123456789" * 10


async def open_to_read(client: aio.Client, _: aio.File) -> None:
    """By the ring, where there is one."""
    async with await client.open("scratch/awaited"):
        pass


async def open_to_write(client: aio.Client, _: aio.File) -> None:
    """By message."""
    async with await client.open("scratch/awaited", "r+"):
        pass


async def read_and_write(_: aio.Client, file: aio.File) -> None:
    """Both at once."""
    await asyncio.gather(file.pread(10, 0), file.pwrite(DATA[:10], 0))


async def submit(_: aio.Client, file: aio.File) -> None:
    """A batch, and a flush."""
    for future in file.submit([("read", 10, 0), ("write", DATA[:10], 0), ("flush",)]):
        await future


async def whole_file(client: aio.Client, _: aio.File) -> None:
    """A request on a path."""
    await client.read_file("scratch/awaited")


USES: Final[list[Use]] = [open_to_read, open_to_write, read_and_write, submit, whole_file]


class Daemon:
    """What the daemon has open for its clients, asked by another client."""

    def __init__(self, endpoint: str, patience_s: float) -> None:
        self.endpoint = endpoint
        self._patience_s = patience_s
        self._client = aiod_client.connect(endpoint, transport="zmq", timeout=patience_s)

    def of_this_process(self) -> tuple[int, int]:
        """Its sessions and their files."""
        clients = [each for each in self._client.control("clients")["clients"] if each["pid"] == os.getpid()]
        return len(clients), sum(each["handles"] for each in clients)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait, and collect garbage."""
        deadline_s = time.monotonic() + self._patience_s
        while not condition():
            assert time.monotonic() < deadline_s, f"{what}: {self.of_this_process()}, {descriptors()}"
            gc.collect()
            time.sleep(0.01)


def descriptors() -> list[str]:
    """What this process has open."""
    with os.scandir("/proc/self/fd") as entries:
        names = [entry.name for entry in entries]
    found = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            found.append(str(Path("/proc/self/fd", name).readlink()))
    return found


def is_late(error: BaseException | None) -> bool:
    """Whether it is that of a write in flight when an interruption ended the connection."""
    return isinstance(error, OSError) and getattr(error, "reason", 0) == aiod_client.Reason.LATE


@contextlib.contextmanager
def late_if_interrupted(interruption: Interruption) -> Iterator[None]:
    """What is interrupted may be a finalizer in the midst of something: Python ignores that exception."""
    try:
        yield
    except OSError as error:
        if not (interruption.where and is_late(error)):
            raise


class Interrupted:
    """One client, used again after each interruption."""

    def __init__(self, daemon: Daemon, transport: Any, patience_s: float) -> None:
        self._daemon = daemon
        self._patience_s = patience_s
        self._loop = asyncio.new_event_loop()
        self._client, self._file = self._loop.run_until_complete(self._begin(transport))

    async def _begin(self, transport: Any) -> tuple[aio.Client, aio.File]:
        client = await aio.connect(
            self._daemon.endpoint, transport=transport, timeout=self._patience_s, reconnect_timeout=self._patience_s
        )
        await client.write_file("scratch/awaited", DATA)
        return client, await client.open("scratch/awaited", "r+")

    def everywhere(self, use: Use, step: int) -> None:
        """Interrupt `use` at every `step`th place, until it ends without an interruption."""
        place = 0
        while True:
            interruption = Interruption(place)
            others = [self._loop.create_task(each(self._client, self._file)) for each in (submit, whole_file)]
            with contextlib.suppress(KeyboardInterrupt), late_if_interrupted(interruption), interruption:
                self._loop.run_until_complete(use(self._client, self._file))
            if not interruption.where:
                self._run(asyncio.wait(others))
                break
            self._end(others, interruption.where)
            self._run(self._goes_on(interruption.where))
            place += step
        assert place > step, "nothing was interrupted"

    def close(self) -> None:
        """Close the client. Its file is the only one that is still open then."""
        self._daemon.wait_until(self._has_one_file, "files are left open")
        self._run(self._client.close())
        self._loop.close()

    def _end(self, others: list[asyncio.Task[None]], where: str) -> None:
        """What other tasks wait for ends, though not always well; then what was interrupted is cancelled."""
        done = self._run(asyncio.wait(others, timeout=self._patience_s))
        assert not done[1], f"a request of another task hangs: {where}"
        for task in others:
            error = None if task.cancelled() else task.exception()
            assert error is None or is_late(error) or isinstance(error, KeyboardInterrupt), f"{error!r}: {where}"
        while tasks := asyncio.all_tasks(self._loop):
            for each in tasks:
                each.cancel()
            self._run(asyncio.wait(tasks))

    def _run(self, awaited: Coroutine[Any, Any, Any]) -> Any:
        """Run the loop until it is done; a task that awaits the interrupted one stops the loop, too."""
        task = self._loop.create_task(awaited)
        while not task.done():
            with contextlib.suppress(KeyboardInterrupt, RuntimeError):
                self._loop.run_until_complete(asyncio.wait([task]))
        return task.result()

    async def _goes_on(self, where: str) -> None:
        try:
            for use in USES:
                await use(self._client, self._file)
            assert await self._file.pread(len(DATA), 0) == DATA
        except OSError as error:
            raise AssertionError(f"{error!r}: {where}") from error

    def _has_one_file(self) -> bool:
        self._run(open_to_read(self._client, self._file))  # which closes what the ring has opened late
        _, files = self._daemon.of_this_process()
        return files <= 1  # the NAMES handle of a ring is not counted


def interrupt_each_use(daemon: Daemon, transport: Any, step: int, patience_s: float) -> None:
    """Interrupt one client again and again."""
    interrupted = Interrupted(daemon, transport, patience_s)
    for use in USES:
        interrupted.everywhere(use, step)
    interrupted.close()


def interrupt_all_of_a_life(daemon: Daemon, transport: Any, step: int, patience_s: float) -> None:
    """Interrupt asyncio.run() of connect, open, read, write and close, each time with a new client."""
    made: list[aio.Client] = []

    async def life(interruption: Interruption) -> None:
        with interruption:
            client = await aio.connect(daemon.endpoint, transport=transport, timeout=patience_s)
            made.append(client)
            async with await client.open("scratch/awaited", "r+") as file:
                await file.pread(10, 0)
                await file.pwrite(DATA[:10], 0)
            await client.close()

    place = 0
    while True:
        interruption = Interruption(place)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(life(interruption))
        if not interruption.where:
            break
        while made:
            asyncio.run(made.pop().close())
        place += step
    assert place > step, "nothing was interrupted"


def main(endpoint: str, transport: str, step: int, patience_s: float) -> None:
    """Interrupt at every `step`th place."""
    logging.getLogger("asyncio").disabled = True  # tasks whose exception nobody asks for
    logging.getLogger("aiod_client").disabled = True
    warnings.simplefilter("ignore")  # what is not closed, or not awaited
    daemon = Daemon(endpoint, patience_s)
    asyncio.run(asyncio.sleep(0))
    before = descriptors()
    interrupt_each_use(daemon, transport, step, patience_s)
    interrupt_all_of_a_life(daemon, transport, step, patience_s)
    daemon.wait_until(lambda: daemon.of_this_process() == (0, 0), "sessions are left")
    daemon.wait_until(lambda: len(descriptors()) <= len(before), f"descriptors are left, {before} before")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
