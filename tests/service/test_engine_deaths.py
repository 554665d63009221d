"""Clients continue when their engine or the daemon dies under load: ring and ZeroMQ, blocking and asyncio."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import alive, freeze, wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

RECONNECT_S = scaled(60.0)
BLOCK = 512
BLOCKS = 64
WORK = 10
KILLS = 2


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


def connect(daemon: Any, transport: Any, **more: Any) -> aiod_client.Client:
    return aiod_client.connect(daemon.endpoint, transport=transport, **{"reconnect_timeout": RECONNECT_S} | more)


def kill_engine(daemon: Any) -> None:
    os.kill(daemon.engine["pid"], signal.SIGKILL)


class Killer(threading.Thread):
    """Kills the engine so many times, each time after some progress with a new one."""

    def __init__(self, daemon: Any, times: int) -> None:
        super().__init__()
        self.done = 0
        self.kills = 0
        self._client = aiod_client.connect(daemon.endpoint)
        self._times = times
        self.start()

    def run(self) -> None:
        """Wait for the last kill."""
        with self._client:
            for _ in range(self._times):
                self._kill_one()

    def _kill_one(self) -> None:
        before = self.done
        wait_until(lambda: self.done > before + WORK, "work is done")
        pid = self._engine()["pid"]
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        wait_until(lambda: (now := self._engine())["pid"] != pid and now["state"] == "serving", "another engine")

    def _engine(self) -> dict[str, Any]:
        (engine,) = self._client.control("stats")["engines"]
        return dict(engine)


def use_for_ever(file: aiod_client.File) -> None:
    while True:
        file.size()


def block(number: int, generation: int) -> bytes:
    return (number.to_bytes(4, "big") + generation.to_bytes(4, "big")) * (BLOCK // 8)


def test_acknowledged_writes_survive_engine_crashes(daemon: Any, transport: Any) -> None:
    killer = Killer(daemon, KILLS)
    with connect(daemon, transport) as client, client.open("scratch/file", "w+") as file:
        generation = 0
        while killer.is_alive():
            generation += 1
            futures = file.submit([("write", block(number, generation), number * BLOCK) for number in range(BLOCKS)])
            assert file.pwrite(block(BLOCKS, generation), BLOCKS * BLOCK) == BLOCK
            assert file.pread(BLOCK, BLOCKS * BLOCK) == block(BLOCKS, generation)
            assert [future.result() for future in futures] == [BLOCK] * BLOCKS
            file.flush()
            assert [future.result() for future in file.submit([("read", BLOCK, n * BLOCK) for n in range(BLOCKS)])] == [
                block(number, generation) for number in range(BLOCKS)
            ]
            killer.done += 1
    killer.join()
    assert killer.kills == KILLS


def test_acknowledged_writes_survive_engine_crashes_in_asyncio(daemon: Any, transport: Any) -> None:
    async def work() -> int:
        killer = Killer(daemon, KILLS)
        async with (
            aiod_client.aio.connect(daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S) as client,
            await client.open("scratch/file", "w+") as file,
        ):
            generation = 0
            while killer.is_alive():
                generation += 1
                wrote = await asyncio.gather(
                    *(file.pwrite(block(number, generation), number * BLOCK) for number in range(BLOCKS))
                )
                assert wrote == [BLOCK] * BLOCKS
                await file.flush()
                for number in range(BLOCKS):
                    assert await file.pread(BLOCK, number * BLOCK) == block(number, generation)
                killer.done += 1
        killer.join()
        return killer.kills

    assert asyncio.run(work()) == KILLS


@pytest.mark.page_cache("there are no appends")
def test_appends_are_executed_at_most_once_over_engine_crashes(daemon: Any, transport: Any) -> None:
    """Each append is in the file once, or at most once if its outcome was reported as unknown."""
    killer = Killer(daemon, KILLS)
    acknowledged, unknown, number, said = [], set(), 0, []
    with connect(daemon, transport) as client, client.open("scratch/log", "a+") as file:
        while killer.is_alive():
            first, number = number, number + 16
            futures = file.submit([("append", n.to_bytes(8, "big")) for n in range(first, number)])
            for n, future in enumerate(futures, first):
                try:
                    future.result()
                    acknowledged.append(n)
                except aiod_client.SessionLostError as error:
                    said.append((error.errno, "unknown whether done" in str(error)))
                    unknown.add(n)
            killer.done += 1
    killer.join()
    data = (daemon.path / "log").read_bytes()
    assert set(said) <= {(errno.EIO, True)}
    there = [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data), 8)]
    assert len(there) == len(set(there))
    assert set(acknowledged) <= set(there) <= set(acknowledged) | unknown


def test_clients_resume_after_a_crash_of_the_daemon_and_one_flush_fails(daemon: Any, transport: Any) -> None:
    """Files are reopened by name; the first flush of a file with unflushed writes fails."""
    with (
        connect(daemon, transport) as client,
        client.open("scratch/file", "w+") as file,
        client.open("scratch/clean", "w+") as clean,
    ):
        clean.pwrite(b"flushed", 0)
        clean.flush()
        file.pwrite(b"data", 0)
        pid = daemon.engine["pid"]
        daemon.process.kill()
        daemon.process.wait()
        wait_until(lambda: not alive(pid), "the engine ends with its supervisor")
        daemon.start()
        assert file.pread(4, 0) == b"data"
        with pytest.raises(OSError, match="the daemon was started again") as caught:
            file.flush()
        assert caught.value.errno == errno.EIO
        file.flush()
        clean.flush()


def test_requests_wait_for_an_orderly_restart(daemon: Any, transport: Any) -> None:
    """Requests and opens during the restart wait until the daemon serves again."""
    with connect(daemon, transport) as client, client.open("scratch/file", "w+") as file:
        file.pwrite(b"data", 0)
        file.flush()
        daemon.stop()
        futures = file.submit([("read", 4, 0), ("write", b"more", 4)])
        starter = threading.Thread(target=daemon.start)
        starter.start()
        with client.open("scratch/other", "w+") as other:
            assert other.pwrite(b"x", 0) == 1
        starter.join()
        assert [future.result() for future in futures] == [b"data", 4]


def test_no_flush_fails_after_an_orderly_restart(daemon: Any, transport: Any) -> None:
    """The daemon flushes acknowledged writes before it stops, so the next flush does not fail."""
    with connect(daemon, transport) as client, client.open("scratch/file", "w+") as file:
        for times in (1, 2):
            futures = file.submit([("write", block(number, times), number * BLOCK) for number in range(BLOCKS)])
            daemon.stop()
            daemon.start()
            assert [future.result() for future in futures] == [BLOCK] * BLOCKS
            file.flush()
            assert file.pread(BLOCK, BLOCK) == block(1, times)
        daemon.process.kill()  # now there was no last flush
        daemon.process.wait()
        daemon.start()
        file.flush()
        file.pwrite(b"data", 0)
        daemon.process.kill()
        daemon.process.wait()
        daemon.start()
        with pytest.raises(OSError, match="the daemon was started again"):
            file.flush()


def test_no_flush_fails_after_an_orderly_restart_with_single_writes(daemon: Any, transport: Any) -> None:
    counts = [0, 0]
    ending = threading.Event()

    def write(number: int) -> None:
        while not ending.is_set():
            assert file.pwrite(block(number, counts[number]), number * BLOCK) == BLOCK
            counts[number] += 1

    with (
        connect(daemon, transport) as client,
        client.open("scratch/file", "w+") as file,
        ThreadPoolExecutor(len(counts)) as pool,
    ):
        writers = [pool.submit(write, number) for number in range(len(counts))]
        for _ in range(KILLS):
            before = list(counts)
            wait_until(lambda: all(now > b + WORK for now, b in zip(counts, before, strict=True)), "they write")  # noqa: B023
            daemon.stop()
            daemon.start()
        ending.set()
        for writer in writers:
            writer.result()
        file.flush()
        assert [file.pread(BLOCK, n * BLOCK) for n in range(2)] == [block(n, counts[n] - 1) for n in range(2)]


def test_no_flush_fails_after_an_orderly_restart_in_asyncio(daemon: Any, transport: Any) -> None:
    async def work() -> None:
        async with (
            aiod_client.aio.connect(daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S) as client,
            await client.open("scratch/file", "w+") as file,
        ):
            await file.pwrite(b"data", 0)
            await asyncio.to_thread(daemon.stop)
            await asyncio.to_thread(daemon.start)
            await file.flush()

    asyncio.run(work())


SLEEPER = """
import os, signal, sys, aiod_client
with aiod_client.connect(sys.argv[1], transport=sys.argv[2], reconnect_timeout=60) as client:
    with client.open("scratch/file", "w+") as file:
        print("open", flush=True)
        sys.stdin.readline()
        futures = file.submit([("write", b"late", 0), ("read", 4, 4)])
        print("submitted", flush=True)
        for future in futures:
            try:
                print(future.result(), flush=True)
            except OSError as error:
                print(error, flush=True)
        print(file.pread(4, 0), file.pwrite(b"next", 8), flush=True)
