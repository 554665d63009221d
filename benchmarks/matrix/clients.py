"""The clients of a turn: fio, aiod-bench and the loops in Python; their results become one Measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from benchmarks import fio
from benchmarks.latency import merged, percentiles_us
from benchmarks.matrix.cost import Cost, total
from benchmarks.matrix.work import FILE_BYTES
from benchmarks.ring.programs import ROOT
from benchmarks.ring.turns import Measured

if TYPE_CHECKING:
    from benchmarks.latency import Histogram
    from benchmarks.matrix.cells import Cell
    from benchmarks.matrix.servers import Served

AIOD_BENCH: Final = ROOT / "build" / "aiod-bench"
FIO_ENGINE: Final = ROOT / "build" / "fio-aiod.so"
_GRACE_S: Final = 60.0
_SHARES: Final = (0.5, 0.99, 0.999)


class Done:
    """The results of one turn's clients."""

    def __init__(self, *, operations: int, rate: float, bytes_rate: float, latency: Histogram, cost: Cost) -> None:
        self.operations = operations
        self.rate = rate
        self.bytes_rate = bytes_rate
        self.latency = latency
        self.cost = cost

    def measured(self, server: Cost | None) -> Measured:
        """The results with the server's cost. RuntimeError if no operation was done."""
        if not self.operations:
            raise RuntimeError("no operation completed in time")
        p50, p99, p999 = percentiles_us(self.latency, _SHARES) or (None, None, None)
        return Measured(
            rate=self.rate,
            bytes_rate=self.bytes_rate,
            p50_us=p50,
            p99_us=p99,
            p999_us=p999,
            client_cpu_us=self.cost.cpu_s * 1e6 / self.operations,
            client_switches=self.cost.switches / self.operations,
            server_cpu_us=server.cpu_s * 1e6 / self.operations if server else None,
            server_switches=server.switches / self.operations if server else None,
            latency=self.latency,
        )


def by_fio(cell: Cell, served: Served, seconds: float, engine: str, *more: str) -> Done:
    """Clients by fio with that engine and `more` options; each thread flushes its own writes, one after another."""
    work = cell.what
    depth, jobs = cell.depth, cell.clients
    if engine == "psync" or work.flush:
        depth, jobs = 1, cell.workers or cell.depth * cell.clients
    (address,) = served.addresses
    options = [f"--ioengine={engine}", f"--uri={address}" if engine == "nbd" else f"--filename={address}", *more]
    if engine != "nbd":
        options.append(f"--direct={int(cell.cache == 'direct')}")
    if work.flush:
        options.append("--fsync=1" if engine == "nbd" else "--fdatasync=1")  # both mean fdatasync()
    if work.rw.endswith("rw"):
        options.append(f"--rwmixread={work.reads_percent}")
    served.mark()
    done = fio.totals(
        *options, rw=work.rw, block_bytes=work.block_bytes, depth=depth, jobs=jobs, size=FILE_BYTES, seconds=seconds
    )
    return Done(
        operations=done.operations,
        rate=done.rate,
        bytes_rate=done.bytes_rate,
        latency=done.latency_ns,
        cost=Cost(done.cpu_s, done.switches),
    )


def by_aiod_bench(cell: Cell, served: Served, seconds: float, endpoint: str) -> Done:
    """Clients by aiod's load generator, over the ring."""
    if not AIOD_BENCH.exists():
        raise RuntimeError("build/aiod-bench is not built: make build/aiod-bench")
    work = cell.what
    command = [
        str(AIOD_BENCH), "--endpoint", endpoint, "--rw", work.rw, "--bs", str(work.block_bytes), "--depth",
        str(cell.depth), "--seconds", str(seconds), "--size", str(FILE_BYTES), "--handles", str(cell.handles), "--json",
        *(["--flush"] if work.flush else []), "--file",
    ]  # fmt: skip
    served.mark()
    return _added_up([[*command, file] for file in _in_turn(served, cell.clients)], seconds, wait=False)


def by_python(cell: Cell, served: Served, seconds: float, kind: dict[str, Any], python: str = sys.executable) -> Done:
    """Clients by benchmarks.matrix.python_client with the library `kind`; ADDRESS there is the server's."""
    commands = [
        [python, "-m", "benchmarks.matrix.python_client", json.dumps(
            kind | {"address": address, "work": cell.work, "direct": cell.cache == "direct", "depth": cell.depth,
                    "seconds": seconds}
        )]
        for address in _in_turn(served, cell.clients)
    ]  # fmt: skip
    return _added_up(commands, seconds, wait=True, served=served)


def _in_turn(served: Served, clients: int) -> list[str]:
    return [served.addresses[number % len(served.addresses)] for number in range(clients)]


def _added_up(commands: list[list[str]], seconds: float, *, wait: bool, served: Served | None = None) -> Done:
    """Run the commands at once. With `wait`, each prints "ready", and all start together."""
    with ExitStack() as stack:
        processes = [stack.enter_context(_Client(command)) for command in commands]
        if wait:
            for process in processes:
                process.await_ready()
            if served:
                served.mark()
            for process in processes:
                process.go()
        documents = [process.document(seconds + _GRACE_S) for process in processes]
    return Done(
        operations=sum(document["operations"] for document in documents),
        rate=sum(document["iops"] for document in documents),
        bytes_rate=sum(document["bandwidth_bytes"] for document in documents),
        latency=merged(
            Counter({int(ns): count for ns, count in document["latency_ns"].items()}) for document in documents
        ),
        cost=total(Cost(document["cpu_s"], document["switches"]) for document in documents),
    )


class _Client:
    """A process that prints one JSON document; killed if the turn ends first."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def await_ready(self) -> None:
        if self._process.stdout is None or self._process.stdout.readline() != "ready\n":
            raise RuntimeError(self._last_word())

    def go(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()

    def document(self, timeout_s: float) -> dict[str, Any]:
        said, complaint = self._process.communicate(timeout=timeout_s)
        if self._process.returncode:
            raise RuntimeError(_last_line(complaint) or f"status {self._process.returncode}")
        return dict(json.loads(said))

    def _last_word(self) -> str:
        _, complaint = self._process.communicate(timeout=_GRACE_S)
        return _last_line(complaint) or f"status {self._process.returncode}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
