"""An open File with a position: the io.RawIOBase below the files of aiod_client.fileobj, which says how writes fail."""

from __future__ import annotations

import io
import operator
import os
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod_client import operations
from aiod_client.errors import append_in_doubt, is_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from aiod_client.requests.pending import Request

UNKNOWN_BYTES: Final = 64 * 1024
"""The first request of readall() (bytes) for a file of size 0."""

GROWTH_BYTES_MAX: Final = 8 * 1024 * 1024
"""The largest request of readall() beyond the size (bytes): its memory is allocated whether or not data comes."""


class AppendableFile(Protocol):
    """What a RawFile needs of a File. File imports this module, not the reverse."""

    name: str
    mode: str
    _handle: int

    @property
    def request_bytes_max(self) -> int: ...  # noqa: D102 - documented at File

    def pread(self, length: int, offset: int, *, timeout: float = ...) -> bytes: ...  # noqa: D102
    def pread_into(self, buffer: Any, offset: int, *, timeout: float = ...) -> int: ...  # noqa: D102
    def pwrite(self, data: Any, offset: int, *, timeout: float = ...) -> int: ...  # noqa: D102
    def flush(self, *, timeout: float = ...) -> None: ...  # noqa: D102
    def size(self, *, timeout: float = ...) -> int: ...  # noqa: D102
    def truncate(self, size: int, *, timeout: float = ...) -> None: ...  # noqa: D102
    def close(self, *, timeout: float = ...) -> None: ...  # noqa: D102
    def _perform(self, request: Request, timeout: float | None) -> Any: ...
    def __reduce__(self) -> tuple[Any, ...]: ...


class _Append:
    """The progress of one write() in append mode."""

    __slots__ = ("done", "request")

    def __init__(self) -> None:
        self.done = 0
        """Bytes known to be appended."""
        self.request: Request | None = None
        """The piece in flight; None: there is none, or its outcome is known."""


def raw_file_at(
    open_again: Callable[..., AppendableFile], arguments: tuple[Any, ...], timeout: float | None, position: int
) -> RawFile:
    """A RawFile that has been unpickled or copied."""
    raw = RawFile(open_again(*arguments), timeout)
    raw.seek(position)
    return raw


