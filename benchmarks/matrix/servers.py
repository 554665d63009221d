"""The server of a turn, and its cost.

A peer's server is started for each turn and ended after it: its threads come and go with its clients, and only the
kernel's account of an ended process has those that have left. aiod's daemon lives through all turns.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.matrix import cost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.own_daemon import OwnDaemon

_START_TIMEOUT_S: Final = 10.0
_WORKERS_MAX: Final = 64
"""aiod's default."""


class Served:
    """A server during one turn."""

    def __init__(self, addresses: Sequence[str], pids: Callable[[], list[int]]) -> None:
        """`addresses`: clients take them in turn."""
        self.addresses = addresses
        self.pids = pids
        self.before: cost.Threads = {}
        self.spent: cost.Cost | None = None
        """The cost, known once the turn is over; None if there is no server."""

    def mark(self) -> None:
        """The clients are ready: costs until now do not count."""
        self.before = cost.of_threads(self.pids())


@contextmanager
def nobody(address: str) -> Iterator[Served]:
    """No server: the clients read the file themselves."""
    yield Served([address], list)


@contextmanager
def aiod(daemon: OwnDaemon, addresses: Sequence[str], workers: int) -> Iterator[Served]:
    """The running daemon, with at most `workers` workers (0: unchanged); `addresses` are EXPORT/PATH."""
    served = Served(addresses, daemon.pids)
    with _limited(daemon, workers):
        yield served
        served.spent = cost.between(served.before, cost.of_threads(daemon.pids()))


@contextmanager
def _limited(daemon: OwnDaemon, workers: int) -> Iterator[None]:
    if not workers:
        yield
        return
    daemon.ctl("pool", "main", "--max", str(workers))
    try:
        yield
    finally:
        daemon.ctl("pool", "main", "--max", str(_WORKERS_MAX))


class Program(NamedTuple):
    """The server of a peer."""

    command: list[str]
    socket: Path
    address: str
    pid_file: Path | None = None
    """The file where a server that detaches writes its pid."""


@contextmanager
def program(how: Program) -> Iterator[Served]:
    """A server that runs for this turn only."""
    pid = _started(how)
    served = Served([how.address], lambda: [pid])
    try:
        yield served
    finally:
        os.kill(pid, signal.SIGTERM)
        ended = cost.of_ended(pid)
        how.socket.unlink(missing_ok=True)
    served.spent = ended.since(cost.total(served.before.values()))


def _started(how: Program) -> int:
    process = subprocess.Popen(how.command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end_s = time.monotonic() + _START_TIMEOUT_S
    while not how.socket.exists() or (how.pid_file and not (how.pid_file.exists() and how.pid_file.read_text())):
        failed = process.poll() not in ((None, 0) if how.pid_file else (None,))
        if failed or time.monotonic() > end_s:
            process.kill()
            process.wait()
            raise RuntimeError(f"{how.command[0]} did not start")
        time.sleep(0.002)
    if how.pid_file is None:
        process.returncode = 0  # waited for by of_ended()
        return process.pid
    process.wait()
    pid = int(how.pid_file.read_text())
    how.pid_file.unlink()
    return pid
