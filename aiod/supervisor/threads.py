"""The threads of a process as the kernel shows them. Reads /proc; any thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from aiod.config import parse_cpus

_STATES: Final = {
    "R": "running",
    "S": "sleeping",
    "D": "disk sleep",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "X": "dead",
    "I": "idle",
}
_WORKER_PREFIX: Final = "aiod-w/"
_POLLER_PREFIX: Final = "aiod-p/"
_ZMQ_PREFIX: Final = "ZMQbg/"


def threads_of(pid: int) -> list[dict[str, Any]]:
    """{tid, name, role, cpus, state} of every thread of process `pid`; [] when there is none."""
    threads = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        except OSError:
            continue  # it has ended meanwhile
        tid = int(task.name)
        threads.append(
            {
                "tid": tid,
                "name": status["Name"],
                "role": "main" if tid == pid else _role(status["Name"]),
                "cpus": list(parse_cpus(status["Cpus_allowed_list"])),
                "state": _STATES.get(status["State"][0], status["State"][0]),
            }
        )
    return threads


def _role(name: str) -> str:
    if name.startswith(_WORKER_PREFIX):
        return "worker"
    if name.startswith(_POLLER_PREFIX):
        return "poller"
    return "zmq" if name.startswith(_ZMQ_PREFIX) else "other"
