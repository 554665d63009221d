"""A directory of 1,000,000 names: its pages bring each name once, and neither end holds more than a page of them.

For make soak, which sets AIOD_TEST_NAMES to their number. test_trees.py has a small one in each run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest

import aiod_client
from tests.patience import scaled

NAMES: Final = int(os.environ.get("AIOD_TEST_NAMES", "0"))
LINKS_OF_ONE_FILE: Final = 50_000
"""File systems have a limit. A link is made, and removed, sooner than a file."""
GROWTH_MAX_BYTES: Final = 32 << 20
"""Of a process. 1,000,000 entries at once take 500 MiB in Python, and 200 in the engine."""
LOOK_AFTER: Final = 5000


def make_names(directory: Path, files: Path) -> None:
    """Fill both directories."""
    for number in range(NAMES):
        file = files / str(number // LINKS_OF_ONE_FILE)
        if number % LINKS_OF_ONE_FILE == 0:
            file.write_bytes(b"data")
        os.link(file, directory / f"name-{number}")


def resident_bytes(pid: int) -> int:
    """The process's memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.skipif(NAMES == 0, reason="make soak runs it, with AIOD_TEST_NAMES=1000000")
@pytest.mark.timeout(scaled(60 + NAMES / 1000))
def test_a_directory_of_many_names_is_scanned_and_removed(shared_daemon: Any) -> None:
    """Each name once, with its record, by message and by ring; then the directory is removed, a part at a time."""
    daemon = shared_daemon
    for name in ("many", "files"):
        (daemon.path / name).mkdir()
    make_names(daemon.path / "many", daemon.path / "files")
    pids = [os.getpid(), daemon.engine["pid"]]
    before = [resident_bytes(pid) for pid in pids]

    def look() -> None:
        for pid, then in zip(pids, before, strict=True):
            assert resident_bytes(pid) < then + GROWTH_MAX_BYTES

    for transport in ("zmq", "ring"):
        with aiod_client.connect(daemon.endpoint, transport=transport) as client:
            seen = bytearray(NAMES)
            for number, entry in enumerate(client.scandir("scratch/many")):
                seen[int(entry.name.removeprefix("name-"))] += 1
                assert entry.stat().size == 4
                if number % LOOK_AFTER == 0:
                    look()
            assert seen == b"\x01" * NAMES
    with aiod_client.connect(daemon.endpoint) as client:
        client.rmtree("scratch/many", timeout=scaled(600.0))
        look()
        client.rmtree("scratch/files")
    assert list(daemon.path.iterdir()) == []
