"""A file that is in the page cache while it is measured, and a check of that.

Idle page cache is paged out on some machines: a round is good only if the file was cached before and after it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

CACHED_MIN: Final = 0.999
"""Share of the pages that must be in memory."""

_libc = ctypes.CDLL(None, use_errno=True)
_CHUNK_BYTES: Final = 1024 * 1024


def make(path: Path, size: int) -> None:
    """Write a file of `size` bytes that do not compress."""
    chunk = os.urandom(_CHUNK_BYTES)
    with path.open("wb") as file:
        for _ in range(size // _CHUNK_BYTES):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def warm(path: Path) -> None:
    """Read the whole file."""
    with path.open("rb", buffering=0) as file:
        while file.read(_CHUNK_BYTES):
            pass


def settle(path: Path) -> None:
    """Write back the file, so that the next flush does not pay for earlier writes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def drop(path: Path) -> None:
    """Drop the file's pages from the page cache; they must have been written back."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def cached_share(path: Path) -> float:
    """The share of the file's pages that is in memory (mincore)."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    vector = (ctypes.c_ubyte * pages)()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        view = (ctypes.c_char * size).from_buffer(mapped)
        failed = _libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), vector)
        del view
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in bytes(vector)) / pages
