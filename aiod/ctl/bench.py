"""A quick benchmark of a running daemon with one asyncio client and a fixed number of requests in flight.

It measures daemon and client together; the client is a smaller part of it in `aiod-bench` (C).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psutil
import uvloop

from aiod_client import aio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from aiod.ctl.daemon import Address
    from aiod_client.ring.attach import Transport

_MIB: Final = 1 << 20
_READ_SHARE: Final = 0.7  # of randrw
_PRECISION_BITS: Final = 6  # latencies are kept to one part in 32
_PERIOD_S: Final = 0.25
_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Parameters of a run."""

    export: str
    kind: str
    """The kind of load: a key of KINDS (bench_run.py)."""
    block_bytes: int
    file_bytes: int
    depth: int
    seconds: float
    direct: bool
    transport: Transport


@dataclass(slots=True)
class Tally:
    """Counters of a run."""

    operations: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    """Number of operations by latency (ns), rounded down to one part in 32."""

    def add(self, nanoseconds: int) -> None:
        """Count an operation."""
        self.operations += 1
        shift = max(0, nanoseconds.bit_length() - _PRECISION_BITS)
        self.latencies[nanoseconds >> shift << shift] += 1

    def quantiles_us(self) -> dict[str, float]:
        """p50, p90, p99, p999 and max of the latencies (µs)."""
        ordered = sorted(self.latencies.items())
        result: dict[str, float] = {}
        for name, share in _QUANTILES.items():
            left = share * self.operations
            for nanoseconds, count in ordered:
                left -= count
                if left <= 0:
                    result[name] = nanoseconds / 1000
                    break
        return result | {"max": ordered[-1][0] / 1000 if ordered else 0.0}


def measure(address: Address, work: Work, timeout_s: float, progress: Callable[[float, Tally], None]) -> dict[str, Any]:
    """Create a file in the export, measure requests on it, and remove it. Calls `progress(seconds, tally)` meanwhile.

    Raises OSError when the daemon refuses a request, or has gone.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(address, work, timeout_s, progress))


async def _measure(
    address: Address, work: Work, timeout_s: float, progress: Callable[[float, Tally], None]
) -> dict[str, Any]:
    path = f"{work.export}/.aiodctl-bench-{os.getpid()}"
    async with _connect(address, work, timeout_s) as maker:
        stats = await maker.control("stats")
        async with await maker.open(path, "x+") as file:
            try:
                await _fill(file, work.file_bytes)
                # In a session of its own, whose statistics have the measured requests only.
                earlier = {each["id"] for each in await _sessions(maker)}
                async with (
                    _connect(address, work, timeout_s) as client,
                    await client.open(path, "r+", direct=work.direct) as measured,
                ):
                    mine = [each["id"] for each in await _sessions(maker) if each["id"] not in earlier]
                    with _cpu_of([engine["pid"] for engine in stats["engines"]]) as cpu:
                        elapsed_s, tally = await _work(measured, work, progress)
                    used_s = cpu()
                    daemon_us = _daemon_latencies(await _sessions(maker), mine)
            finally:
                with contextlib.suppress(OSError):  # an earlier error is more useful
                    await maker.remove(path)
    return _figures(work, elapsed_s, tally, used_s) | {"daemon_latency_us": daemon_us}


def _connect(address: Address, work: Work, timeout_s: float) -> Any:
    return aio.connect(
        address.endpoint,
        transport=work.transport,
        timeout=timeout_s,
        key=address.key,
        server_key=address.server_key,
        reconnect_timeout=0,  # a run over the death of an engine would measure the restart
    )


async def _sessions(client: aio.Client) -> list[dict[str, Any]]:
    """The daemon's sessions; [] if this user may not see them."""
    try:
        clients: list[dict[str, Any]] = (await client.control("clients"))["clients"]
    except PermissionError:
        return []
    own_pid = [each for each in clients if each["pid"] == os.getpid()]
    return own_pid or clients  # over tcp no pid is known


