"""The soak test over several daemons of one directory: they are killed, frozen and stopped at random.

Each client has a file of its own, and verifies every block (load.py). At least one daemon runs at any time. All of them
are on one host, so what was answered and not flushed is not lost; what a frozen daemon carries out late would be found.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from tests.conftest import Daemon, freeze, kill, wait_until
from tests.patience import scaled
from tests.soak.load import Load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOST_TIMEOUT_S: Final = scaled(2.0)
PROGRESS_S: Final = scaled(120.0)


class SeveralSoak:
    """One run."""

    def __init__(self, base: Path, seed: int, clients: int, daemons: int) -> None:
        """Use the directory `base`; `seed` decides the events and their times."""
        self._random = random.Random(seed)  # noqa: S311 - a schedule
        shared = base / "shared"
        shared.mkdir()
        self._daemons = []
        for number in range(daemons):
            own = base / f"daemon{number}"
            own.mkdir()
            self._daemons.append(Daemon(own, **{"exports.scratch": {"path": str(shared)}}))
            self._daemons[-1].start()
        endpoints = ",".join(daemon.endpoint for daemon in self._daemons)
        self._loads = [
            Load(
                endpoints,
                f"scratch/{number}",
                "ring" if number % 2 else "zmq",
                self._random.randrange(1 << 30),
                host_timeout=HOST_TIMEOUT_S,
            )
            for number in range(clients)
        ]
        self._events: dict[str, Callable[[Daemon], None]] = {
            "daemon killed": self._kill,
            "daemon frozen": self._freeze,
            "daemon stopped": self._stop,
        }
        self._done: Counter[str] = Counter()
        self._pauses_s: dict[str, float] = {}

    def run(self, seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
        """Run for so many seconds; returns the report. Calls `tell` for each event."""
        end_s = time.monotonic() + seconds
        for load in self._loads:
            load.start()
        try:
            self._let_work()
            while time.monotonic() < end_s and not self._wrong():
                name = self._random.choice([*self._events])
                tell(name)
                self._events[name](self._random.choice(self._daemons))
                self._done[name] += 1
        finally:
            for load in self._loads:
                load.end()
            for load in self._loads:
                load.join()
            for daemon in self._daemons:
                daemon.destroy()
        return self._report()

    def _wrong(self) -> list[str]:
        return [wrong for load in self._loads for wrong in load.wrong]

    def _let_work(self, event: str = "") -> None:
        """Wait until every client has made progress; note how long the longest request took."""
        before = [load.requests for load in self._loads]
        for load in self._loads:
            load.longest_pause_s = 0.0
        wait_until(
            lambda: (
                all(load.requests > done + 50 for load, done in zip(self._loads, before, strict=True)) or self._wrong()
            ),
            "every client gets something done",
            PROGRESS_S,
        )
        if event:
            pause_s = max(load.longest_pause_s for load in self._loads)
            self._pauses_s[event] = max(self._pauses_s.get(event, 0.0), pause_s)

    # ---- what happens -----------------------------------------------------------------------------------------------

    def _kill(self, daemon: Daemon) -> None:
        pids = daemon.pid, daemon.engine["pid"]
        for pid in pids:
            kill(pid)
        assert daemon.process is not None
        daemon.process.wait()
        self._let_work("daemon killed")
        daemon.start()

    def _freeze(self, daemon: Daemon) -> None:
        """For a time in which its clients move, or for one in which they hardly do."""
        pids = daemon.pid, int(daemon.engine["pid"])
        for pid in pids:
            freeze(pid)
        try:
            if self._random.random() < 0.5:
                self._let_work("daemon frozen")
            else:
                time.sleep(self._random.uniform(0.5, 1.2) * HOST_TIMEOUT_S)
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGCONT)
        self._let_work()

    def _stop(self, daemon: Daemon) -> None:
        daemon.stop()
        self._let_work("daemon stopped")
        daemon.start()

    def _report(self) -> dict[str, Any]:
        return {
            "requests": sum(load.requests for load in self._loads),
            "failovers": sum(load.failovers for load in self._loads),
            "flushes": sum(load.flushes for load in self._loads),
            "flushes in doubt": sum(load.doubts for load in self._loads),
            "unknown whether done": sum(load.unknown for load in self._loads),
            "longest pauses (s)": {event: round(pause_s, 2) for event, pause_s in self._pauses_s.items()},
            "events": dict(self._done),
            "mismatches": [each for load in self._loads for each in load.mismatches],
            "lost": [each for load in self._loads for each in load.lost],
            "errors": [each for load in self._loads for each in load.errors],
            "leaked": [],
        }
