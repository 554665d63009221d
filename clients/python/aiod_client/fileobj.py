"""Files of aiod for code that wants Python's own: tarfile, zipfile, shutil.copyfileobj, io.BufferedReader.

    from aiod_client import fileobj

    with fileobj.open(client, "scratch/backup.tar", "w") as f, tarfile.open(fileobj=f, mode="w") as tar:
        tar.add("documents")

What is written is in the daemon's hands after flush(), as with Python's own files; safe on disk only after sync().
"""

from __future__ import annotations

import io
import operator
import os
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, overload

if TYPE_CHECKING:
    from aiod_client.blocking import Client
    from aiod_client.file import File

BUFFER_BYTES: Final = 256 * 1024
"""Default size of a buffer: a round trip costs as much as the copying of some of it."""


class RawFile(io.RawIOBase):
    """An open File with a position. Any thread may use it; each operation is one with its move of the position."""

    def __init__(self, file: File) -> None:
        """Made by File.raw or open(). Closing it closes `file`. It begins at 0, in append mode at the file's end."""
        super().__init__()
        self._file = file
        self._lock = threading.RLock()  # of the position; reentrant, so that a signal handler gets EDEADLK and no hang
        self._appends = "a" in file.mode
        self._position = file.size() if self._appends else 0
        self._readable = "r" in file.mode or "+" in file.mode
        self._writable = "r" not in file.mode or "+" in file.mode

    @property
    def name(self) -> str:
        """EXPORT/PATH."""
        return self._file.name

    @property
    def mode(self) -> str:
        """As open() was given it."""
        return self._file.mode

    def readable(self) -> bool:
        """Whether it was opened to be read."""
        return self._readable

    def writable(self) -> bool:
        """Whether it was opened to be written."""
        return self._writable

    def seekable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position on; returns the bytes, fewer only at the end of the file."""
        self._check("read", allowed=self._readable)
        with self._lock:
            count = self._file.pread_into(buffer, self._position)
            self._position += count
        return count

    def readall(self) -> bytes:
        """All from the position to the end of the file. io's own asks for 8 KiB at a time."""
        self._check("read", allowed=self._readable)
        pieces: list[bytes] = []
        with self._lock:
            while True:
                # One byte more than there should be: if it does not come, that was the end.
                asked = max(0, self._file.size() - self._position) + 1
                pieces.append(self._file.pread(asked, self._position))
                self._position += len(pieces[-1])
                if len(pieces[-1]) < asked:
                    return b"".join(pieces)

    def write(self, data: Any) -> int:
        """Write all of `data` at the position; in append mode at the end of the file. Returns its length in bytes.

        In append mode what is longer than the daemon takes at once lands in several pieces.
        """
        self._check("write", allowed=self._writable)
        # A copy: io's buffered classes lend their memory by views that do not keep it, and reuse or free it once they
        # are told of a timeout, when the write may still be on its way.
        payload = data if type(data) is bytes else memoryview(data).tobytes()
        with self._lock:
            if self._appends:
                self._append(memoryview(payload))
            else:
                self._position += self._file.pwrite(payload, self._position)
        return len(payload)

    def _append(self, payload: memoryview) -> None:
        step = self._file.request_bytes_max
        for start in range(0, len(payload), step):
            piece = payload[start : start + step]
            try:
                self._position = self._file.append(piece) + len(piece)
            except OSError as error:
                error.written = start + getattr(error, "written", 0)  # type: ignore[attr-defined]
                raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; returns it. Raises ValueError for one that is negative."""
        self._check()
        offset = operator.index(offset)
        with self._lock:
            if whence == os.SEEK_CUR:
                offset += self._position
            elif whence == os.SEEK_END:
                offset += self._file.size()
            elif whence != os.SEEK_SET:
                raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
            if offset < 0:
                raise ValueError(f"negative seek position {offset}")
            self._position = offset
            return offset

    def tell(self) -> int:
        """The position."""
        self._check()
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size, by default to the position, which stays where it is; returns the size."""
        self._check("truncate", allowed=self._writable)
        with self._lock:
            size = self._position if size is None else operator.index(size)
            self._file.truncate(size)
            return size

    def sync(self) -> None:
        """Make what was written safe on disk: what os.fsync() is for Python's own files, which need a file number."""
        self._check()
        self._file.flush()

    def close(self) -> None:
        """Close the file. Idempotent."""
        if not self.closed:
            super().close()
            self._file.close()

    def __repr__(self) -> str:
        """For people."""
        return f"<aiod_client.fileobj.RawFile {self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"

    def _check(self, what: str = "", *, allowed: bool = True) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if not allowed:
            raise io.UnsupportedOperation(f"{what}: {self.name} was opened with mode {self.mode!r}")


@overload
def open(  # type: ignore[overload-overlap]  # noqa: A001 - 0 is an int, and gives another type
    client: Client,
    path: str | os.PathLike[str],
    mode: str,
    buffering: Literal[0],
    *,
    perm: int = 0o666,
    direct: bool = False,
) -> RawFile: ...


@overload
def open(  # noqa: A001
    client: Client,
    path: str | os.PathLike[str],
    mode: str = "r",
    buffering: int = -1,
    *,
    perm: int = 0o666,
    direct: bool = False,
) -> BinaryIO: ...


def open(  # noqa: A001 - as the builtin, which it stands for
    client: Client,
    path: str | os.PathLike[str],
    mode: str = "r",
    buffering: int = -1,
    *,
    perm: int = 0o666,
    direct: bool = False,
) -> BinaryIO | RawFile:
    """A file as the builtin has it, but of "EXPORT/PATH" and always binary.

    `buffering`: bytes of the buffer; -1: BUFFER_BYTES; 0: a RawFile without one. The rest is as Client.open() has it.
    Returns io.BufferedReader, io.BufferedWriter, io.BufferedRandom or RawFile. Raises ValueError for `buffering` of 1
    (there are no lines) or less than -1, besides what Client.open() raises.
    """
    if buffering < -1 or buffering == 1:
        raise ValueError(f"buffering {buffering}: -1, 0 or a number of bytes above 1")
    file = client.open(path, mode, perm, direct=direct)
    try:
        raw = RawFile(file)
    except BaseException:
        file.close()
        raise
    size = BUFFER_BYTES if buffering < 0 else buffering
    if size == 0:
        return raw
    if raw.readable() and raw.writable():
        return io.BufferedRandom(raw, size)
    return io.BufferedReader(raw, size) if raw.readable() else io.BufferedWriter(raw, size)
