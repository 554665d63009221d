"""Clients in Python: each turn is a process of its own, so that no client shares an interpreter with the harness."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from benchmarks.ring import scenarios
from benchmarks.ring.page_cache import Cached
from benchmarks.ring.peers import CACHED
from benchmarks.ring.programs import figures_of
from benchmarks.ring.turns import Contender, Measured

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.ring.peers import Peers

SYSTEM_PYTHON: Final = "/usr/bin/python3"
"""The interpreter that has libnbd's binding (Debian's python3-libnbd)."""
_FILE: Final = f"bench/{CACHED}"


def contenders(peers: Peers, loop: str) -> list[Contender]:
    """The contenders of both scenarios; those of asyncio run on `loop`, "uvloop" or "asyncio"."""
    endpoint, path, cached = peers.daemon.endpoint, str(peers.cached), Cached(peers.cached)
    blocking: dict[str, Callable[[float], Measured]] = {
        scenarios.AIOD: lambda seconds: blocking_reads(seconds, "aiod", endpoint, _FILE, "ring"),
        scenarios.AIOD_ZMQ: lambda seconds: blocking_reads(seconds, "aiod", endpoint, _FILE, "zmq"),
        scenarios.LIBNBD: lambda seconds: blocking_reads(seconds, "libnbd", peers.nbdkit(), python=SYSTEM_PYTHON),
        scenarios.EXECUTOR: lambda seconds: blocking_reads(seconds, "executor", path),
    }
    coroutines = {
        scenarios.AIOD: ["aiod", endpoint, _FILE, "ring"],
        scenarios.AIOD_ZMQ: ["aiod", endpoint, _FILE, "zmq"],
        scenarios.CAIO: ["caio", path, "linux_aio"],
        scenarios.CAIO_DEFERRED: ["caio", path, "linux_aio", "deferred"],
        scenarios.CAIO_URING: ["caio", path, "linux_uring"],
        scenarios.RUN_IN_EXECUTOR: ["executor", path],
        scenarios.AIOFILES: ["aiofiles", path],
    }
    return [
        *(Contender("python-blocking", name, run, cached) for name, run in blocking.items()),
        *(
            Contender("python-asyncio", name, asyncio_reads(loop, *arguments), cached)
            for name, arguments in coroutines.items()
        ),
    ]


def blocking_reads(seconds: float, *arguments: str, python: str = sys.executable) -> Measured:
    """The figures of one turn of blocking_reads.py."""
    return Measured(**figures_of([python, "-m", "benchmarks.ring.blocking_reads", str(seconds), *arguments], seconds))


def asyncio_reads(loop: str, *arguments: str) -> Callable[[float], Measured]:
    """A callable for turns of asyncio_reads.py."""

    def run(seconds: float) -> Measured:
        command = [sys.executable, "-m", "benchmarks.ring.asyncio_reads", str(seconds), loop, *arguments]
        return Measured(**figures_of(command, seconds))

    return run
