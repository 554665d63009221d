"""The log of a real daemon and its engines: JSON, and levels by AIOD_LOG."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiod_client

if TYPE_CHECKING:
    from collections.abc import Callable


def test_every_line_of_both_processes_is_json(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    daemon.start(env=os.environ | {"AIOD_LOG_FORMAT": "json"})
    with aiod_client.connect(daemon.endpoint) as client:
        client.open("scratch/x", "w")  # closed by the kick
        engine_pid = daemon.engine["pid"]
        (known,) = daemon.json("clients")["clients"]
        daemon.ctl("kick", known["id"])
    assert daemon.stop() == 0
    records = [json.loads(line) for line in daemon.log.splitlines()]
    assert {record["pid"] for record in records} == {daemon.pid, engine_pid}
    assert any(record.get("engine") == "main" for record in records)


def test_text_lines_name_their_engine(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    daemon.start()
    (line,) = [line for line in daemon.log.splitlines() if "engine main: serving at" in line]
    assert line.endswith(" engine=main")


def test_levels_by_the_environment(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    daemon.start(env=os.environ | {"AIOD_LOG": "error,aiod.supervisor.service=info"})
    daemon.wait_logged("serves ipc://")
    assert "serving at" not in daemon.log


def test_a_wrong_level_is_a_usage_error() -> None:
    command = [sys.executable, "-m", "aiod", "--check-config"]
    done = subprocess.run(
        command, env=os.environ | {"AIOD_LOG": "loud"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "AIOD_LOG: 'loud'" in done.stderr