class RawFile(io.RawIOBase):
    """An open File with a position. Any thread may use it: each operation and its move of the position are atomic."""

    def __init__(self, file: AppendableFile, timeout: float | None = None) -> None:
        """Made by File.raw or open(). Closing it closes `file`. The position is 0, in append mode the file's size.

        `timeout` (seconds) is that of each request; None: the client's.
        """
        super().__init__()
        self._file = file
        self._timeout_s = timeout
        self._options: dict[str, float] = {} if timeout is None else {"timeout": timeout}
        self._lock = threading.RLock()  # of the position; reentrant, so that a signal handler gets EDEADLK and no hang
        self._appends = "a" in file.mode
        self._position = file.size(**self._options) if self._appends else 0
        self._failure: OSError | None = None  # the error of a short write; raised once
        self._doubt = ""  # the error of an append that may or may not have been executed
        self._readable = "r" in file.mode or "+" in file.mode
        self._writable = "r" not in file.mode or "+" in file.mode

    @property
    def name(self) -> str:
        """EXPORT/PATH."""
        return self._file.name

    @property
    def mode(self) -> str:
        """The mode that open() was given."""
        return self._file.mode

    def readable(self) -> bool:
        """Whether the mode allows reads."""
        return self._readable

    def writable(self) -> bool:
        """Whether the mode allows writes."""
        return self._writable

    def seekable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer` from the position on; returns the bytes read, fewer only at the end of the file."""
        self._check("read", allowed=self._readable)
        before = self._position
        try:
            with self._lock:
                count = self._file.pread_into(buffer, self._position, **self._options)
                self._position += count
        except BaseException:
            self._position = before  # a signal handler has raised: the buffer above gets no count
            raise
        return count

    def readall(self) -> bytes:
        """Read from the position to the end of the file. Unlike io's own, it does not ask for 8 KiB at a time."""
        self._check("read", allowed=self._readable)
        before = self._position
        try:
            with self._lock:
                return self._read_rest()
        except BaseException:
            self._position = before
            raise

    def _read_rest(self) -> bytes:
        pieces: list[bytes] = []
        left = self._file.size(**self._options) - self._position
        # One byte more than the size: a short read is the end of the file. But files of size 0 may have contents
        # (/proc), and files grow: then more is asked for each time, as by io.FileIO.readall().
        asked = left + 1 if left > 0 else UNKNOWN_BYTES
        while True:
            pieces.append(self._file.pread(asked, self._position, **self._options))
            self._position += len(pieces[-1])
            if len(pieces[-1]) < asked:
                return b"".join(pieces)
            asked = min(max(2 * asked, UNKNOWN_BYTES), GROWTH_BYTES_MAX)

    def write(self, data: Buffer) -> int:
        """Write `data` at the position, in append mode at the end of the file; returns the bytes written.

        A short count means that the rest has failed; the next call raises the error. In append mode data that is longer
        than the daemon accepts in one request is appended in several pieces.
        """
        self._check("write", allowed=self._writable)
        # A copy: io's buffered classes pass views that do not keep their memory alive, and reuse or free it after a
        # timeout, when the write may still be in flight.
        payload = data if type(data) is bytes else memoryview(data).tobytes()
        if not self._appends:
            before = self._position
            try:
                with self._lock:
                    self._raise_failure()
                    count = self._write(payload)
            except BaseException:
                self._position = before  # as in readinto(): the buffer writes all of it again
                raise
            return count
        append = _Append()
        try:
            with self._lock:
                count = self._append(memoryview(payload), append)
        except BaseException as error:
            # The buffer above this file would append all of it again.
            if append.done or (append.request is not None and append.request.sent):
                self._doubt = "interrupted"  # before the calls below, which may be interrupted again
                self._doubt = str(error) or type(error).__name__
            raise
        else:
            # A buffer above takes the count before a signal handler can run again: no call may stand here.
            return count

    def _write(self, payload: bytes) -> int:
        try:
            count = self._file.pwrite(payload, self._position, **self._options)
        except OSError as error:
            count = getattr(error, "written", 0)
            if not count:
                raise
            self._failure = error.with_traceback(None)
        self._position += count
        return count

    def _append(self, payload: memoryview, append: _Append) -> int:
        """Append in pieces; returns the bytes done, and keeps the error of the rest for the next call."""
        if self._doubt:
            raise append_in_doubt(self.name, self._doubt)
        self._raise_failure()
        step = self._file.request_bytes_max
        for start in range(0, len(payload), step):
            piece = payload[start : start + step]
            append.request = operations.append_request(self._file._handle, piece)  # noqa: SLF001
            try:
                self._position = (
                    self._file._perform(append.request, self._timeout_s)  # noqa: SLF001
                    + len(piece)
                )
                append.done += len(piece)
            except OSError as error:
                if append.request.sent and not is_refusal(error):
                    raise
                written = getattr(error, "written", 0)
                append.done += written
                append.request = None
                if not append.done:
                    raise
                self._position += written
                self._failure = error.with_traceback(None)
                return append.done
        return len(payload)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def flush(self) -> None:
        """Raise the error of a short write, if it has not been raised yet. Nothing is buffered here."""
        super().flush()
        with self._lock:
            self._raise_failure()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; returns it. Raises ValueError if it would be negative."""
        self._check()
        offset = operator.index(offset)
        before = self._position
        try:
            with self._lock:
                offset += self._origin(whence)
                if offset < 0:
                    raise ValueError(f"negative seek position {offset}")  # noqa: TRY301
                self._position = offset
        except BaseException:
            self._position = before  # as in readinto(): the buffer may seek relatively
            raise
        return offset

    def _origin(self, whence: int) -> int:
        if whence == os.SEEK_SET:
            return 0
        if whence == os.SEEK_CUR:
            return self._position
        if whence == os.SEEK_END:
            return self._file.size(**self._options)
        raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")

    def tell(self) -> int:
        """The position."""
        self._check()
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size (None: the position); returns the size. The position does not change."""
        self._check("truncate", allowed=self._writable)
        with self._lock:
            self._raise_failure()
            size = self._position if size is None else operator.index(size)
            self._file.truncate(size, **self._options)
            return size

    def sync(self) -> None:
        """Make what was written durable. It replaces os.fsync(), which needs a file descriptor."""
        self._check()
        self.flush()
        self._file.flush(**self._options)

    def close(self) -> None:
        """Close the file, then raise the error of a short write, if it has not been raised yet. Idempotent."""
        if self.closed:
            return
        try:
            super().close()  # flushes
        finally:
            self._file.close(**self._options)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the file as its File, with the position."""
        if self.closed:
            raise TypeError(f"cannot pickle {self!r}")
        open_again, arguments = self._file.__reduce__()
        return raw_file_at, (open_again, arguments, self._timeout_s, self._position)

    def __repr__(self) -> str:
        """The name, the mode, and whether the file is closed."""
        return f"<aiod_client.fileobj.RawFile {self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"

    def _check(self, what: str = "", *, allowed: bool = True) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if not allowed:
            raise io.UnsupportedOperation(f"{what}: {self.name} was opened with mode {self.mode!r}")
