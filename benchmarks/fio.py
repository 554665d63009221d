"""One run of fio, and its results."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.latency import Histogram

_GRACE_S: Final = 60.0


class Figures(NamedTuple):
    """The results of one run, for all its jobs together."""

    rate: float
    """Operations per second."""
    bytes_rate: float
    """Bytes per second."""
    p50_s: float
    """Total latency, from the submission to the completion (fio's lat, not its clat)."""
    p99_s: float
    p999_s: float


def fio(*options: str, rw: str, block_bytes: int, depth: int, size: int, seconds: float) -> Figures:
    """Run fio over `size` bytes; `options` name the file or server. RuntimeError if fio fails."""
    command = [
        "fio", "--name=aiod", *options, f"--rw={rw}", f"--bs={block_bytes}", f"--iodepth={depth}", f"--size={size}",
        f"--runtime={round(seconds * 1000)}ms", "--time_based", "--randrepeat=0", "--norandommap", "--group_reporting",
        "--lat_percentiles=1", "--output-format=json",
    ]  # fmt: skip
    way = job(command)["write" if "write" in rw else "read"]
    latency_ns = way["lat_ns"]["percentile"]
    return Figures(
        rate=way["iops"],
        bytes_rate=way["bw_bytes"],
        p50_s=latency_ns["50.000000"] / 1e9,
        p99_s=latency_ns["99.000000"] / 1e9,
        p999_s=latency_ns["99.900000"] / 1e9,
    )


class Totals(NamedTuple):
    """The reads and writes of all jobs of one run together."""

    operations: int
    rate: float
    """Operations per second."""
    bytes_rate: float
    """Bytes per second."""
    latency_ns: Histogram
    """Total latency; with fsync= only of the syncs, and with fdatasync= none: fio does not time them."""
    cpu_s: float
    """CPU time of fio's own threads, without io_uring's helper threads in the kernel."""
    switches: int


def totals(
    *options: str,
    rw: str,
    block_bytes: int,
    depth: int,
    jobs: int,
    size: int,
    seconds: float,
    prefix: Sequence[str] = (),
) -> Totals:
    """Run fio with `jobs` threads, each with `depth` requests in flight. RuntimeError if fio fails.

    `prefix` is a command that runs a program, such as ip netns exec.
    """
    command = [
        *prefix, "fio", "--name=aiod", *options, f"--rw={rw}", f"--bs={block_bytes}", f"--iodepth={depth}",
        f"--size={size}",
        f"--numjobs={jobs}", "--thread", f"--runtime={round(seconds * 1000)}ms", "--time_based", "--randrepeat=0",
        "--norandommap", "--invalidate=0", "--group_reporting", "--lat_percentiles=1", "--output-format=json+",
    ]  # fmt: skip
    done = job(command, seconds + _GRACE_S)
    ways = [done[way] for way in ("read", "write") if done[way]["total_ios"]]
    timed = [done["sync"]] if done["sync"]["total_ios"] else ways
    if any(option.startswith("--fdatasync") for option in options):
        timed = []
    latency_ns: Histogram = Counter()
    for way in timed:
        latency_ns.update({int(ns): count for ns, count in way["lat_ns"]["bins"].items()})
    return Totals(
        operations=sum(way["total_ios"] for way in ways),
        rate=sum(way["iops"] for way in ways),
        bytes_rate=sum(way["bw_bytes"] for way in ways),
        latency_ns=latency_ns,
        cpu_s=(done["usr_cpu"] + done["sys_cpu"]) / 100 * done["job_runtime"] / 1000,
        switches=done["ctx"],
    )


def job(command: list[str], timeout_s: float | None = None) -> dict[str, Any]:
    """The document of the only job, or group of jobs, that `command` runs."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    if done.returncode:
        said = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.startswith("fio:")]
        raise RuntimeError("; ".join(said[-2:]) or f"fio ended with status {done.returncode}")
    # fio may print messages before its document.
    (document,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    return dict(document)
