"""docs/operations.md implemented by plain system calls: the model that the daemon is compared with."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FLAGS = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT,
    "a+": os.O_RDWR | os.O_CREAT,
}
MODES = tuple(_FLAGS)

_KEEP_SIZE = 1
_PUNCH_HOLE = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise _fail(ctypes.get_errno())


class PlainFile:
    """An open file with the methods of aiod_client.File, and their errnos."""

    def __init__(self, path: Path, mode: str) -> None:
        self._fd = os.open(path, _FLAGS[mode], 0o666)
        self._mode = mode

    def close(self) -> None:
        """Close."""
        os.close(self._fd)

    def _need(self, *, read: bool = False, write: bool = False, append: bool = False) -> None:
        """Raise EBADF unless the mode allows it; `append`: append handles may do it as well."""
        reads = self._mode == "r" or "+" in self._mode
        writes = self._mode != "r" and (append or "a" not in self._mode)
        if (read and not reads) or (write and not writes):
            raise _fail(errno.EBADF)

    def pread(self, length: int, offset: int) -> bytes:
        """See aiod_client.File."""
        self._need(read=True)
        return os.pread(self._fd, length, offset)

    def preadv(self, buffers: Sequence[bytearray], offset: int) -> int:
        """See aiod_client.File."""
        self._need(read=True)
        return os.preadv(self._fd, buffers, offset)

    def pwrite(self, data: bytes, offset: int, *, fua: bool = False) -> int:
        """See aiod_client.File."""
        self._need(write=True)
        return os.pwritev(self._fd, [data], offset, os.RWF_DSYNC if fua else 0)

    def pwritev(self, buffers: Sequence[bytes], offset: int, *, fua: bool = False) -> int:
        """See aiod_client.File."""
        return self.pwrite(b"".join(buffers), offset, fua=fua)

    def append(self, data: bytes) -> int:
        """See aiod_client.File."""
        self._need(write=True, append=True)
        offset = self.size()
        os.pwrite(self._fd, data, offset)
        return offset

    def flush(self) -> None:
        """See aiod_client.File."""
        os.fdatasync(self._fd)

    def size(self) -> int:
        """See aiod_client.File."""
        return os.fstat(self._fd).st_size

    def truncate(self, size: int) -> None:
        """See aiod_client.File."""
        self._need(write=True)
        os.ftruncate(self._fd, size)

    def discard(self, offset: int, length: int) -> None:
        """See aiod_client.File."""
        self._need(write=True)
        if length:
            _fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = False, fua: bool = False) -> None:
        """See aiod_client.File."""
        del unmap  # what is allocated is not compared
        self.pwrite(bytes(length), offset, fua=fua)

    def allocate(self, offset: int, length: int, *, keep_size: bool = False) -> None:
        """See aiod_client.File."""
        if not length:
            raise _fail(errno.EINVAL)
        self._need(write=True)
        _fallocate(self._fd, _KEEP_SIZE if keep_size else 0, offset, length)

    def copy_range(self, source: PlainFile, source_offset: int, offset: int, length: int) -> int:
        """See aiod_client.File."""
        self._need(write=True)
        source._need(read=True)
        same = os.path.sameopenfile(self._fd, source._fd)
        if same and length and abs(source_offset - offset) < length:
            raise _fail(errno.EINVAL)
        return os.pwrite(self._fd, os.pread(source._fd, length, source_offset), offset)
