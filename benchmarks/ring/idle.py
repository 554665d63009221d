"""The CPU time of an engine while a client has a ring and sends no requests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import psutil

import aiod_client
from benchmarks.ring import scenarios
from benchmarks.ring.load import SMALL_BYTES
from benchmarks.ring.page_cache import Regardless
from benchmarks.ring.peers import CACHED
from benchmarks.ring.turns import Contender, Measured

if TYPE_CHECKING:
    from benchmarks.ring.peers import Peers

IDLE_S: Final = 10.0
"""Length of a turn, whatever the others' is: the kernel counts CPU time in hundredths of a second."""


def contenders(peers: Peers) -> list[Contender]:
    """The engine is the only contender."""
    return [Contender("idle", scenarios.ENGINE, lambda _: _idle(peers), Regardless())]


def _idle(peers: Peers) -> Measured:
    with (
        aiod_client.connect(peers.daemon.endpoint, transport="ring") as client,
        client.open(f"bench/{CACHED}", "r") as file,
    ):
        file.pread(SMALL_BYTES, 0)  # what it does on after the last request counts as well
        (engine,) = (psutil.Process(engine["pid"]) for engine in peers.daemon.ctl("stats")["engines"])
        before_s, began_s = _cpu_s(engine), time.monotonic()
        time.sleep(IDLE_S)
        return Measured(cpu_share=(_cpu_s(engine) - before_s) / (time.monotonic() - began_s))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
