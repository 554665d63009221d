"""Offsets of random reads: the same sequence for all contenders, and no random() in a measured loop."""

from __future__ import annotations

import functools
import random


@functools.cache
def random_offsets(file_bytes: int, block_bytes: int) -> list[int]:
    """65,536 offsets of whole blocks, in bytes; the same for the same arguments."""
    generator = random.Random(1)  # noqa: S311
    return [generator.randrange(file_bytes // block_bytes) * block_bytes for _ in range(1 << 16)]
