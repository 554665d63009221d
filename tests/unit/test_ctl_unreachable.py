"""aiodctl without a daemon, or with one that does not answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from aiod.ctl import daemon as asking
from aiod.ctl.daemon import Address
from aiod.ctl.verbs import main
from tests.conftest import freeze

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("verb", ["ping", "stats", "threads", "exports", "clients", "version"])
def test_a_missing_socket_fails_at_once_with_status_3(tmp_path: Path, verb: str) -> None:
    done = run("--endpoint", f"ipc://{tmp_path}/aiod.sock", "--timeout", "100", verb)
    assert (done.exit_code, done.stdout) == (3, "")
    assert f"{tmp_path}/aiod.sock" in done.stderr


def test_a_socket_without_a_listener_fails_with_status_3(disk_path: Path) -> None:
    path = disk_path / "aiod.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert run("--endpoint", f"ipc://{path}", "--timeout", "100", "ping").exit_code == 3


@pytest.mark.parametrize(
    "arguments", [["--timeout", "0", "ping"], ["ping", "--wait", "-1"], ["nonsense"], ["ping", "extra"], ["--nonsense"]]
)
def test_usage_errors_exit_with_status_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["ping", "--help"], ["stats", "-h"]])
def test_help_lists_the_verbs(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 0
    assert "--json" in done.stdout


def test_each_attempt_of_ping_stays_within_the_remaining_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon accepts and never answers: every attempt uses its whole time."""
    clock_s = [0.0]
    given_s: list[float] = []

    def never(_endpoint: object, _verb: object, timeout_s: float) -> None:
        given_s.append(timeout_s)
        clock_s[0] += timeout_s
        raise TimeoutError

    def wait(seconds: float) -> None:
        clock_s[0] += seconds

    monkeypatch.setattr(asking, "ask", never)
    monkeypatch.setattr(time, "monotonic", lambda: clock_s[0])
    monkeypatch.setattr(time, "sleep", wait)
    with pytest.raises(TimeoutError):
        asking.ask_until(Address(), "ping", 1.0, 5.0)
    assert given_s[0] == 1.0
    assert clock_s[0] < 1.0 + 3 * asking.RETRY_S
    given_s.clear()
    with pytest.raises(TimeoutError):
        asking.ask_until(Address(), "ping", 0.0, 5.0)
    assert given_s == [5.0]


def test_a_daemon_stopped_by_sigstop_is_reported_with_status_3(daemon: Any) -> None:
    freeze(daemon.pid)
    try:
        done = daemon.ctl("--timeout", "0.3", "stats", check=False)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert done.returncode == 3
    assert "does not answer" in done.stderr


def test_stats_reports_a_stopped_engine_as_unresponsive_and_shows_the_others(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"": {"watchdog_s": 0.0}})  # which would replace the engine on a slow machine
    daemon.start()
    pid = daemon.engine["pid"]
    freeze(pid)
    try:
        engine = daemon.engine
        clients = json.loads(daemon.ctl("clients", "--json").stdout)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (engine["state"], engine["pid"]) == ("unresponsive", pid)
    assert engine["pool"]["max_threads"] == 64
    assert clients == {"clients": []}
    assert daemon.engine["state"] == "serving"
