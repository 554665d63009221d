"""Ctrl-C in the midst of a callback of the asyncio client: the session continues when the loop runs again.

asyncio.run() turns the first Ctrl-C into a cancelled task. The second, and the first in a loop that is run by
run_until_complete(), is a KeyboardInterrupt in whatever runs: a message may be sent in part, or taken and not noted.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.patience import scaled

if TYPE_CHECKING:
    from tests.conftest import Daemon

ROOT: Final = Path(__file__).parents[2]


@pytest.mark.parametrize("transport", ["zmq", "ring"])
def test_the_session_continues_after_an_interruption(shared_daemon: Daemon, transport: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.interrupted_loop", shared_daemon.endpoint, transport, str(scaled(60))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=scaled(250),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