"""


def test_a_session_that_resumes_after_the_grace_period_repeats_no_write(daemon: Any, transport: Any) -> None:
    """Its unanswered write must not overwrite a later acknowledged write of another client."""
    command = [sys.executable, "-c", SLEEPER, daemon.endpoint, transport]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdin is not None
        assert sleeper.stdout.readline() == "open\n"
        freeze(daemon.engine["pid"])  # so that nothing is answered
        sleeper.stdin.write("\n")
        sleeper.stdin.flush()
        assert sleeper.stdout.readline() == "submitted\n"
        pid = sleeper.pid
        freeze(pid)
        kill_engine(daemon)
        with connect(daemon, transport) as other, other.open("scratch/file", "r+") as file:  # after the grace
            file.pwrite(b"new data", 0)
            file.flush()
        os.kill(pid, signal.SIGCONT)
        write, read, after = (sleeper.stdout.readline() for _ in range(3))
    assert sleeper.returncode == 0
    assert "too late: unknown whether done" in write
    assert read == "b'data'\n"
    assert after == "b'new ' 4\n"


def test_a_session_is_lost_when_no_engine_comes_in_time(daemon: Any, transport: Any) -> None:
    with connect(daemon, transport, reconnect_timeout=0.5) as client, client.open("scratch/file", "w+") as file:
        daemon.stop()
        with pytest.raises(aiod_client.SessionLostError, match=r"no other engine for 0\.5 s"):
            file.pwrite(b"data", 0)


def test_a_client_may_be_closed_while_it_reconnects(daemon: Any, transport: Any) -> None:
    client = connect(daemon, transport)
    file = client.open("scratch/file", "w+")
    daemon.stop()
    (future,) = file.submit([("read", 4, 0)])
    began_s = time.monotonic()
    client.close()
    assert time.monotonic() - began_s < RECONNECT_S / 2
    with pytest.raises(aiod_client.AiodError, match="the client was closed"):
        future.result()
    file.close()


def test_a_request_times_out_while_there_is_no_engine(daemon: Any, transport: Any) -> None:
    with connect(daemon, transport) as client, client.open("scratch/file", "w+") as file:
        daemon.stop()
        with pytest.raises(TimeoutError):
            file.pread(4, 0, timeout=0.1)
        daemon.start()
        assert file.size() == 0


def test_ring_buffers_stay_valid_after_an_engine_crash(daemon: Any) -> None:
    """The memory of the dead engine's ring remains as plain memory."""
    with connect(daemon, "ring") as client, client.open("scratch/file", "w+") as file:
        memory = file.buffer(BLOCK)
        memory[:] = block(1, 1)
        assert file.pwrite(memory, 0) == BLOCK
        kill_engine(daemon)
        assert file.pread(BLOCK, 0) == block(1, 1)
        memory[:] = block(2, 2)
        assert file.pwrite(memory, 0) == BLOCK
        memory[:] = bytes(BLOCK)
        assert file.pread_into(memory, 0) == BLOCK
        assert bytes(memory) == block(2, 2)
        assert len(file.buffer(BLOCK)) == BLOCK


