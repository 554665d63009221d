"""Ctrl-C anywhere in the asyncio client hangs nothing and leaves nothing open: no session, no file, no descriptor.

KeyboardInterrupt is raised at every place where a signal's handler can run (interruption.py), or at some: in connect,
open, read, write and close, by ring and by message, while other tasks use the client. Then the client is used again, or
asyncio.run() has ended, and the client is closed in another one. With AIOD_TEST_ROUNDS=10 more places are tried, with
100 all.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.patience import rounds, scaled

if TYPE_CHECKING:
    from tests.conftest import Daemon

ROOT: Final = Path(__file__).parents[2]
STEP: Final = 97


@pytest.fixture(scope="module")
def daemon(_module_daemon: Daemon) -> Daemon:
    """A daemon that soon ends a session whose client has gone without a word."""
    _module_daemon.write_config({"sessions": {"heartbeat_s": 0.5, "session_timeout_s": 5}})
    _module_daemon.start()
    return _module_daemon


@pytest.mark.parametrize("transport", ["zmq", "ring"])
def test_an_interruption_hangs_nothing_and_leaves_nothing_open(daemon: Daemon, transport: str) -> None:
    step = max(1, STEP // rounds(1))
    program = [sys.executable, "-m", "tests.client.interrupted_awaited"]
    done = subprocess.run(
        [*program, daemon.endpoint, transport, str(step), str(scaled(60))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=scaled(280),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
