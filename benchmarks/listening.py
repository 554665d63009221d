"""Servers of others that listen on a unix socket."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_TIMEOUT_S: Final = 10.0


@contextmanager
def listening(command: list[str], socket: Path) -> Iterator[int]:
    """The pid of `command` while it serves `socket`. RuntimeError if it does not start."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    end_s = time.monotonic() + _START_TIMEOUT_S
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > end_s:
            process.kill()
            raise RuntimeError(f"{command[0]} did not start: {process.communicate()[1].decode()}")
        time.sleep(0.01)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.communicate()
