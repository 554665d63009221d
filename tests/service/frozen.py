"""A file system whose writes hang for as long as a test wants."""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING, Any

import aiod_client
from aiod_protocol.reasons import Reason, reason_of
from tests.conftest import wait_until

if TYPE_CHECKING:
    from pathlib import Path

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


class Frozen:
    """A file system at `path` whose writes hang while it is frozen; reads go on."""

    def __init__(self, path: Path) -> None:
        """Not frozen yet."""
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._frozen = False

    def freeze(self) -> None:
        """Make every write hang in the kernel from now on."""
        fcntl.ioctl(self._fd, FIFREEZE, 0)
        self._frozen = True

    def thaw(self) -> None:
        """Release the hanging writes. Idempotent."""
        if self._frozen:
            fcntl.ioctl(self._fd, FITHAW, 0)
            self._frozen = False

    def close(self) -> None:
        """Thaw, in whatever state the test left it."""
        self.thaw()
        os.close(self._fd)


def drain(daemon: Any, frozen: Frozen) -> None:
    """Begin to stop a daemon that serves `frozen` under that name; it then waits for a write there."""
    watcher = aiod_client.connect(daemon.endpoint, transport="zmq", reconnect_timeout=0)
    hung = watcher.open("frozen/file", "w+")
    watcher.open("scratch/any", "w+").close()
    frozen.freeze()
    hung.submit([("write", b"x", 0)])
    wait_until(lambda: daemon.json("requests")["requests"], "a worker has the write")
    daemon.process.send_signal(signal.SIGTERM)

    def refusal() -> OSError | None:
        try:
            watcher.open("scratch/any").close()
        except OSError as error:
            return error
        return None

    wait_until(lambda: (error := refusal()) and reason_of(error) == Reason.STOPPING, "the daemon refuses what is new")