def test_a_removed_file_survives_an_engine_crash(daemon: Any, transport: Any) -> None:
    with connect(daemon, transport) as client, client.open("scratch/file", "w+") as file:
        file.pwrite(b"data", 0)
        client.remove("scratch/file")
        kill_engine(daemon)
        assert file.pread(4, 0) == b"data"
        file.flush()


def test_a_kicked_client_does_not_reconnect(daemon: Any, transport: Any) -> None:
    with connect(daemon, transport) as client, client.open("scratch/file", "w+") as file:
        (shown,) = daemon.json("clients")["clients"]
        daemon.ctl("kick", shown["id"])
        with pytest.raises(OSError, match="an administrator has ended this session"):
            use_for_ever(file)


def test_many_clients_and_files_survive_an_engine_crash(
    daemon: Any, transport: Any, wait_until: Callable[..., None]
) -> None:
    clients = [connect(daemon, transport) for _ in range(8)]
    files = [client.open(f"scratch/{n}-{m}", "w+") for n, client in enumerate(clients) for m in range(16)]
    for number, file in enumerate(files):
        file.pwrite(number.to_bytes(4, "big"), 0)
    kill_engine(daemon)
    assert [int.from_bytes(file.pread(4, 0), "big") for file in files] == list(range(len(files)))
    for file in files:
        file.flush()
    for client in clients:
        client.close()
    wait_until(lambda: daemon.engine["files"] == 0, "all are closed")


