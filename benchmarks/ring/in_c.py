"""Clients in C: aiod-bench over the ring, and fio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.fio import Figures, fio
from benchmarks.nbd_peers import fio_nbd
from benchmarks.ring import scenarios
from benchmarks.ring.load import DEPTH, FILE_BYTES, LARGE_BYTES, LARGE_DEPTH, SMALL_BYTES
from benchmarks.ring.page_cache import Cached, NotCached
from benchmarks.ring.peers import CACHED, DIRECT
from benchmarks.ring.programs import ROOT, figures_of
from benchmarks.ring.turns import Contender, Measured

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.ring.peers import Peers

AIOD_BENCH: Final = ROOT / "build" / "aiod-bench"


class Load(NamedTuple):
    """The reads of a scenario."""

    rw: str
    block_bytes: int
    depth: int


LOADS: Final = {
    "c-depth-1": Load("randread", SMALL_BYTES, 1),
    "c-depth-32": Load("randread", SMALL_BYTES, DEPTH),
    "c-large": Load("read", LARGE_BYTES, LARGE_DEPTH),
    "direct": Load("randread", SMALL_BYTES, DEPTH),
}


def contenders(peers: Peers) -> list[Contender]:
    """The contenders of every scenario."""
    cached, not_cached = Cached(peers.cached), NotCached(peers.direct)
    found = []
    for scenario in ("c-depth-1", "c-depth-32", "c-large"):
        load = LOADS[scenario]
        found += [
            Contender(scenario, scenarios.AIOD, aiod_bench(peers, f"bench/{CACHED}", load), cached),
            Contender(scenario, scenarios.NBDKIT, nbd(peers.nbdkit, load), cached),
            Contender(scenario, scenarios.QEMU_NBD, nbd(peers.qemu_nbd, load), cached),
            Contender(scenario, scenarios.PSYNC, psync(peers, load), cached),
        ]
    direct = LOADS["direct"]
    return [
        *found,
        Contender("direct", scenarios.AIOD, aiod_bench(peers, f"{DIRECT}/{DIRECT}", direct), not_cached),
        Contender("direct", scenarios.IO_URING, io_uring_direct(peers, direct), not_cached),
        Contender("direct", scenarios.PSYNC, psync_direct(peers, direct), not_cached),
        Contender("direct", scenarios.QEMU_NBD, nbd(peers.qemu_nbd_direct, direct), not_cached),
    ]


def aiod_bench(peers: Peers, file: str, load: Load) -> Callable[[float], Measured]:
    """The load generator of aiod, over the ring."""

    def run(seconds: float) -> Measured:
        if not AIOD_BENCH.exists():
            raise RuntimeError("build/aiod-bench is not built: make build/aiod-bench")
        command = [
            str(AIOD_BENCH), "--endpoint", peers.daemon.endpoint, "--file", file, "--rw", load.rw,
            "--bs", str(load.block_bytes), "--depth", str(load.depth), "--seconds", str(seconds),
            "--size", str(FILE_BYTES), "--json",
        ]  # fmt: skip
        done = figures_of(command, seconds)
        return Measured(
            rate=done["iops"],
            bytes_rate=done["bandwidth_bytes"],
            p50_us=done["p50_us"],
            p99_us=done["p99_us"],
            p999_us=done["p999_us"],
        )

    return run


def nbd(server: Callable[[], str], load: Load) -> Callable[[float], Measured]:
    """The nbd engine of fio, connected to a server."""
    return lambda seconds: _measured(fio_nbd(server(), **load._asdict(), size=FILE_BYTES, seconds=seconds))


def psync(peers: Peers, load: Load) -> Callable[[float], Measured]:
    """Plain pread in one process: its depth is 1, whatever the others' is. fio would drop the page cache first."""
    return lambda seconds: _measured(
        fio(
            "--ioengine=psync", f"--filename={peers.cached}", "--readonly", "--invalidate=0",
            **load._replace(depth=1)._asdict(), size=FILE_BYTES, seconds=seconds,
        )
    )  # fmt: skip


def io_uring_direct(peers: Peers, load: Load) -> Callable[[float], Measured]:
    """io_uring with O_DIRECT."""
    return lambda seconds: _measured(
        fio(
            "--ioengine=io_uring", f"--filename={peers.direct}", "--readonly", "--direct=1",
            **load._asdict(), size=FILE_BYTES, seconds=seconds,
        )
    )  # fmt: skip


def psync_direct(peers: Peers, load: Load) -> Callable[[float], Measured]:
    """Plain pread with O_DIRECT, in as many threads as the others have requests in flight."""
    return lambda seconds: _measured(
        fio(
            "--ioengine=psync", f"--filename={peers.direct}", "--readonly", "--direct=1", "--thread",
            f"--numjobs={load.depth}", **load._replace(depth=1)._asdict(), size=FILE_BYTES, seconds=seconds,
        )
    )  # fmt: skip


def _measured(done: Figures) -> Measured:
    return Measured(
        rate=done.rate,
        bytes_rate=done.bytes_rate,
        p50_us=done.p50_s * 1e6,
        p99_us=done.p99_s * 1e6,
        p999_us=done.p999_s * 1e6,
    )
