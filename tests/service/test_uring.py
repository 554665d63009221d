"""O_DIRECT by io_uring: requests that hang in the disk, the death of their engine, and engines that may not use it."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import aiod_client
from aiod import _core
from tests.patience import scaled
from tests.service import file_systems
from tests.service.faulty_disk import FaultyDisk, faulty_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 4096
PATTERN = b"A" * BLOCK
MAX_THREADS = 8
LAUNCHER = str(Path(__file__).with_name("seccomp.py"))
IO_URING_SETUP = 425  # on every architecture

needs_uring = pytest.mark.skipif(_core.probe_uring() < 0, reason="io_uring is not available")


class Slow(NamedTuple):
    """A block device on a disk that stalls on demand, served as `disk` with O_DIRECT."""

    disk: FaultyDisk
    daemon: Any
    client: aiod_client.Client

    def has_begun(self, count: int) -> bool:
        """Whether so many requests have begun."""
        return len(self.daemon.json("requests")["requests"]) == count

    @property
    def inflight(self) -> int:
        """Requests that the engine has started by io_uring."""
        return int(self.daemon.engine["pool"]["uring_inflight"])


@pytest.fixture
def slow(new_daemon: Callable[..., Any], disk_path: Path) -> Iterator[Slow]:
    """A loop device over the disk: its requests stay in the kernel while the disk stalls."""
    with faulty_disk(disk_path) as disk, file_systems.loop_device(disk.path) as device:
        daemon = new_daemon(
            **{
                "exports.disk": {"path": str(device), "direct": True, "io": "uring"},
                "engine.main": {"slow_request_ms": 100, "max_threads": MAX_THREADS},
            }
        )
        daemon.start()
        with aiod_client.connect(daemon.endpoint, transport="ring", timeout=scaled(60)) as client:
            yield Slow(disk, daemon, client)
        daemon.stop()


def start_writes(slow: Slow, file: Any, wait_until: Callable[..., None]) -> list[Any]:
    """Writes that the disk holds, the first ones of the disk; returns once one of them is in io_uring.

    A worker that has polled for the first time, or whose last request was not started by the kernel, runs the next one.
    """

    def carried() -> bool:
        file.pread(BLOCK, 0)
        return bool(slow.daemon.engine["pool"]["uring_requests"])

    wait_until(carried, "the engine uses io_uring")
    futures: list[Any] = []
    while not slow.inflight:
        assert len(futures) < MAX_THREADS - 1, "no write is in io_uring"
        futures += file.submit([("write", PATTERN, len(futures) * BLOCK)])
        wait_until(functools.partial(slow.has_begun, len(futures)), "the write has begun")
    return futures


@needs_uring
def test_a_request_that_hangs_is_listed_and_logged_and_holds_no_thread(
    slow: Slow, wait_until: Callable[..., None]
) -> None:
    with slow.client.open("disk", "r+") as file, slow.client.open("scratch/other", "w+") as other:
        with slow.disk.holding("pwrite"):
            futures = start_writes(slow, file, wait_until)
            wait_until(lambda: "it was started by io_uring: no thread waits for it" in slow.daemon.log, "it is logged")
            requests = slow.daemon.json("requests")["requests"]
            assert ("in io_uring", 0) in [(request["state"], request["tid"]) for request in requests]
            for number in range(10):
                other.pwrite(b"other", number)
            other.flush()
        assert [future.result(timeout=scaled(60)) for future in futures] == [BLOCK] * len(futures)
    assert slow.daemon.engine["slow_requests"] > 0
    assert slow.daemon.engine["pool"]["lost_wakeups"] == 0


@needs_uring
def test_no_engine_follows_before_the_writes_of_a_killed_one_have_ended(
    slow: Slow, wait_until: Callable[..., None]
) -> None:
    file = slow.client.open("disk", "r+")
    with slow.disk.holding("pwrite"):
        count = len(start_writes(slow, file, wait_until))
        pid = slow.daemon.engine["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "to leave its last system call" in slow.daemon.log, "the next engine waits")
        assert slow.daemon.engine["state"] != "serving"
    wait_until(lambda: slow.daemon.engine["state"] == "serving", "the next engine serves", scaled(60))
    assert slow.daemon.engine["pid"] != pid
    assert slow.disk.image.read_bytes()[: count * BLOCK] == PATTERN * count
    with aiod_client.connect(slow.daemon.endpoint) as client, client.open("disk") as again:
        assert again.pread(count * BLOCK, 0) == PATTERN * count


def test_an_engine_without_io_uring_uses_threads_and_says_why(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"exports.scratch": {"direct": True, "io": "uring"}})
    daemon.start(prefix=[sys.executable, LAUNCHER, str(IO_URING_SETUP), str(errno.EPERM)])
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/x", "w+") as file:
        file.pwrite(b"x" * BLOCK, 0)
        assert file.pread(BLOCK, 0) == b"x" * BLOCK
    (export,) = daemon.json("exports")["exports"]
    assert (export["io"], export["io_in_use"]) == ("uring", "threads")
    assert export["io_reason"].startswith("io_uring is not available: ")
    assert export["io_reason"] in daemon.ctl("exports").stdout
    daemon.wait_logged("io of scratch has no effect")
