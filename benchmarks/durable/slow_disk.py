"""A disk whose flush takes milliseconds, from real parts: nbdkit (cache over delay) mounted as a file by nbdfuse."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE: Final = "64M"
DELAY_MS: Final = 3
_START_TIMEOUT_S: Final = 10.0


class SlowDisk:
    """The file on the slow disk, and a count of the flushes that reached the disk."""

    def __init__(self, file: Path, log: Path) -> None:
        self.file = file
        self._log = log

    def flushes(self) -> int:
        """Flushes that have begun at the disk so far."""
        return sum(" Flush " in line and "..." in line for line in self._log.read_text().splitlines())


@contextmanager
def slow_disk(directory: Path) -> Iterator[SlowDisk]:
    """Writes go to nbdkit's cache; a flush writes back its dirty data, in `DELAY_MS` for each 64 KiB."""
    socket, log, mountpoint = directory / "slow.sock", directory / "slow.log", directory / "slow"
    mountpoint.mkdir()
    server = [
        "nbdkit", "-f", "-U", str(socket), "--filter=log", "--filter=cache", "--filter=delay", "memory", SIZE,
        "cache=writeback", f"wdelay={DELAY_MS}ms", f"logfile={log}",
    ]  # fmt: skip
    file = mountpoint / "nbd"
    with _running(server, socket.exists), _running(["nbdfuse", str(mountpoint), "--unix", str(socket)], file.exists):
        yield SlowDisk(file, log)


@contextmanager
def _running(command: list[str], ready: Callable[[], bool]) -> Iterator[None]:
    process = subprocess.Popen(command)
    end_s = time.monotonic() + _START_TIMEOUT_S
    try:
        while not ready():
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()
