"""aiodctl as a command: every way to end has its status and one message, and no traceback."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiod.ctl import refusals
from aiod.ctl.daemon import Address
from tests.patience import scaled

CTL = [sys.executable, "-m", "aiod.ctl"]


def run(*arguments: str, endpoint: str = "", stdout: Any = subprocess.PIPE, **environment: str) -> Any:
    given = ["--endpoint", endpoint] if endpoint else []
    done = subprocess.run(
        [*CTL, *given, *arguments], stdout=stdout, stderr=subprocess.PIPE, timeout=scaled(60), check=False, text=True,
        env=os.environ | environment,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1", "many"])
def test_a_time_limit_is_a_finite_number(seconds: str) -> None:
    assert run("--timeout", seconds, "ping").returncode == 2


def test_the_reconnect_timeout_of_clients_does_not_matter(shared_daemon: Any) -> None:
    assert run("ping", endpoint=shared_daemon.endpoint, AIOD_RECONNECT_TIMEOUT="abc").returncode == 0
    done = run(
        "bench", "--seconds", "0.1", "--size", "64k", endpoint=shared_daemon.endpoint, AIOD_RECONNECT_TIMEOUT="x"
    )
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [("stats",), ("stats", "--json"), ("keygen", "x", "--json"), ("--help",)])
def test_a_full_disk_is_reported(shared_daemon: Any, arguments: tuple[str, ...], tmp_path: Path) -> None:
    if arguments[0] == "keygen":
        arguments = (*arguments, "--directory", str(tmp_path))
    with Path("/dev/full").open("w") as full:
        done = run(*arguments, endpoint=shared_daemon.endpoint, stdout=full)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


def test_a_closed_output_is_reported(shared_daemon: Any) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *CTL, "--endpoint", shared_daemon.endpoint, "ping"]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=scaled(60), check=False, text=True)
    assert (done.returncode, done.stderr) == (1, "aiodctl: cannot write the output: standard output is closed\n")


def test_a_broken_pipe_ends_it_silently(shared_daemon: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("stats", endpoint=shared_daemon.endpoint, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_interrupt_ends_it_with_status_130(disk_path: Path) -> None:
    """It waits for an answer that never comes."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(disk_path / "aiod.sock"))
        silent.listen()
        command = [*CTL, "--endpoint", f"ipc://{disk_path}/aiod.sock", "--timeout", "60", "ping"]
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        connections = [silent.accept()[0] for _ in range(2)]  # the probe, and libzmq's
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=scaled(60))
        for connection in connections:
            connection.close()
    assert (waiting.returncode, said.strip()) == (130, "")


def test_an_ascii_locale_is_enough(shared_daemon: Any) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("bench", "--seconds", "0.1", "--size", "64k", endpoint=shared_daemon.endpoint, **ascii_only)
    assert done.returncode == 0
    assert "us" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("arguments", "number", "reason", "status"),
    [
        (("pool", "nowhere", "--max", "2", "--json"), "ENOENT", "BAD_ENTRY", 1),
        (("--json", "pool", "main"), None, None, 2),
        (("--format", "json", "no-such-verb"), None, None, 2),
        (("--format=json", "ping", "--no-such-option"), None, None, 2),
    ],
)
def test_errors_are_json_when_the_output_is(
    shared_daemon: Any, arguments: tuple[str, ...], number: str | None, reason: str | None, status: int
) -> None:
    done = run(*arguments, endpoint=shared_daemon.endpoint)
    error = json.loads(done.stderr)["error"]
    assert (done.stdout, done.returncode, error["exit_status"]) == ("", status, status)
    assert (error["errno"], error["reason"]) == (number, reason)
    assert error["message"]


def test_no_daemon_is_json_too(disk_path: Path) -> None:
    done = run("ping", "--json", endpoint=f"ipc://{disk_path}/aiod.sock")
    assert (done.returncode, json.loads(done.stderr)["error"]["errno"]) == (3, "ECONNREFUSED")


def test_a_terminal_gets_bold_heads_unless_the_user_refuses_colours(shared_daemon: Any) -> None:
    for refused in ("", "1"):
        master, slave = pty.openpty()
        done = run("exports", endpoint=shared_daemon.endpoint, stdout=slave, TERM="xterm", NO_COLOR=refused)
        os.close(slave)
        shown = os.read(master, 65536)
        os.close(master)
        assert done.returncode == 0
        assert (b"\x1b[1m" in shown) == (not refused)
    assert "\x1b" not in run("exports", endpoint=shared_daemon.endpoint, TERM="xterm").stdout


def test_a_user_outside_the_group_is_told_the_group_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getegid", lambda: 4242)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(refusals, "_user_name", lambda _: "alice")
    monkeypatch.setattr(refusals, "_group_name", lambda _: "aiod")
    tmp_path.chmod(0o750)
    told = refusals._not_admitted(Address(f"ipc://{tmp_path}/aiod.sock"))
    assert f"{tmp_path}/aiod.sock: permission denied to alice" in told
    assert "sudo usermod --append --groups aiod alice" in told
    monkeypatch.setattr(refusals, "_is_listed", lambda *_: True)
    assert "newgrp aiod" in refusals._not_admitted(Address(f"ipc://{tmp_path}/aiod.sock"))
    tmp_path.chmod(0o700)
    assert "is for alice only (mode 0700)" in refusals._not_admitted(Address(f"ipc://{tmp_path}/aiod.sock"))


def test_another_user_is_refused_with_status_3(shared_daemon: Any) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to be a stranger")
    program = (
        "import os, sys\n"
        "from aiod.ctl.verbs import main\n"
        "main(['--endpoint', sys.argv[1], 'ping'], standalone_mode=False)\n"  # imports all modules
        "os.setgroups([])\n"
        "os.setresgid(65534, 65534, 65534)\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "main(['--endpoint', sys.argv[1], 'ping'])\n"
    )
    command = [sys.executable, "-c", program, shared_daemon.endpoint]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert done.returncode == 3
    assert f"{shared_daemon.runtime_dir}/aiod.sock: permission denied" in done.stderr
