"""The soak test: clients verify their data while engines, the daemon and clients are killed by a seeded schedule."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import Daemon, kill, wait_until
from tests.patience import scaled
from tests.soak.blocks import BLOCK_BYTES
from tests.soak.load import BLOCKS, Load

if TYPE_CHECKING:
    from collections.abc import Callable

ONCE_BYTES = 2**20
"""After the first message above 64 KiB, pyzmq has a thread with sockets of its own."""
DISK_BYTES = BLOCKS * BLOCK_BYTES
MUST_BE_EMPTY = ("mismatches", "lost", "errors", "leaked")
"""The lists of a report that must be empty."""
VICTIM_GONE_S = 2.0
PROGRESS_S = scaled(60.0)
URING_DESCRIPTORS = 16
"""An engine has up to eight io_urings, two descriptors each, and keeps their eventfds."""
VICTIM = """
import sys, aiod_client
with aiod_client.connect(sys.argv[1], transport=sys.argv[2]) as client, client.open(sys.argv[3], "w+") as file:
    print("working", flush=True)
    while True:
        for future in file.submit([("write", bytes(4096), 4096 * number) for number in range(64)]):
            future.result()
"""


class Reconnects(logging.Handler):
    """Counts them, by what the clients log."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """One of any of them."""
        self.count += "continues" in record.getMessage()


class Soak:
    """One run."""

    def __init__(self, base: Path, seed: int, clients: int, failing: Path | None) -> None:
        """Use the directory `base`; `seed` decides the events and their times.

        `failing`: a file of DISK_BYTES on a disk that now and then fails; an engine and a client more use it.
        """
        self._random = random.Random(seed)  # noqa: S311 - a schedule
        other = base / "other"
        other.mkdir()
        sections: dict[str, Any] = {"exports.other": {"path": str(other), "engine": "other"}, "engine.other": {}}
        if failing is not None:
            sections |= {"exports.failing": {"path": str(failing), "engine": "failing"}, "engine.failing": {}}
        self._daemon = Daemon(base, **sections)
        self._daemon.start()
        self._loads = [
            self._load(f"{'scratch' if number % 2 else 'other'}/{number}", "ring" if number // 2 % 2 else "zmq")
            for number in range(clients)
        ]
        if failing is not None:
            self._loads.append(self._load("failing", self._random.choice(["zmq", "ring"]), fails=True))
        self._reconnects = Reconnects()
        self._daemon_before = self._used_once(*(() if failing is None else ("failing",)))
        self._events_done: Counter[str] = Counter()
        self._leaks: list[str] = []
        self._events: dict[str, Callable[[], None]] = {
            "engine killed": self._kill_engine,
            "daemon killed": self._kill_daemon,
            "daemon restarted": self._restart,
            "client killed": self._kill_client,
            "pool resized": self._resize,
            "configuration reloaded": self._reload,
        }

    def _load(self, path: str, transport: str, *, fails: bool = False) -> Load:
        return Load(self._daemon.endpoint, path, transport, self._random.randrange(1 << 30), fails=fails)

    def run(self, seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
        """Run for so many seconds; returns the report. Calls `tell` for each event."""
        end_s = time.monotonic() + seconds
        before = own_resources()
        logger = logging.getLogger("aiod_client")
        logger.addHandler(self._reconnects)
        for load in self._loads:
            load.start()
        try:
            while time.monotonic() < end_s and not self._wrong():
                self._let_work()
                name = self._random.choice([*self._events, "engine killed"])
                self._events[name]()
                self._events_done[name] += 1
                tell(name)
            self._let_work()
        finally:
            for load in self._loads:
                load.end()
            for load in self._loads:
                load.join()
            logger.removeHandler(self._reconnects)
        self._look_for_leaks(before)
        self._daemon.stop()
        self._look_for_remains()
        self._daemon.destroy()
        return self._report()

    def _wrong(self) -> list[str]:
        return [wrong for load in self._loads for wrong in load.wrong]

    def _let_work(self) -> None:
        """Wait until every client has made progress."""
        before = [load.requests for load in self._loads]
        wait_until(
            lambda: (
                all(load.requests > done + 50 for load, done in zip(self._loads, before, strict=True)) or self._wrong()
            ),
            "every client gets something done",
            PROGRESS_S,
        )

    def _report(self) -> dict[str, Any]:
        return {
            "requests": sum(load.requests for load in self._loads),
            "kills": sum(count for event, count in self._events_done.items() if "killed" in event),
            "reconnects": self._reconnects.count,
            "flushes": sum(load.flushes for load in self._loads),
            "flushes in doubt": sum(load.doubts for load in self._loads),
            "unknown whether done": sum(load.unknown for load in self._loads),
            "longest pause (s)": round(max(load.longest_pause_s for load in self._loads), 2),
            "faults of the disk": sum(load.faults for load in self._loads),
            "events": dict(self._events_done),
            "mismatches": [each for load in self._loads for each in load.mismatches],
            "lost": [each for load in self._loads for each in load.lost],
            "errors": [each for load in self._loads for each in load.errors],
            "leaked": self._leaks,
        }

    # ---- what happens -----------------------------------------------------------------------------------------------

    def _stats(self) -> dict[str, Any]:
        with aiod_client.connect(self._daemon.endpoint) as client:
            return dict(client.control("stats"))

    def _kill_engine(self) -> None:
        engine = self._random.choice(self._stats()["engines"])
        if engine["state"] == "serving":  # else that is the pid of one that has gone
            kill(engine["pid"])

    def _kill_daemon(self) -> None:
        pids = [engine["pid"] for engine in self._stats()["engines"]]
        assert self._daemon.process is not None
        self._daemon.process.kill()
        self._daemon.process.wait()
        wait_until(lambda: not any(_lives(pid) for pid in pids), "engines end with their supervisor")
        self._daemon.start()

    def _restart(self) -> None:
        if self._daemon.stop() != 0:
            self._leaks.append("the daemon did not stop in order")
        self._daemon.start()

    def _kill_client(self) -> None:
        """A client that dies in the middle of a batch leaves nothing behind after two seconds."""
        transport = self._random.choice(["zmq", "ring"])
        command = [sys.executable, "-c", VICTIM, self._daemon.endpoint, transport, "scratch/victim"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            victim.stdout.readline()
            victim.kill()
        began_s = time.monotonic()
        with aiod_client.connect(self._daemon.endpoint) as client:
            wait_until(
                lambda: all(each["pid"] != victim.pid for each in client.control("clients")["clients"]),
                "the session of a dead client ends",
            )
        if time.monotonic() - began_s > VICTIM_GONE_S:
            self._leaks.append(f"a dead client's session stayed for {time.monotonic() - began_s:.1f} s")

    def _resize(self) -> None:
        self._daemon.ctl("pool", "main", "--min", "0", "--max", str(self._random.choice([1, 2, 8, 64])))

    def _reload(self) -> None:
        text = self._daemon.config_path.read_text()
        line = "[sessions]\nactive_max = 4\n"
        self._daemon.config_path.write_text(text.replace(line, "") if line in text else text + line)
        self._daemon.ctl("reload")

    # ---- what must not be left --------------------------------------------------------------------------------------

    def _look_for_leaks(self, before: dict[str, int]) -> None:
        for engine in self._stats()["engines"]:
            for what in ("files", "rings", "inflight", "bytes_inflight"):
                if engine[what]:
                    self._leaks.append(f"engine {engine['name']}: {what} is {engine[what]}")
        self._look_for_leaks_of("the clients", own_resources, before)
        for name, pid in self._processes().items():
            self._look_for_leaks_of(name, functools.partial(resources, pid), self._daemon_before[name])

    def _look_for_leaks_of(self, whose: str, now: Callable[[], dict[str, int]], before: dict[str, int]) -> None:
        def more() -> list[str]:
            return [f"{whose}: {n - before[what]} {what}" for what, n in now().items() if n > before.get(what, n)]

        with contextlib.suppress(pytest.fail.Exception):
            wait_until(lambda: not more(), "nothing is left")
        self._leaks += more()

    def _processes(self) -> dict[str, int]:
        return {"supervisor": self._daemon.pid} | {e["name"]: e["pid"] for e in self._stats()["engines"]}

    def _used_once(self, *failing: str) -> dict[str, dict[str, int]]:
        """Resources of each process of a daemon after first use; without threads, whose number varies in pools."""
        for path in ("scratch/once", "other/once", *failing):
            for transport in ("zmq", "ring"):
                self._use(path, transport, "r+" if path in failing else "w+")
        wait_until(lambda: not any(engine["rings"] for engine in self._stats()["engines"]), "they have gone")
        held = {name: resources(pid) for name, pid in self._processes().items()}
        for name, each in held.items():
            del each["threads"]
            each["descriptors"] += 0 if name == "supervisor" else URING_DESCRIPTORS
        return held

    def _use(self, path: str, transport: Any, mode: str) -> None:
        with (
            aiod_client.connect(self._daemon.endpoint, transport=transport) as client,
            client.open(path, mode) as file,
        ):
            for operation in (("write", bytes(ONCE_BYTES), 0), ("read", ONCE_BYTES, 0)):
                with contextlib.suppress(OSError):  # of the disk that fails
                    file.submit([operation])[0].result()

    def _look_for_remains(self) -> None:
        remains = {path.name for path in self._daemon.runtime_dir.iterdir()}
        self._leaks += [f"{name} is left" for name in remains if not name.endswith(".lock")]


def resources(pid: int) -> dict[str, int]:
    """Resources of the process that may leak."""
    process = Path(f"/proc/{pid}")
    return {
        "descriptors": len([*(process / "fd").iterdir()]),
        "threads": len([*(process / "task").iterdir()]),
        "shared memories": (process / "maps").read_text().count("/memfd:aiod"),
    }


def own_resources() -> dict[str, int]:
    """The figures of this process."""
    gc.collect()
    return resources(os.getpid())


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
