"""What is read, and by how many at once: the same for all contenders. Standard library only: see blocking_reads.py."""

from __future__ import annotations

from typing import Final

FILE_BYTES: Final = 256 * 1024 * 1024
SMALL_BYTES: Final = 4096
LARGE_BYTES: Final = 1024 * 1024
DEPTH: Final = 32
LARGE_DEPTH: Final = 8
