"""fio: one run, and what it measured."""

from __future__ import annotations

import json
import subprocess
from typing import Any, NamedTuple


class Figures(NamedTuple):
    """What one run measured, all its jobs together."""

    rate: float
    """Operations per second."""
    bytes_rate: float
    """Bytes per second."""
    p50_s: float
    """Total latency, from the submission to the completion (fio's lat, not its clat)."""
    p99_s: float
    p999_s: float


def fio(*options: str, rw: str, block_bytes: int, depth: int, size: int, seconds: float) -> Figures:
    """One run over `size` bytes, with `options` that say of what. RuntimeError where fio fails."""
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


def job(command: list[str]) -> dict[str, Any]:
    """The document of the only job, or group of jobs, that `command` runs."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"fio: {done.stdout}{done.stderr}")
    # fio may say things before its document.
    (document,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    return dict(document)
