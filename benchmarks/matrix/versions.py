"""The machine of a run, and the versions of the peers."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import zmq

from benchmarks.ring.machine import machine as ring_machine
from benchmarks.ring.machine import package, said


def machine() -> dict[str, Any]:
    """The machine and the versions; None for a peer that is not installed."""
    known = ring_machine()
    known["cpu"] = _cpu()
    known["versions"] |= {
        "aiod": metadata.version("aiod-io"),
        "pyzmq": f"{package('pyzmq')} (libzmq {zmq.zmq_version()})",
        "nbd-server": said(["dpkg-query", "-W", "-f", "${Version}\n", "nbd-server"]),
    }
    return known


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
