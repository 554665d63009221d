"""An engine whose main loop is stuck is killed and replaced; the daemon and other engines continue."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled
from tests.service.faulty_disk import FaultyDisk, faulty_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOON = {"": {"watchdog_s": 1.0}}


@pytest.fixture(name="disk")
def disk_fixture(disk_path: Path) -> Iterator[FaultyDisk]:
    """A disk that stalls."""
    with faulty_disk(disk_path) as disk:
        yield disk


def test_a_stuck_engine_is_replaced(new_daemon: Callable[..., Any], wait_until: Callable[..., None]) -> None:
    daemon = new_daemon(**SOON)
    daemon.start()
    pid = daemon.engine["pid"]
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: daemon.engine["restarts"] == 1 and daemon.engine["state"] == "serving", "a new engine")
    daemon.wait_logged(f"engine main (pid {pid}) has not answered for 1 s: killing it")
    with aiod_client.connect(daemon.endpoint) as client:
        assert client.open("scratch/new", "w+").pwrite(b"x", 0) == 1


def test_a_stuck_engine_is_not_killed_without_a_watchdog(
    new_daemon: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    daemon = new_daemon(**{"": {"watchdog_s": 0.0}})
    daemon.start()
    pid = daemon.engine["pid"]
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: daemon.engine["state"] == "unresponsive", "it is noticed")
    daemon.write_config(SOON)
    daemon.ctl("reload")
    wait_until(lambda: daemon.engine["restarts"] == 1, "a new engine, now that the watchdog is on")
    daemon.wait_logged("killing it")


def test_a_supervisor_that_was_stopped_itself_kills_no_engine(new_daemon: Callable[..., Any]) -> None:
    patience_s = 1.0
    daemon = new_daemon(**{"": {"watchdog_s": patience_s}})
    daemon.start()
    pid = daemon.engine["pid"]
    for _ in range(3):
        os.kill(daemon.pid, signal.SIGSTOP)
        time.sleep(2 * patience_s)  # not to wait for anything: it is stopped for longer than an engine may be silent
        os.kill(daemon.pid, signal.SIGCONT)
        assert daemon.engine["pid"] == pid
    assert "killing it" not in daemon.log


def test_an_engine_that_cannot_die_does_not_affect_the_others(
    new_daemon: Callable[..., Any], disk: FaultyDisk, wait_until: Callable[..., None]
) -> None:
    daemon = new_daemon(**SOON, **{"exports.disk": {"path": str(disk.path), "engine": "disk"}, "engine.disk": {}})
    daemon.start()

    def engine(name: str) -> dict[str, Any]:
        return next(engine for engine in daemon.json("stats")["engines"] if engine["name"] == name)

    stuck, healthy = engine("disk")["pid"], engine("main")["pid"]
    before = disk.arrived("Flush")
    with disk.holding("flush"), aiod_client.connect(daemon.endpoint) as client:
        file = client.open("disk", "r+")
        file.pwrite(b"x", 0)
        (held,) = file.submit([("flush",)])
        wait_until(lambda: disk.arrived("Flush") > before, "a worker waits inside the kernel")
        os.kill(stuck, signal.SIGSTOP)
        wait_until(lambda: engine("disk")["state"] == "failed", "it is given up")
        with (
            aiod_client.connect(daemon.endpoint) as other,
            pytest.raises(OSError, match=f"engine disk \\(pid {stuck}\\)"),
        ):
            other.open("disk")
        assert client.open("scratch/healthy", "w+").pwrite(b"x", 0) == 1
        assert engine("main")["pid"] == healthy
        assert engine("disk")["restarts"] == 0
    with pytest.raises(OSError, match="unknown whether done"):
        held.result(timeout=scaled(60))
    wait_until(lambda: engine("disk")["state"] == "serving", "another one, since the kernel has released it")
