"""A hundred thousand requests at once complete, with bounded memory on both sides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

MIB = 2**20

PROGRAM = """
import resource, sys, aiod_client
with aiod_client.connect(sys.argv[1], timeout=100) as client, client.open("scratch/many", "w+") as file:
    data = bytes(65536)
    futures = file.submit([("write", data, number % 256 * 65536) for number in range(100_000)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert all(future.result() == 65536 for future in futures)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak_bytes(pid: int) -> int:
    """Highest RSS of a process so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_hundred_thousand_requests_at_once_stay_within_the_memory_bounds(daemon: Any) -> None:
    """6 GiB of writes pass through 32 MiB of credit."""
    pid = daemon.engine["pid"]
    before = peak_bytes(pid)
    done = subprocess.run([sys.executable, "-c", PROGRAM, daemon.endpoint], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 96 * MIB
    assert peak_bytes(pid) - before < 128 * MIB
    assert daemon.engine["ops"]["write"]["count"] == 100_000
