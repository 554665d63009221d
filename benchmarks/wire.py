"""Requests over ZeroMQ beside the limit of the wire itself, NBD servers, and a pool of Python threads.

Contenders take turns, round by round, and medians are compared: these are ratios of one run on one machine, whose noise
hits all alike.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiod_client
from aiod_protocol import wire
from benchmarks import cached_file
from benchmarks.echo import Echo, echo
from benchmarks.nbd_peers import fio_nbd, nbdkit, qemu_nbd
from benchmarks.offsets import random_offsets
from benchmarks.own_daemon import OwnDaemon, own_daemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE_BYTES: Final = 256 * 1024 * 1024
SMALL_BYTES: Final = 4096
LARGE_BYTES: Final = 1024 * 1024
BATCH: Final = 32
DEPTH: Final = 128
LARGE_DEPTH: Final = 8
_HEADER_BYTES: Final = len(wire.pack(wire.MessageType.SUBMIT, bytes(16), 1 << 20, b""))


class Measured(NamedTuple):
    """The figures of one contender in one round; None where a figure does not apply."""

    rate: float | None = None
    """Operations per second."""
    p50_s: float | None = None
    """Median latency of one operation."""


Contender = tuple[str, str, "Callable[[float], Measured]"]
"""Scenario, name, and a callable that runs it for a number of seconds."""


OFFSETS: Final = random_offsets(FILE_BYTES, SMALL_BYTES)


# ---- aiod


def aiod_batches(file: aiod_client.File) -> Callable[[float], Measured]:
    """4 KiB random reads by the blocking client: batches of 32, 128 in flight."""

    def run(seconds: float) -> Measured:
        window: deque[list[Any]] = deque()
        at = done = 0
        started_s = time.perf_counter()
        end_s = started_s + seconds
        while time.perf_counter() < end_s:
            while len(window) < DEPTH // BATCH:
                offsets = OFFSETS[at : at + BATCH]
                at = (at + BATCH) % len(OFFSETS)
                window.append(file.submit([("read", SMALL_BYTES, offset) for offset in offsets]))
            done += sum(len(future.result()) for future in window.popleft()) // SMALL_BYTES
        elapsed_s = time.perf_counter() - started_s
        for futures in window:
            wait(futures)
        return Measured(rate=done / elapsed_s)

    return run


def aiod_depth_1(file: aiod_client.File) -> Callable[[float], Measured]:
    """4 KiB random reads, one at a time."""

    def run(seconds: float) -> Measured:
        return _one_by_one(seconds, lambda offset: file.pread(SMALL_BYTES, offset))

    return run


def aiod_large(file: aiod_client.File, op: str) -> Callable[[float], Measured]:
    """1 MiB sequential reads or writes, 8 in flight."""
    data = os.urandom(LARGE_BYTES)

    def run(seconds: float) -> Measured:
        window: deque[Any] = deque()
        offset = done = 0
        started_s = time.perf_counter()
        end_s = started_s + seconds
        while time.perf_counter() < end_s:
            while len(window) < LARGE_DEPTH:
                window.extend(file.submit([(op, LARGE_BYTES if op == "read" else data, offset)]))
                offset = (offset + LARGE_BYTES) % FILE_BYTES
            window.popleft().result()
            done += 1
        elapsed_s = time.perf_counter() - started_s
        wait(window)
        return Measured(rate=done / elapsed_s)

    return run


def _one_by_one(seconds: float, read: Callable[[int], Any]) -> Measured:
    taken = []
    end_s = time.perf_counter() + seconds
    for offset in OFFSETS:
        began_s = time.perf_counter()
        if began_s > end_s:
            break
        read(offset)
        taken.append(time.perf_counter() - began_s)
    return Measured(rate=1 / statistics.mean(taken), p50_s=statistics.median(taken))


# ---- peers


def echo_rate(peer: Echo, window: int) -> Callable[[float], Measured]:
    """The bare echo with `window` messages in flight."""
    return lambda seconds: Measured(rate=peer.rate(seconds, window))


def echo_depth_1(peer: Echo) -> Callable[[float], Measured]:
    """The bare echo, one message at a time."""

    def run(seconds: float) -> Measured:
        taken = peer.latencies(seconds)
        return Measured(rate=1 / statistics.mean(taken), p50_s=statistics.median(taken))

    return run


def executor_reads(path: Path, pool: ThreadPoolExecutor) -> Callable[[float], Measured]:
    """os.pread in a ThreadPoolExecutor, 128 in flight."""
    fd = os.open(path, os.O_RDONLY)

    def run(seconds: float) -> Measured:
        window: deque[Any] = deque()
        at = done = 0
        started_s = time.perf_counter()
        end_s = started_s + seconds
        while time.perf_counter() < end_s:
            while len(window) < DEPTH:
                window.append(pool.submit(os.pread, fd, SMALL_BYTES, OFFSETS[at]))
                at = (at + 1) % len(OFFSETS)
            window.popleft().result()
            done += 1
        elapsed_s = time.perf_counter() - started_s
        wait(window)
        return Measured(rate=done / elapsed_s)

    return run


def executor_depth_1(path: Path, pool: ThreadPoolExecutor) -> Callable[[float], Measured]:
    """os.pread in a ThreadPoolExecutor, one at a time."""
    fd = os.open(path, os.O_RDONLY)
    return lambda seconds: _one_by_one(seconds, lambda offset: pool.submit(os.pread, fd, SMALL_BYTES, offset).result())


def nbd(uri: str, rw: str, block_bytes: int, depth: int) -> Callable[[float], Measured]:
    """An NBD server driven by fio."""

    def run(seconds: float) -> Measured:
        done = fio_nbd(uri, rw=rw, block_bytes=block_bytes, depth=depth, size=FILE_BYTES, seconds=seconds)
        return Measured(rate=done.rate, p50_s=done.p50_s if depth == 1 else None)

    return run


# ---- the run


def _echoes(stack: ExitStack, directory: Path) -> list[Contender]:
    record = wire.SUBMISSION.size
    header = bytes(_HEADER_BYTES)
    framed = stack.enter_context(echo(directory, "framed", [header, *[bytes(record)] * BATCH], BATCH, SMALL_BYTES))
    shared = stack.enter_context(
        echo(directory, "shared", [bytes(_HEADER_BYTES + record * BATCH)], 1, SMALL_BYTES * BATCH)
    )
    single = stack.enter_context(echo(directory, "single", [bytes(_HEADER_BYTES + record)], 1, SMALL_BYTES))
    large = stack.enter_context(echo(directory, "large", [bytes(_HEADER_BYTES + record)], 1, LARGE_BYTES))
    window = DEPTH // BATCH
    return [
        ("4k", "echo, 32 frames", echo_rate(framed, window)),
        ("4k", "echo, 1 frame", lambda seconds: Measured(rate=shared.rate(seconds, window) * BATCH)),
        ("depth 1", "echo", echo_depth_1(single)),
        ("1m read", "echo", echo_rate(large, LARGE_DEPTH)),
    ]


def _aiods(client: aiod_client.Client, scratch: aiod_client.File, cached: aiod_client.File) -> list[Contender]:
    del client
    return [
        ("4k", "aiod", aiod_batches(cached)),
        ("depth 1", "aiod", aiod_depth_1(cached)),
        ("1m read", "aiod", aiod_large(cached, "read")),
        ("1m write", "aiod", aiod_large(scratch, "write")),
    ]


def _peers(stack: ExitStack, directory: Path, cached: Path, scratch: Path) -> list[Contender]:
    contenders: list[Contender] = []
    for name, server in (("qemu-nbd", qemu_nbd), ("nbdkit", nbdkit)):
        uri = stack.enter_context(server(cached, directory / f"{name}.sock"))
        writable = stack.enter_context(server(scratch, directory / f"{name}-w.sock"))
        contenders += [
            ("4k", f"{name}, depth {depth}", nbd(uri, "randread", SMALL_BYTES, depth)) for depth in (8, 32, 128)
        ]
        contenders += [
            ("depth 1", name, nbd(uri, "randread", SMALL_BYTES, 1)),
            ("1m read", name, nbd(uri, "read", LARGE_BYTES, LARGE_DEPTH)),
            ("1m write", name, nbd(writable, "write", LARGE_BYTES, LARGE_DEPTH)),
        ]
    return contenders


def _memory(daemon: OwnDaemon, idle_bytes: int) -> dict[str, int]:
    return {"idle_bytes": idle_bytes, "peak_bytes": daemon.peak_bytes()}


def measure(sockets: Path, files: Path, *, rounds: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Every contender `rounds` times, taking turns; `sockets` has short paths, `files` is on a real file system.

    Returns {"scenarios": {scenario: {name: {"rate", "p50_us", "rounds"}}}, "memory": ..., "thrown_away": n}.
    """
    cached, scratch = files / "cached", files / "scratch"
    cached_file.make(cached, FILE_BYTES)
    cached_file.make(scratch, FILE_BYTES)
    results: dict[tuple[str, str], list[Measured]] = {}
    thrown_away = 0
    with ExitStack() as stack:
        daemon = stack.enter_context(own_daemon(sockets, files))
        idle_bytes = daemon.resident_bytes()
        client = stack.enter_context(aiod_client.connect(daemon.endpoint))
        pool = stack.enter_context(ThreadPoolExecutor(64))
        contenders = [
            *_aiods(client, client.open("bench/scratch", "r+"), client.open("bench/cached", "r")),
            *_echoes(stack, sockets),
            ("4k", "ThreadPoolExecutor", executor_reads(cached, pool)),
            ("depth 1", "ThreadPoolExecutor", executor_depth_1(cached, pool)),
            *_peers(stack, sockets, cached, scratch),
        ]
        for number in range(rounds):
            for scenario, name, run in contenders:
                say(f"round {number + 1} of {rounds}: {scenario}, {name}")
                cached_file.warm(cached)
                measured = run(seconds)
                if cached_file.cached_share(cached) < cached_file.CACHED_MIN:
                    thrown_away += 1
                    continue
                results.setdefault((scenario, name), []).append(measured)
        memory = _memory(daemon, idle_bytes)
    return {"scenarios": _medians(results), "memory": memory, "thrown_away": thrown_away}


def _medians(results: dict[tuple[str, str], list[Measured]]) -> dict[str, dict[str, Any]]:
    scenarios: dict[str, dict[str, Any]] = {}
    for (scenario, name), rounds in results.items():
        rates = [measured.rate for measured in rounds if measured.rate is not None]
        medians = [measured.p50_s for measured in rounds if measured.p50_s is not None]
        scenarios.setdefault(scenario, {})[name] = {
            "rate": statistics.median(rates),
            "rate_spread": (max(rates) - min(rates)) / statistics.median(rates),
            "p50_us": statistics.median(medians) * 1e6 if medians else None,
            "rounds": len(rounds),
        }
    return scenarios
