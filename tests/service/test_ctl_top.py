"""aiodctl top and status with a real daemon: on a terminal, for scripts, and while an engine hangs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import freeze

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_S = 60.0


class Terminal:
    """`aiodctl top` on a terminal of 80 x 24."""

    def __init__(self, endpoint: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "aiod.ctl", "--endpoint", endpoint, "top", "--interval", "0.2"]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=os.environ | {"TERM": "xterm"}
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Read until `text` has been shown since the last call."""
        while text not in self.shown:
            ready, _, _ = select.select([self._master], [], [], WAIT_S)
            assert ready, self.shown
            self.shown += os.read(self._master, 65536).decode()
        self.shown = self.shown.partition(text)[2]

    def press(self, key: str) -> None:
        """Press a key."""
        os.write(self._master, key.encode())

    def close(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(WAIT_S)
        os.close(self._master)


@pytest.fixture
def terminal(shared_daemon: Any) -> Iterator[Terminal]:
    made = Terminal(shared_daemon.endpoint)
    yield made
    made.close()


def test_the_screen_follows_the_keys(terminal: Terminal) -> None:
    terminal.wait_for("\x1b[?1049h")
    terminal.wait_for("by rate")
    terminal.press("s")
    terminal.wait_for("by MiB/s")
    terminal.press("e")
    terminal.wait_for("engine main")
    terminal.press("p")
    terminal.wait_for("PAUSED")
    terminal.press("q")
    terminal.wait_for("\x1b[?1049l")
    assert terminal.process.wait(WAIT_S) == 0


def test_an_interrupt_restores_the_terminal(terminal: Terminal) -> None:
    terminal.wait_for("by rate")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("\x1b[?1049l")
    assert terminal.process.wait(WAIT_S) == 130


def test_scripts_get_one_interval_or_json_lines(shared_daemon: Any) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client, client.open("scratch/t", "w") as file:
        file.pwrite(b"x", 0)
        assert "requests/s" in shared_daemon.ctl("top", "--once", "--interval", "0.1").stdout
        assert "aiod_client/" in shared_daemon.ctl("top", "--once", "--clients", "--interval", "0.1").stdout
        lines = shared_daemon.ctl("top", "--json-lines", "--count", "2", "--interval", "0.1").stdout.splitlines()
    figures = [json.loads(line) for line in lines]
    assert len(figures) == 2
    for each in figures:
        assert each["engines"][0]["name"] == "main"
        assert each["clients"][0]["pid"] == os.getpid()
        assert each["seconds"] > 0
    assert shared_daemon.ctl("top", check=False).returncode == 2  # no terminal


def test_a_hanging_engine_is_shown_beside_the_others(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(
        **{
            "": {"watchdog_s": 0.0},
            "exports.etc": {"path": "/etc", "read_only": True, "engine": "b"},
            "engine.b": {},
        }
    )
    daemon.start()
    pid = next(engine["pid"] for engine in daemon.json("stats")["engines"] if engine["name"] == "b")
    freeze(pid)
    try:
        shown = daemon.ctl("top", "--once", "--interval", "0.1").stdout
        told = daemon.ctl("status", "--check", check=False)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "unresponsive" in shown
    assert "serving" in shown
    assert told.returncode == 1
    assert "! b: is unresponsive" in told.stdout
    assert "journalctl -u aiod ENGINE=b" in told.stdout


def test_a_healthy_daemon_is_ok(shared_daemon: Any) -> None:
    body = json.loads(shared_daemon.ctl("--json", "status").stdout)
    assert (body["state"], body["engines_serving"]) == ("ok", 1)
    assert ": ok\n" in shared_daemon.ctl("status", "--check").stdout