def _daemon_latencies(sessions: list[dict[str, Any]], ids: list[str]) -> dict[str, Any] | None:
    """The latencies that the daemon has measured, by operation; None if the session cannot be told from others."""
    found = [each for each in sessions if [each["id"]] == ids]
    if len(found) != 1:
        return None
    ops = found[0]["ops"]
    return {op: ops[op]["latency_us"] for op in ("read", "write") if op in ops and ops[op]["count"]}


async def _fill(file: aio.File, nbytes: int) -> None:
    """Write real data: reading a hole would not touch the disk."""
    data = os.urandom(_MIB)
    for offset in range(0, nbytes, _MIB):
        await file.pwrite(data[: min(_MIB, nbytes - offset)], offset)
    await file.flush()


async def _work(file: aio.File, work: Work, progress: Callable[[float, Tally], None]) -> tuple[float, Tally]:
    tally = Tally()
    began_s = time.monotonic()
    until_s = began_s + work.seconds
    offsets = _offsets(work)
    data = os.urandom(work.block_bytes)

    async def one() -> None:
        while True:  # once at least: on a busy machine the time may be over before the last of them begins
            offset = next(offsets)
            began_ns = time.perf_counter_ns()
            operation: Awaitable[Any] = (
                file.pread(work.block_bytes, offset) if _is_read(work.kind) else file.pwrite(data, offset)
            )
            await operation
            tally.add(time.perf_counter_ns() - began_ns)
            if time.monotonic() >= until_s:
                return

    async def report() -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            progress(time.monotonic() - began_s, tally)

    reporting = asyncio.create_task(report())
    try:
        await asyncio.gather(*(one() for _ in range(work.depth)))
    finally:
        reporting.cancel()
    return time.monotonic() - began_s, tally


def _is_read(kind: str) -> bool:
    if kind == "randrw":
        return random.random() < _READ_SHARE  # noqa: S311 - not for secrets
    return kind in {"read", "randread"}


def _offsets(work: Work) -> Iterator[int]:
    """Offsets of the operations: sequential with wrap-around, or random."""
    blocks = max(1, work.file_bytes // work.block_bytes)
    if work.kind.startswith("rand"):
        while True:
            yield random.randrange(blocks) * work.block_bytes  # noqa: S311 - as above
    while True:
        yield from range(0, blocks * work.block_bytes, work.block_bytes)


@contextlib.contextmanager
def _cpu_of(pids: list[int]) -> Iterator[Callable[[], dict[str, float | None]]]:
    """A function that returns the CPU seconds of this process and of `pids` since then; None: unknown."""
    before = _cpu_now(pids)

    def used() -> dict[str, float | None]:
        after = _cpu_now(pids)
        return {
            who: now - then if now is not None and then is not None else None
            for (who, now), then in zip(after.items(), before.values(), strict=True)
        }

    yield used


def _cpu_now(pids: list[int]) -> dict[str, float | None]:
    return {"client": time.process_time(), "engines": _cpu_of_processes(pids)}


def _cpu_of_processes(pids: list[int]) -> float | None:
    try:
        times = [psutil.Process(pid).cpu_times() for pid in pids]
    except psutil.Error:
        return None  # in another pid namespace, or gone
    return sum(time.user + time.system for time in times)


def _figures(work: Work, elapsed_s: float, tally: Tally, used_s: dict[str, float | None]) -> dict[str, Any]:
    operations = tally.operations
    return {
        "export": work.export,
        "rw": work.kind,
        "block_bytes": work.block_bytes,
        "file_bytes": work.file_bytes,
        "depth": work.depth,
        "direct": work.direct,
        "transport": work.transport,
        "seconds": elapsed_s,
        "operations": operations,
        "iops": operations / elapsed_s,
        "mib_per_second": operations * work.block_bytes / elapsed_s / _MIB,
        "latency_us": tally.quantiles_us(),
        "cpu_us_per_operation": {
            who: seconds * 1e6 / operations if seconds is not None and operations else None
            for who, seconds in used_s.items()
        },
    }
