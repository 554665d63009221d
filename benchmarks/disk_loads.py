"""The loads that servers of disks are compared with, and the files that they serve."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MIB: Final = 2**20
FILE_BYTES: Final = 256 * MIB

LOADS: Final = (
    ("randread", 4096, 1),
    ("randread", 4096, 32),
    ("randwrite", 4096, 1),
    ("randwrite", 4096, 32),
    ("read", MIB, 8),
    ("write", MIB, 8),
)
"""fio's name of each, the bytes of a request, and the requests in flight."""


def name_of(rw: str, block_bytes: int, depth: int, *, direct: bool) -> str:
    """A load's name in tables."""
    size = "1 MiB" if block_bytes == MIB else "4 KiB"
    way = "O_DIRECT" if direct else "cached"
    return f"{way}, {rw} {size}, depth {depth}"


def make_file(path: Path) -> Path:
    """A file without holes."""
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(FILE_BYTES // MIB):
            file.write(block)
        os.fsync(file.fileno())
    return path
