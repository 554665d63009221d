"""Shell completion of aiodctl, by bash's interface: COMP_WORDS, COMP_CWORD, one "plain,WORD" per line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from aiod.ctl.verbs import main
from tests.patience import scaled

if TYPE_CHECKING:
    from pathlib import Path


def complete(*words: str, endpoint: str = "ipc:///nowhere/aiod.sock") -> list[str]:
    """The completions of the last of `words`."""
    environment = {
        **os.environ,
        "_AIODCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(["aiodctl", *words]),
        "COMP_CWORD": str(len(words)),
        "AIOD_ENDPOINT": endpoint,
    }
    command = [sys.executable, "-m", "aiod.ctl"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=scaled(60), check=True)
    assert done.stderr == ""
    return [line.removeprefix("plain,") for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_accepts_its_completion_script(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    environment = {**os.environ, "_AIODCTL_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "aiod.ctl"]
    script = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=scaled(60), check=True
    ).stdout
    assert "aiodctl" in script
    subprocess.run([shell, "-n"], input=script, text=True, timeout=scaled(60), check=True)


def test_completion_offers_verbs() -> None:
    assert complete("") == sorted(main.commands)
    assert complete("p") == ["ping", "pool"]


def test_completion_offers_options() -> None:
    assert complete("--e") == ["--endpoint"]
    assert complete("threads", "--") == ["--check", "--json", "--format", "--no-headers", "--help"]
    assert complete("--json", "pool", "main", "--m") == ["--min", "--max"]


def test_completion_offers_the_running_daemons_engines(shared_daemon: Any) -> None:
    assert complete("pool", "", endpoint=shared_daemon.endpoint) == ["main"]
    assert complete("--endpoint", shared_daemon.endpoint, "pool", "m") == ["main"]
    assert complete("pool", "x", endpoint=shared_daemon.endpoint) == []


def test_completion_without_a_daemon_offers_no_engines(disk_path: Path) -> None:
    assert complete("pool", "", endpoint="no endpoint") == []
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(disk_path / "aiod.sock"))
        silent.listen()
        assert complete("pool", "", endpoint=f"ipc://{disk_path}/aiod.sock") == []
