"""The real daemon killed or stopped under a client, and restarted."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import aiod_client
from tests.conftest import freeze
from tests.patience import scaled

PATIENCE_S = scaled(60.0)


def read_until_lost(file: aiod_client.File) -> None:
    """Read until a read fails."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        file.pread(1, 0)


def open_when_served(client: aiod_client.Client, path: str) -> aiod_client.File:
    """Open as soon as the engine serves again."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.open(path)
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


def test_a_killed_engine_loses_its_sessions_and_open_finds_the_next(daemon: Any) -> None:
    with aiod_client.connect(daemon.endpoint, timeout=PATIENCE_S) as client:
        file = client.open("scratch/x", "w+")
        file.pwrite(b"kept", 0)
        os.kill(daemon.engine["pid"], signal.SIGKILL)
        with pytest.raises(aiod_client.SessionLostError):
            read_until_lost(file)
        with open_when_served(client, "scratch/x") as again:
            assert again.pread(10, 0) == b"kept"
        file.close()


def test_calls_to_a_frozen_daemon_time_out_and_the_session_continues_when_it_thaws(daemon: Any) -> None:
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/x", "w+") as file:
        file.pwrite(b"kept", 0)
        pid = daemon.engine["pid"]
        freeze(pid)
        try:
            with pytest.raises(TimeoutError, match="unknown whether done"):
                file.pread(4, 0, timeout=0.3)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert file.pread(4, 0) == b"kept"


def test_a_stopping_daemon_gives_its_reason_and_open_finds_the_next_daemon(daemon: Any) -> None:
    with aiod_client.connect(daemon.endpoint) as client:
        file = client.open("scratch/x", "w+")
        daemon.stop()
        with pytest.raises(aiod_client.SessionLostError):
            file.pread(1, 0)
        with pytest.raises(aiod_client.DaemonUnreachableError):
            client.open("scratch/x")
        daemon.start()
        with client.open("scratch/x") as again:
            assert again.size() == 0
