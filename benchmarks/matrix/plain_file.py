"""A file by os.pread and os.pwrite, for the peers that call these in threads. Standard library only."""

from __future__ import annotations

import mmap
import os
import threading
from typing import Any


class PlainFile:
    """A file; with O_DIRECT each thread reads into its own aligned buffer."""

    def __init__(self, path: str, block_bytes: int, *, direct: bool) -> None:
        self._fd = os.open(path, os.O_RDWR | (os.O_DIRECT if direct else 0))
        self._block_bytes = block_bytes
        self._direct = direct
        self._own = threading.local()
        self._data = os.urandom(block_bytes)

    def read(self, offset: int) -> bytes | int:
        """Read a block: its bytes, or the number of bytes read into the thread's buffer."""
        if self._direct:
            return os.preadv(self._fd, [self._buffer()], offset)
        return os.pread(self._fd, self._block_bytes, offset)

    def write(self, offset: int) -> int:
        """Write a block."""
        return os.pwrite(self._fd, self._buffer() if self._direct else self._data, offset)

    def flush(self, _: int = 0) -> None:
        """Flush to the disk."""
        os.fdatasync(self._fd)

    def _buffer(self) -> Any:
        if not hasattr(self._own, "buffer"):
            self._own.buffer = mmap.mmap(-1, self._block_bytes)
        return self._own.buffer
