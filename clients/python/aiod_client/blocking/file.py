"""The blocking client's File. Any thread may use it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from aiod_client import operations
from aiod_client.blocking.file_lock import FileLock
from aiod_client.blocking.future import RequestFuture, futures_of
from aiod_client.blocking.raw_file import RawFile
from aiod_client.blocking.ring_files import close_file
from aiod_client.errors import closed, other_session
from aiod_client.requests.locks import lock_call, no_locks, unlock_call
from aiod_client.requests.pending import Call, Request
from aiod_client.ring.direct import NO_RING, RingHolder, failed, is_lost, may_be_done
from aiod_protocol.operations import Op, OpFlag
from aiod_protocol.wire import EXTENTS_MAX, MessageType

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typing_extensions import Buffer

    from aiod_client._ring import Failure, Ring
    from aiod_client.base_client import BaseClient
    from aiod_client.blocking.link import Link
    from aiod_client.ops import Operation
    from aiod_client.records import Extent, FileStat

R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")


def open_again(client: Any, path: str, mode: str, direct: bool) -> File:  # noqa: FBT001 - as pickle passes it
    """A file that has been unpickled or copied."""
    file: File = client.open(path, mode, direct=direct)
    return file


class File:
    """An open file of an export. Made by Client.open(); close it, or use it in a `with` statement.

    Any thread may use it at any time. Requests in flight have no order among themselves. A buffer given to pwrite(),
    pread_into() or submit() must not be changed until the request has completed, also after a timeout or cancel().
    Offsets and lengths are in bytes; `timeout` is in seconds (None: the client's; math.inf: no limit).

    Every method but close() raises OSError with the kernel's errno, TimeoutError, SessionLostError, and AiodError
    (EBADF) once the file is closed.
    """

    closed = True
    """Until __init__() has come so far that __del__() has a file to close."""
    _direct = False
    """Whether it was opened with O_DIRECT."""

    def __init__(self, client: BaseClient, link: Link, opened: Call, mode: str) -> None:
        """For Client.open(), of an OPEN that was answered."""
        handle: int = opened.result[0]
        self.name = name = opened.filename or ""
        self.mode = mode
        self._client = client  # held: a dropped client ends its sessions
        self._link = link
        self._handle = handle
        self._rings: RingHolder = link  # until the file is closed; a ring that has ended fails by itself
        self._opened = link.opened(handle)
        link.name_handle(handle, name)
        # From here on this object closes the handle, not open(). A signal handler cannot run between the two.
        self.closed = False
        opened.result = None

    def pread(self, length: int, offset: int, *, timeout: float | None = None) -> bytes:
        """Read up to `length` bytes at `offset`; the result is shorter only at the end of the file."""
        ring = self._rings.ring
        if ring is not None:
            timeout_s = self._client.timeout_s if timeout is None else timeout
            data = ring.read(self._handle, length, offset, timeout_s)
            if type(data) is bytes:
                return data
            if data is not None:
                request = operations.read_request(self._handle, length, offset)
                return bytes(self._again(ring, data, request, timeout_s))  # type: ignore[arg-type]
        result: bytes = self._perform(operations.read_request(self._handle, length, offset), timeout)
        return result

    def pread_view(self, length: int, offset: int, *, timeout: float | None = None) -> memoryview:
        """As pread(), with a read-only memoryview as the result.

        By message it saves the copy of a large read: the view is of the message itself. By ring it is of new bytes.
        """
        if self._rings.ring is not None:
            return memoryview(self.pread(length, offset, timeout=timeout))
        result: memoryview = self._perform(operations.read_view_request(self._handle, length, offset), timeout)
        return result

    def pread_into(self, buffer: Buffer, offset: int, *, timeout: float | None = None) -> int:
        """Fill `buffer` (writable, C-contiguous) from `offset` on; returns the bytes read, fewer only at the file's
        end.
        """
        ring = self._rings.ring
        if ring is not None:
            timeout_s = self._client.timeout_s if timeout is None else timeout
            done = ring.read_into(self._handle, buffer, offset, timeout_s)
            if type(done) is int:
                return done
            if done is not None:
                request = operations.read_into_request(self._handle, buffer, offset)
                return int(self._again(ring, done, request, timeout_s))  # type: ignore[arg-type]
        result: int = self._perform(operations.read_into_request(self._handle, buffer, offset), timeout)
        return result

    def preadv(self, buffers: Iterable[Buffer], offset: int, *, timeout: float | None = None) -> int:
        """Fill `buffers`, one after the other, from `offset` on; returns the bytes, fewer only at the file's end."""
        result: int = self._perform(operations.readv_request(self._handle, buffers, offset), timeout)
        return result

    def pwrite(self, data: Buffer, offset: int, *, fua: bool = False, timeout: float | None = None) -> int:
        """Write all of `data` (bytes-like, C-contiguous) at `offset`; returns its length in bytes.

        The data is on stable storage after the next flush(), or with `fua` when this returns. An error's `written` says
        how many bytes, from the beginning, are known to be written.
        """
        ring = self._rings.ring
        if ring is not None:
            timeout_s = self._client.timeout_s if timeout is None else timeout
            done = ring.write(self._handle, data, offset, OpFlag.FUA if fua else 0, timeout_s)
            if type(done) is int:
                if not fua:
                    self._opened.dirty.add(self._opened.epoch)
                return done
            if done is not None:
                request = operations.write_request(self._handle, data, offset, fua)
                return int(self._again(ring, done, request, timeout_s))  # type: ignore[arg-type]
        result: int = self._perform(operations.write_request(self._handle, data, offset, fua), timeout)
        return result

    def pwritev(
        self, buffers: Iterable[Buffer], offset: int, *, fua: bool = False, timeout: float | None = None
    ) -> int:
        """Write all of `buffers`, one after the other, at `offset`; returns the bytes. Durable as after pwrite()."""
        result: int = self._perform(operations.writev_request(self._handle, buffers, offset, fua), timeout)
        return result

    def append(self, data: Buffer, *, timeout: float | None = None) -> int:
        """Write all of `data` at the end of the file, in one piece; returns the offset of its first byte.

        An append is never split and never executed twice. Raises OSError (EMSGSIZE) for more than `request_bytes_max`
        bytes.
        """
        result: int = self._perform(operations.append_request(self._handle, data), timeout)
        return result

    def flush(self, *, timeout: float | None = None) -> None:
        """Make every write that had completed before durable (fdatasync).

        After a failed flush data may be lost, and every flush of the file fails (EIO) until all its handles are closed.
        """
        self._perform(operations.whole_request(Op.FLUSH, self._handle), timeout)

    def size(self, *, timeout: float | None = None) -> int:
        """The file's size in bytes."""
        result: int = self._perform(operations.whole_request(Op.SIZE, self._handle), timeout)
        return result

    def stat(self, *, timeout: float | None = None) -> FileStat:
        """The file's properties."""
        result: FileStat = self._perform(operations.whole_request(Op.STAT, self._handle), timeout)
        return result

    def discard(self, offset: int, length: int, *, timeout: float | None = None) -> None:
        """Deallocate a range. A file reads as zeroes there; a device may read as anything.

        Raises OSError (EOPNOTSUPP) where the file system or device cannot.
        """
        self._perform(operations.range_request(Op.DISCARD, self._handle, offset, length), timeout)

    def write_zeroes(
        self, offset: int, length: int, *, unmap: bool = False, fua: bool = False, timeout: float | None = None
    ) -> None:
        """Make a range read as zeroes, in the fastest way there is; with `unmap` its space may be deallocated."""
        self._perform(operations.write_zeroes_request(self._handle, offset, length, unmap, fua), timeout)

    def truncate(self, size: int, *, timeout: float | None = None) -> None:
        """Set the file's size in bytes; what is added reads as zeroes."""
        self._perform(operations.truncate_request(self._handle, size), timeout)

    def allocate(self, offset: int, length: int, *, keep_size: bool = False, timeout: float | None = None) -> None:
        """Reserve space for a range; the file grows to contain it, unless `keep_size`.

        Raises OSError (EOPNOTSUPP) where the file system cannot.
        """
        self._perform(operations.allocate_request(self._handle, offset, length, keep_size), timeout)

    def extents(self, offset: int = 0, length: int | None = None, *, timeout: float | None = None) -> list[Extent]:
        """The data and the holes of a range (`length` None: up to the end of the file), in order, as Extents."""
        found: list[Extent] = []
        end = operations.OFFSET_MAX if length is None else offset + length
        while True:
            more: list[Extent] = self._perform(
                operations.range_request(Op.EXTENTS, self._handle, offset, end - offset), timeout
            )
            found += more
            if len(more) < EXTENTS_MAX:
                return found
            offset = more[-1].offset + more[-1].length

    def copy_range(
        self, source: File, source_offset: int, offset: int, length: int, *, timeout: float | None = None
    ) -> int:
        """Copy `length` bytes from `source`, a file of the same client, inside the daemon.

        Returns the bytes copied, fewer only at the end of `source`. Raises OSError: EXDEV if another engine serves
        `source`, EINVAL for overlapping ranges of one file. A copy within one file of more than 1 GiB ends at the size
        that the file had before.
        """
        handle = source.source_handle(self._link)
        request = operations.copy_range_request(self._handle, handle, source_offset, offset, length)
        if operations.copies_itself_in_parts(request):
            length = max(0, min(length, self.size(timeout=timeout) - source_offset))
            request = operations.copy_range_request(self._handle, handle, source_offset, offset, length)
        result: int = self._perform(request, timeout)
        return result

    def prefetch(self, offset: int = 0, length: int | None = None, *, timeout: float | None = None) -> None:
        """Read a range (`length` None: up to the end of the file), 1 GiB of it at most, into the page cache. A hint."""
        length = operations.OFFSET_MAX - offset if length is None else length
        self._perform(operations.range_request(Op.PREFETCH, self._handle, offset, length), timeout)

    def ioctl(self, number: int, argument: Buffer = b"", *, timeout: float | None = None) -> tuple[int, bytes]:
        """Send an ioctl; returns its return value, and `argument` as the kernel has left it.

        Raises OSError (EPERM) unless the export's configuration lists `number` with the size of `argument`.
        """
        result: tuple[int, bytes] = self._perform(operations.ioctl_request(self._handle, number, argument), timeout)
        return result

    def lock(
        self, *, exclusive: bool = True, offset: int = 0, length: int | None = None, timeout: float | None = None
    ) -> FileLock:
        """Lock a range of the file: `with f.lock(): ...`. `length` None: up to any end that the file has or will have.

        The lock is advisory: it keeps off others that lock, also through other daemons where their hosts share the file
        system and it carries locks. An exclusive lock needs a file that is open for writing, a shared one for reading.
        Raises TimeoutError when others have had the range for `timeout`, with 0 at once BlockingIOError; OSError with
        EDEADLK if this open file has a lock of a part of the range, with ENOLCK or EOPNOTSUPP where there are no locks,
        with EPERM where the export does not allow them.
        """
        self._check()
        if not self._link.session.welcome.locks:
            raise no_locks(self.name)
        wait_s = self._client.timeout_s if timeout is None else timeout
        call = lock_call(self._handle, self.name, exclusive=exclusive, offset=offset, length=length, wait_s=wait_s)
        try:
            self._link.perform(call, max(0.0, wait_s) + self._client.timeout_s, self.name)
            return FileLock(self, self._link, offset, length, self._opened.locks.get((offset, length or 0)))
        except BaseException:
            if call.result is not None:  # a signal's handler has raised after the answer
                self._link.send_later(unlock_call(self._handle, self.name, offset, length))
            raise

    def unlock(self, *, offset: int = 0, length: int | None = None, timeout: float | None = None) -> None:
        """Release the locks of a range, after the file's requests in flight; each lock as a whole.

        A lock that was lost is released, too: then requests are carried out again. After a TimeoutError the locks are
        released nevertheless, later.
        """
        self._check()
        if not self._link.session.welcome.locks:
            raise no_locks(self.name)
        self._call(unlock_call(self._handle, self.name, offset, length), timeout)

    def submit(self, batch: Iterable[tuple[Any, ...]], *, timeout: float | None = None) -> list[RequestFuture[Any]]:
        """Start a batch; returns one future for each operation, in order, with the result of the method of that name.

        ("read", length, offset), ("read_view", length, offset), ("read_into", buffer, offset),
        ("readv", buffers, offset),
        ("write", data, offset, fua), ("writev", buffers, offset, fua), ("append", data),
        ("flush",), ("size",), ("stat",), ("truncate", size), ("discard", offset, length),
        ("write_zeroes", offset, length, unmap, fua), ("allocate", offset, length, keep_size),
        ("extents", offset, length): at most 1024 of them, ("prefetch", offset, length),
        ("copy_range", source, source_offset, offset, length), ("ioctl", number, argument).
        `fua`, `unmap` and `keep_size` may be left out. A copy_range of more than 1 GiB within one file must not reach
        past its end.

        A flush covers the writes that had *completed* before, not the writes of its own batch. `timeout` (seconds) is
        the deadline of each operation: one that has not been started by then fails with TimeoutError and is not
        executed; None: no deadline. Raises ValueError, TypeError or OSError (EINVAL), and submits nothing, if an
        operation is invalid.
        """
        self._check()
        link, timeout_s = self._link, self._client.timeout_s
        requests = operations.from_tuples(self._handle, batch, link, timeout)
        futures = futures_of(link, requests, self, timeout_s)
        link.submit(requests)
        return futures

    @overload
    def submit_each(self, first: Operation[R1], /, *, timeout: float | None = None) -> tuple[RequestFuture[R1]]: ...
    @overload
    def submit_each(
        self, first: Operation[R1], second: Operation[R2], /, *, timeout: float | None = None
    ) -> tuple[RequestFuture[R1], RequestFuture[R2]]: ...
    @overload
    def submit_each(
        self, first: Operation[R1], second: Operation[R2], third: Operation[R3], /, *, timeout: float | None = None
    ) -> tuple[RequestFuture[R1], RequestFuture[R2], RequestFuture[R3]]: ...
    @overload
    def submit_each(self, *batch: Operation[R1], timeout: float | None = None) -> tuple[RequestFuture[R1], ...]: ...

    def submit_each(self, *batch: Operation[Any], timeout: float | None = None) -> tuple[RequestFuture[Any], ...]:
        """Start a batch as submit() does, of operations made by aiod_client.ops: the futures have their types."""
        return tuple(self.submit(batch, timeout=timeout))

    def source_handle(self, link: Link) -> int:
        """The handle, for a copy_range in the session `link`. Raises OSError (EXDEV) for a file of another session."""
        self._check()
        if self._link is not link:
            raise other_session(self.name)
        return self._handle

    def buffer(self, nbytes: int) -> memoryview:
        """Memory that this file's engine reads into and writes from without a copy: see Client.buffer()."""
        self._check()
        return self._link.buffer(nbytes)

    @property
    def request_bytes_max(self) -> int:
        """The most bytes that the daemon accepts in one request: the limit of append() and ioctl()."""
        return self._link.request_bytes_max

    @property
    def raw(self) -> RawFile:
        """The file as an io.RawIOBase with a position. Closing that closes the file."""
        return RawFile(self)

    def close(self, *, timeout: float | None = None) -> None:
        """Close the file once its requests in flight have completed. Idempotent; does not flush.

        After a TimeoutError the file is closed nevertheless, later.
        """
        if self.closed:
            return
        self.closed = True
        try:
            self._rings = NO_RING
            if self._client._is_forked() or self._link.ended is not None:  # noqa: SLF001
                return
            timeout_s = self._client.timeout_s if timeout is None else timeout
            if self._opened.by_ring and close_file(self._link, self._handle, timeout_s, self.name):
                return
            self._call(Call(MessageType.CLOSE, self._handle, handle=self._handle), timeout)
        except Exception:
            raise
        except BaseException:  # a signal's handler has raised: whether a CLOSE is on its way is not known
            self._link.close_file_later(self._handle, self._opened)
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the file as its client, path and mode: it is opened again."""
        if self.closed:
            raise TypeError(f"cannot pickle {self!r}")
        if set(self.mode) & {"w", "x"}:
            raise TypeError(
                f"cannot pickle {self!r}: opening it again would truncate or refuse it; use mode r+, r, a or a+"
            )
        return open_again, (self._client, self.name, self.mode, self._direct)

    def __enter__(self) -> Self:
        """The file; it is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def __repr__(self) -> str:
        """The name, the mode, and whether the file is closed."""
        return f"<aiod_client.File {self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        """Warn about a file that was not closed; it is closed soon."""
        if self.closed or self._client.closed or self._client._is_forked():  # noqa: SLF001
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        self._link.close_file_later(self._handle, self._opened)

    def _check(self) -> None:
        if self.closed:
            raise closed(f"file {self.name}")
        self._client._check()  # noqa: SLF001

    def _again(self, ring: Ring, failure: Failure, request: Request, timeout_s: float) -> Any:
        """Have another engine do what `ring` has ended with `failure`, if the session continues; else raise."""
        request.sent = may_be_done(ring, failure)
        if not is_lost(failure) or not self._link.continues_without_ring(request):
            link = self._link
            raise failed(failure, request, self.name, timeout_s, link.ended, link.why_lost(request))
        return self._link.perform(request, timeout_s, self.name)

    def _perform(self, request: Request, timeout: float | None) -> Any:
        self._check()
        return self._call(request, timeout)

    def _call(self, pending: Request | Call, timeout: float | None) -> Any:
        timeout_s = self._client.timeout_s if timeout is None else timeout
        return self._link.perform(pending, timeout_s, self.name)
