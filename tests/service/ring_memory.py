"""The memory of an engine's rings, as a client sees it."""

from __future__ import annotations

import struct
from pathlib import Path

_SQ_TAIL = 64
_SQ_BEGUN = 388
"""Offsets (aiod_ring.h)."""


def untaken(pid: int) -> int:
    """How many submissions lie in the rings of the engine `pid` that it has not taken."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if str(link.readlink()).startswith("/memfd:aiod-ring"):
            with link.open("rb") as memory:
                head = memory.read(_SQ_BEGUN + 4)
            tail, begun = (struct.unpack_from("<I", head, at)[0] for at in (_SQ_TAIL, _SQ_BEGUN))
            count += tail - begun
    return count
