"""Requests behind a busy worker: after a cancel or a deadline they are not executed, and their memory is freed."""

from __future__ import annotations

import concurrent.futures
import errno
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled
from tests.service.faulty_disk import faulty_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 2**20
PAYLOAD = b"x" * (3 * MIB)


class Busy:
    """A daemon whose only worker can be held in a read of the disk; `file` is on another, healthy one."""

    def __init__(self, daemon: Any, disk: Any, client: Any, wait_until: Callable[..., None]) -> None:
        self.daemon = daemon
        self.disk = disk
        self.slow = client.open("disk", "r", direct=True)
        self.file = client.open("scratch/file", "w+")
        self._wait_until = wait_until

    def read_that_is_held(self) -> Any:
        """Submit a read and wait until it has reached the disk; its future."""
        before = self.disk.arrived("Read")
        (future,) = self.slow.submit([("read", 4096, 0)])
        self._wait_until(lambda: self.disk.arrived("Read") > before, "the read at the disk")
        return future

    def wait_for_bytes(self, expected: int) -> None:
        """Wait until the engine has so many bytes in flight."""
        self._wait_until(lambda: self.daemon.engine["bytes_inflight"] == expected, f"{expected} bytes in flight")


@pytest.fixture
def busy(new_daemon: Callable[..., Any], disk_path: Path, wait_until: Callable[..., None]) -> Iterator[Busy]:
    """One worker."""
    with faulty_disk(disk_path) as disk:
        daemon = new_daemon(**{"engine.main": {"max_threads": 1}, "exports.disk": {"path": str(disk.path)}})
        daemon.start()
        with aiod_client.connect(daemon.endpoint, timeout=scaled(60)) as client:
            made = Busy(daemon, disk, client, wait_until)
            yield made
            made.slow.close()
            made.file.close()
        daemon.stop()


def test_cancel_ends_queued_requests_but_not_active_ones(busy: Busy) -> None:
    with busy.disk.holding("pread"):
        held = busy.read_that_is_held()
        busy.wait_for_bytes(4096)
        queued, kept = busy.file.submit([("write", PAYLOAD, 0), ("write", b"kept", 0)])
        busy.wait_for_bytes(4096 + len(PAYLOAD) + 4)
        assert held.cancel() is False
        assert queued.cancel() is True
        assert queued.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            queued.result(timeout=scaled(60))
        busy.wait_for_bytes(4096 + 4)
        assert not held.done()
    assert held.result(timeout=scaled(60)) == bytes(4096)
    assert held.cancel() is False
    assert kept.result(timeout=scaled(60)) == 4
    assert busy.file.size() == 4  # what was cancelled has not been executed


def test_a_request_whose_deadline_passes_behind_a_slow_one_is_not_executed(busy: Busy) -> None:
    with busy.disk.holding("pread"):
        held = busy.read_that_is_held()
        with pytest.raises(TimeoutError, match="not executed") as caught:
            busy.file.pwrite(PAYLOAD, 0, timeout=0.3)
        assert caught.value.errno == errno.ETIMEDOUT
        busy.wait_for_bytes(4096)
        assert not held.done()
    assert held.result(timeout=scaled(60)) == bytes(4096)
    assert busy.file.size() == 0


def test_an_earlier_deadline_of_a_later_request_is_kept(busy: Busy) -> None:
    with busy.disk.holding("pread"):
        held = busy.read_that_is_held()
        patient = busy.file.submit([("write", b"kept", 0)], timeout=scaled(60))[0]
        busy.wait_for_bytes(4096 + 4)
        with pytest.raises(TimeoutError, match="not executed"):
            busy.file.pwrite(PAYLOAD, 4, timeout=0.3)
        assert not held.done()
    assert patient.result(timeout=scaled(60)) == 4
    assert busy.file.size() == 4


def test_a_timeout_of_an_active_request_is_unknown_whether_done(busy: Busy) -> None:
    with busy.disk.holding("pread"), pytest.raises(TimeoutError, match="unknown whether done"):
        busy.slow.pread(4096, 0, timeout=2.0)  # by then a worker has it
    assert busy.slow.pread(10, 0) == bytes(10)
