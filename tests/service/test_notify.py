"""Notifications to a fake service manager (tests/systemd has a real one)."""

from __future__ import annotations

import fcntl
import os
import queue
import re
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Manager:
    """A service manager that collects notifications."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.heard: list[str] = []
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        # Reads all the time, as systemd does: a full socket would block the daemon.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while message := self.socket.recv(4096):
            self._messages.put(message.decode())

    def hears(self, pattern: str) -> re.Match[str]:
        """Wait for a message that `pattern` matches; earlier ones are in `heard`."""
        while True:
            message = self._messages.get(timeout=scaled(60))
            self.heard.append(message)
            if (found := re.search(pattern, message)) is not None:
                return found

    def close(self) -> None:
        """Stop reading."""
        self.socket.sendto(b"", self.environment["NOTIFY_SOCKET"])
        self._reader.join()
        self.socket.close()


@pytest.fixture
def manager(disk_path: Path) -> Iterator[Manager]:
    """A service manager."""
    made = Manager(disk_path / "notify")
    yield made
    made.close()


def test_systemd_is_notified_of_readiness_when_every_engine_serves(
    new_daemon: Callable[..., Any], manager: Manager
) -> None:
    daemon = new_daemon(**{"engine.second": {}})
    daemon.start(wait=False, env=os.environ | manager.environment)
    manager.hears("^READY=1$")
    assert [engine["state"] for engine in daemon.json("stats")["engines"]] == ["serving", "serving"]


def test_systemd_is_not_notified_of_readiness_while_an_engine_is_missing(
    new_daemon: Callable[..., Any], manager: Manager
) -> None:
    daemon = new_daemon()
    with (daemon.runtime_dir / "engine-main.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as if an earlier process of it were still inside the kernel
        daemon.start(wait=False, env=os.environ | manager.environment)
        for _ in range(3):
            manager.hears("^WATCHDOG=1$")
        daemon.wait_logged("engine-main.lock")
        assert not [message for message in manager.heard if message.startswith("READY")]
    manager.hears("^READY=1$")


def test_systemd_gets_watchdog_pings_and_the_status_line(new_daemon: Callable[..., Any], manager: Manager) -> None:
    daemon = new_daemon()
    daemon.start(env=os.environ | manager.environment | {"WATCHDOG_USEC": "300000"})
    manager.hears("^STATUS=1 engine, 0 clients, 0 requests/s$")
    for _ in range(3):
        manager.hears("^WATCHDOG=1$")
    pid = daemon.engine["pid"]
    os.kill(pid, signal.SIGSTOP)
    manager.hears(r"^STATUS=0 of 1 engines serve, 0 clients, 0 requests/s$")
    for _ in range(3):
        manager.hears("^WATCHDOG=1$")
    os.kill(pid, signal.SIGCONT)


def test_systemd_is_notified_of_begin_and_end_of_a_reload(new_daemon: Callable[..., Any], manager: Manager) -> None:
    daemon = new_daemon()
    daemon.start(env=os.environ | manager.environment)
    manager.hears("^READY=1$")
    daemon.ctl("reload")
    assert int(manager.hears(r"^RELOADING=1\nMONOTONIC_USEC=(\d+)$")[1]) > 0
    manager.hears("^READY=1$")
    daemon.config_path.write_text("wrong")
    os.kill(daemon.pid, signal.SIGHUP)
    manager.hears("^RELOADING=1")
    manager.hears("^READY=1$")


def test_a_stop_requests_the_drain_timeout_from_systemd(new_daemon: Callable[..., Any], manager: Manager) -> None:
    daemon = new_daemon(**{"": {"drain_timeout_s": 600.0}})
    daemon.start(env=os.environ | manager.environment)
    assert daemon.stop() == 0
    assert int(manager.hears(r"^STOPPING=1\nEXTEND_TIMEOUT_USEC=(\d+)$")[1]) > 600_000_000


def test_a_wrong_configuration_is_shown_in_the_status_line(new_daemon: Callable[..., Any], manager: Manager) -> None:
    daemon = new_daemon(**{"engine.main": {"max_threads": 0}})
    daemon.start(wait=False, env=os.environ | manager.environment)
    manager.hears("^STATUS=.*engine.main.max_threads")
    assert daemon.process.wait(scaled(60)) == 78


def test_without_systemd_python_the_daemon_runs_and_logs_a_warning(
    new_daemon: Callable[..., Any], manager: Manager
) -> None:
    daemon = new_daemon()
    path = daemon.base / "hidden"
    (path / "systemd").mkdir(parents=True)
    (path / "systemd" / "__init__.py").write_text("raise ImportError\n")
    environment = os.environ | manager.environment | {"PYTHONPATH": str(path)}
    daemon.start(env=environment)
    daemon.wait_logged("install systemd-python")
    assert daemon.stop() == 0
