"""aiodctl top and status with a real daemon: on a terminal, for scripts, and while an engine hangs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_protocol.key_files import load_public
from tests.conftest import freeze
from tests.forked_program import run_forked
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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
        end_s = time.monotonic() + WAIT_S
        while text not in self.shown:
            ready, _, _ = select.select([self._master], [], [], WAIT_S)
            assert ready, self.shown
            assert time.monotonic() < end_s, self.shown
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


def test_the_screen_follows_the_keys(shared_daemon: Any, terminal: Terminal) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client, client.open("scratch/keys", "w") as file:
        file.pwrite(b"x", 0)  # so that its export is known
        terminal.wait_for("\x1b[?1049h")
        terminal.wait_for("by rate")
        for key, shown in (
            ("s", "by MiB/s"), ("e", "engine main"), ("x", "held"), ("x", "export scratch"), ("c", "software"),
            ("c", "client "), ("p", "PAUSED"),
        ):  # fmt: skip
            terminal.press(key)
            terminal.wait_for(shown)
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
        assert "scratch " in shared_daemon.ctl("top", "--once", "--exports", "--interval", "0.1").stdout
        lines = shared_daemon.ctl("top", "--json-lines", "--count", "2", "--interval", "0.1").stdout.splitlines()
    figures = [json.loads(line) for line in lines]
    assert len(figures) == 2
    for each in figures:
        assert each["engines"][0]["name"] == "main"
        assert each["clients"][0]["pid"] == os.getpid()
        assert each["seconds"] > 0
        assert each["engines"][0]["exports"]["scratch"]["throttled"] == 0
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


def test_what_rates_hold_back_is_told(
    new_daemon: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    (tmp_path / "slow").mkdir()
    daemon = new_daemon(
        **{
            "exports.slow": {"path": str(tmp_path / "slow"), "bytes_per_second_max": 1024, "burst_s": 0.001},
            'users."*"': {"iops_max": 2, "burst_s": 0.001},
        }
    )
    daemon.start()

    def waiting() -> bool:
        (engine,) = daemon.json("stats")["engines"]
        users = engine["throttled_users"]
        return bool(engine["exports"].get("slow", {}).get("waiting") and users and users[0]["waiting"])

    with aiod_client.connect(daemon.endpoint) as client:
        slow, other = client.open("slow/x", "w"), client.open("scratch/x", "w")
        slow.submit([("write", bytes(1 << 16), 0)] * 3)  # the second waits for a minute
        other.submit([("write", b"x", 0)] * 200)  # 100 s
        wait_until(waiting, "requests wait for both rates")
        told = daemon.ctl("status").stdout
        shown = daemon.ctl("top", "--once", "--exports", "--interval", "0.3").stdout
        scraped = daemon.ctl("metrics").stdout
    assert "! main: export slow is above its rate: 1 sessions wait for it" in told
    assert "exports.slow.iops_max" in told
    assert "user * is above its rate" in told
    (row,) = [line for line in shown.splitlines() if line.startswith("slow ")]
    assert row.endswith("%")
    assert 'aiod_throttled_seconds_total{engine="main",export="slow"} ' in scraped
    assert 'aiod_throttled_seconds_total{engine="main",user="*"} ' in scraped
    # What a user has waited is not forgotten with the last session.
    wait_until(lambda: daemon.engine["sessions"] == 0, "the end of the session")
    (user,) = daemon.engine["throttled_users"]
    assert (user["user"], user["waiting"]) == ("*", 0)
    assert user["throttled_s"] > 0


@pytest.fixture
def remote(new_daemon: Callable[..., Any], tmp_path: Path) -> list[str]:
    """The options by which aiodctl reaches a daemon over tcp."""
    for name in ("server", "admin"):
        run_forked("aiod.ctl", ["keygen", name, "--directory", str(tmp_path)], scaled(60)).check_returncode()
    public = {name: load_public(tmp_path / f"{name}.key").decode() for name in ("server", "admin")}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    daemon = new_daemon(
        **{
            "tcp": {"listen": address, "secret_key": str(tmp_path / "server.key_secret")},
            "keys.admin": {"public_key": public["admin"]},
        }
    )
    daemon.start()
    key = str(tmp_path / "admin.key_secret")
    return ["--endpoint", f"tcp://{address}", "--key", key, "--server-key", public["server"]]


def test_top_works_over_tcp(remote: list[str]) -> None:
    for view, head in (("--exports", "held"), ("--clients", "software"), (None, "operation")):
        command = [sys.executable, "-m", "aiod.ctl", *remote, "top", "--once", "--interval", "0.2"]
        command += [view] if view is not None else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "serving" in done.stdout
        assert head in done.stdout or "none" in done.stdout