def test_a_file_opened_twice_leaves_no_descriptors_after_a_crash(
    daemon: Any, transport: Any, wait_until: Callable[..., None]
) -> None:
    """Each descriptor is counted once, so none is left after the closes."""
    with connect(daemon, transport) as client:
        first, second = client.open("scratch/file", "w+"), client.open("scratch/file", "r+")
        first.pwrite(b"data", 0)
        kill_engine(daemon)
        assert second.pread(4, 0) == b"data"
        assert daemon.engine["files"] == 2
        assert daemon.engine["descriptors"] == 3  # one of them is for flushes: what the first open has left
        for file in (first, second):
            file.flush()
            file.close()
        wait_until(lambda: daemon.engine["descriptors"] == 0, "all are closed")
        client.open("scratch/other", "w+").close()


def test_files_beyond_the_descriptor_stores_limit_are_reopened_by_name(
    new_daemon: Callable[..., Any], transport: Any
) -> None:
    """Each engine has a share of the supervisor's descriptors; further files are reopened by name."""
    others = {f"exports.{name}": {"path": f"{tempfile.gettempdir()}/{name}", "engine": name} for name in ("b", "c")}
    daemon = new_daemon(**others, **{"engine.b": {}, "engine.c": {}})
    daemon.start(prefix=["prlimit", "--nofile=300:300"])
    with connect(daemon, transport) as client:
        files = [client.open(f"scratch/{number}", "w+") for number in range(60)]
        for number, file in enumerate(files):
            file.pwrite(bytes([number]), 0)
            file.flush()
        daemon.wait_logged("descriptor limit reached: ")
        assert daemon.log.count("descriptor limit reached: ") == 1
        os.kill(next(each["pid"] for each in daemon.json("stats")["engines"] if each["name"] == "main"), signal.SIGKILL)
        assert [file.pread(1, 0)[0] for file in files] == [*range(60)]
        for file in files:
            file.flush()
