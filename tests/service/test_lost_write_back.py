"""Write-back that fails about the time when an engine dies: the client's next flush must fail.

A block device over a faulty disk: what is written waits in the page cache, and fails when the kernel writes it back.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import aiod_client
from aiod_protocol.wire import OpenFlag
from tests.patience import scaled
from tests.service.faulty_disk import FaultyDisk, faulty_disk
from tests.service.file_systems import loop_device
from tests.service.records import refused
from tests.service.resuming import Program, build_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.page_cache("a write fails itself, and nothing is written back later")

SOON = {"heartbeat_s": 0.2, "session_timeout_s": 3.0}
"""A killed engine inside the kernel keeps its connections; clients notice only its silence."""

DATA = bytes(range(1, 256)) * 256


class Served(NamedTuple):
    """A daemon that serves the block device `device` over `disk` as the export `device`."""

    disk: FaultyDisk
    device: Path
    daemon: Any

    def kill_engine(self) -> int:
        """Its pid."""
        pid = int(self.daemon.engine["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def is_replaced(self, pid: int) -> bool:
        """Whether another engine than `pid` serves."""
        engine = self.daemon.engine
        return bool(engine["pid"] != pid and engine["state"] == "serving")

    def write_back(self) -> None:
        """Flush the device from another process; returns the result of fdatasync."""
        kernel = os.open(self.device, os.O_RDWR)
        try:
            os.fdatasync(kernel)
        finally:
            os.close(kernel)


@pytest.fixture
def served(new_daemon: Callable[..., Any], disk_path: Path) -> Iterator[Served]:
    """A daemon, its device, and its disk."""
    with faulty_disk(disk_path) as disk, loop_device(disk.path, 512) as device:
        daemon = new_daemon(**{"exports.device": {"path": str(device)}, "sessions": SOON})
        daemon.start()
        yield Served(disk, device, daemon)
        daemon.stop()


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


@pytest.fixture
def file(transport: Any, served: Served) -> Iterator[aiod_client.File]:
    """The device, opened by a client that reconnects."""
    with (
        aiod_client.connect(served.daemon.endpoint, transport=transport, reconnect_timeout=scaled(60)) as client,
        client.open("device", "r+") as opened,
    ):
        yield opened


def is_poisoned(file: aiod_client.File) -> bool:
    return refused(file.flush) == errno.EIO and refused(lambda: file.pwrite(b"x", 0, fua=True)) == errno.EIO


def test_a_write_back_failure_between_two_engines_fails_the_next_flush(
    served: Served, file: Any, wait_until: Callable[..., None]
) -> None:
    """Another process has got the error, so the kernel reports it to no file that is opened later."""
    file.pwrite(DATA, 0)
    with served.disk.failing("pwrite"):
        pid = served.kill_engine()
        with pytest.raises(OSError, match="Input/output error"):
            served.write_back()
    served.write_back()  # as if nothing had been
    wait_until(lambda: served.is_replaced(pid), "another engine")
    assert not any(served.disk.image.read_bytes())
    assert is_poisoned(file)


def test_a_write_back_failure_is_remembered_over_several_crashes(served: Served, file: Any) -> None:
    """The kernel reports it once per open file description; the second engine has the last one."""
    with served.disk.failing("pwrite"):
        file.pwrite(DATA, 0)
        assert refused(file.flush) == errno.EIO
    for _ in range(3):
        served.kill_engine()
        assert is_poisoned(file)
    (handle,) = served.daemon.json("handles")["handles"]
    assert handle["poisoned"]


def test_a_write_back_failure_is_forgotten_when_all_handles_are_closed(served: Served, transport: Any) -> None:
    with aiod_client.connect(served.daemon.endpoint, transport=transport, reconnect_timeout=scaled(60)) as client:
        with client.open("device", "r+") as file, served.disk.failing("pwrite"):
            file.pwrite(DATA, 0)
            assert refused(file.flush) == errno.EIO
            served.kill_engine()
            assert is_poisoned(file)
        with client.open("device", "r+") as file:
            file.pwrite(DATA, 0)
            served.kill_engine()
            file.flush()
    assert served.disk.image.read_bytes()[: len(DATA)] == DATA


def test_a_write_back_failure_before_a_crash_fails_the_next_flush(served: Served, file: Any) -> None:
    file.pwrite(DATA, 0)
    with served.disk.failing("pwrite"), pytest.raises(OSError, match="Input/output error"):
        served.write_back()
    served.kill_engine()
    assert is_poisoned(file)


def test_a_crash_during_a_failing_flush_fails_the_next_flush(
    served: Served, file: Any, wait_until: Callable[..., None]
) -> None:
    """The engine got the error, but died before it answered."""
    file.pwrite(DATA, 0)
    with served.disk.bad_from(0):
        with served.disk.holding("pwrite"):
            before = served.disk.arrived("Write")
            (flush,) = file.submit([("flush",)])
            wait_until(lambda: served.disk.arrived("Write") > before, "the flush is at the disk")
            pid = served.kill_engine()
        wait_until(lambda: served.is_replaced(pid), "another engine")
    assert isinstance(error := flush.exception(60), OSError)
    assert error.errno == errno.EIO
    assert is_poisoned(file)


def test_a_flush_after_a_crash_succeeds_without_a_write_back_failure(served: Served, file: Any) -> None:
    """Then a flush after a crash succeeds, and the data is on disk."""
    file.pwrite(DATA, 0)
    served.kill_engine()
    file.flush()
    assert served.disk.image.read_bytes()[: len(DATA)] == DATA


@pytest.mark.parametrize("outcome", ["on disk", "lost"])
def test_libaiod_learns_of_a_write_back_failure_as_python_does(
    served: Served, tmp_path: Path, wait_until: Callable[..., None], outcome: str
) -> None:
    """Without one, a flush after a crash succeeds; the program fills what it writes with a letter."""
    fails = outcome == "lost"
    program = Program(build_program(tmp_path, ""), served.daemon, str(int(scaled(60) * 1000)))
    try:
        handle = program.say("open", "device", int(OpenFlag.READ | OpenFlag.WRITE))
        assert program.say("write", "a", handle, 4096) == 4096
        if fails:
            with served.disk.failing("pwrite"):
                pid = served.kill_engine()
                with pytest.raises(OSError, match="Input/output error"):
                    served.write_back()
            served.write_back()
        else:
            pid = served.kill_engine()
        wait_until(lambda: served.is_replaced(pid), "another engine")
        for _ in range(2):
            assert program.say("flush", "-", handle) == (-errno.EIO if fails else 0), "poisoned, or on disk"
        assert served.disk.image.read_bytes()[:4096] == (b"\0" if fails else b"a") * 4096
    finally:
        program.kill()


def test_an_engine_that_cannot_die_is_not_replaced_until_it_has_gone(
    served: Served, file: Any, wait_until: Callable[..., None]
) -> None:
    """Its worker is inside the kernel: until it exits, no request is repeated, and no engine replaces it."""
    file.pwrite(DATA, 0)
    with served.disk.holding("pwrite"):
        before = served.disk.arrived("Write")
        flushes = file.submit([("flush",)])
        wait_until(lambda: served.disk.arrived("Write") > before, "the flush is at the disk")
        pid = served.kill_engine()
        wait_until(lambda: served.daemon.engine["state"] != "serving", "it is known to be dead")
        impatient = aiod_client.connect(served.daemon.endpoint)
        with impatient, pytest.raises(OSError, match=f"engine main \\(pid {pid}\\)"):
            impatient.open("device")
        flushes += file.submit([("write", b"new", 0)])
        assert not any(flush.done() for flush in flushes)
        assert served.daemon.engine["restarts"] == 0
    assert [flush.result(scaled(60)) for flush in flushes] == [0, 3]
    assert served.is_replaced(pid)
    file.flush()
    assert served.disk.image.read_bytes()[: len(DATA)] == b"new" + DATA[3:]


def test_clients_of_an_engine_that_cannot_die_get_an_error_in_time(
    served: Served, wait_until: Callable[..., None]
) -> None:
    with (
        aiod_client.connect(served.daemon.endpoint, reconnect_timeout=1) as client,
        client.open("device", "r+") as opened,
    ):
        opened.pwrite(DATA, 0)
        with served.disk.holding("pwrite"):
            before = served.disk.arrived("Write")
            futures = opened.submit([("flush",)])
            wait_until(lambda: served.disk.arrived("Write") > before, "the flush is at the disk")
            pid = served.kill_engine()
            futures += opened.submit([("write", b"new", 0)])
            said = [str(future.exception(60)) for future in futures]
        for each in said:
            assert f"no other engine for 1 s: [Errno 5] engine main (pid {pid})" in each
        assert served.disk.image.read_bytes()[:3] != b"new"
