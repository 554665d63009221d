"""The kinds of load."""

from __future__ import annotations

from typing import Final, NamedTuple

MIB: Final = 1 << 20
FILE_BYTES: Final = 64 * MIB


class Cell(NamedTuple):
    """One kind of load: requests at random offsets of a file in the page cache."""

    op: str
    """read, write, or view: a read whose bytes the Python client does not copy (pread_view)."""
    block_bytes: int
    depth: int
    batch: int
    """Requests that the client submits by one call; an NBD client has no batches."""

    def __str__(self) -> str:
        size = "1 MiB" if self.block_bytes == MIB else "4 KiB"
        return f"{self.op} {size}, depth {self.depth}"


_LARGE: Final = (MIB, 8, 1)
_LOADS: Final = ((4096, 1, 1), (4096, 32, 16), (4096, 128, 32), _LARGE)

CELLS: Final = [
    *(Cell("read", *load) for load in _LOADS),
    Cell("view", *_LARGE),
    *(Cell("write", *load) for load in _LOADS),
]
