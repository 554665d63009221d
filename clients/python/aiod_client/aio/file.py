"""The asyncio client's File, and the future of a submitted request. They belong to the loop they were made on."""

# ruff: noqa: ASYNC109 - the same names and arguments as the blocking client's

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from aiod_client import operations
from aiod_client.aio.file_lock import FileLock
from aiod_client.aio.link import cancel, perform
from aiod_client.aio.loops import check_loop
from aiod_client.aio.ring_files import close_file
from aiod_client.errors import closed, other_session
from aiod_client.requests.locks import lock_call, no_locks, unlock_call
from aiod_client.requests.pending import Call, Request
from aiod_client.requests.result_type import Result
from aiod_client.ring.direct import NO_RING, RingHolder, failed, is_lost, may_be_done
from aiod_protocol.operations import Op, OpFlag, changes_file
from aiod_protocol.wire import EXTENTS_MAX, MessageType

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typing_extensions import Buffer

    from aiod_client._ring import Failure, Ring
    from aiod_client.aio.link import Link
    from aiod_client.base_client import BaseClient
    from aiod_client.ops import Operation
    from aiod_client.records import Extent, FileStat

R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")


AT_ONCE_MAX: Final = 64
"""After so many requests that completed at once, other tasks get a turn of the loop."""

_FUA: Final = int(OpFlag.FUA)

T = TypeVar("T")


async def turn_of_the_loop(result: T) -> T:
    """Let other tasks run; returns `result`."""
    await asyncio.sleep(0)
    return result


class RequestFuture(asyncio.Future[Result]):
    """The outcome of one submitted request. It belongs to the event loop.

    cancel() is immediate, as asyncio requires: it gives the request up and cancels it at the daemon, but a request that
    was sent may be executed nevertheless. cancel_request() knows.
    """

    def __init__(self, file: File, request: Request) -> None:
        """For File.submit(). The future keeps `file`: a dropped file closes its handle."""
        super().__init__(loop=file._link.loop)  # noqa: SLF001 - one module
        self._file = file  # held: a dropped file closes its handle
        self._request = request
        request.waiter = self

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the request up; False: it is done already."""
        if not super().cancel(msg):
            return False
        self._file._link.abandon(self._request, asyncio.CancelledError())  # noqa: SLF001
        return True

    async def cancel_request(self) -> bool:
        """End the request before it is started. True: it was not, and never will be, executed; the future is cancelled.

        False: it is being executed or has ended, and is not affected; or the daemon gave no answer within the client's
        timeout.
        """
        if self.done():
            return self.cancelled()
        file = self._file
        return await cancel(file._link, self._request, self, file._client.timeout_s)  # noqa: SLF001


class File:
    """An open file of an export. Made by Client.open(); close it, or use it in `async with`.

    Any task of its event loop may use it. Requests in flight have no order among themselves. A buffer given to
    pwrite(), pread_into() or submit() must not be changed until the request has completed, also after a timeout or a
    cancelled await. Offsets and lengths are in bytes; `timeout` is in seconds (None: the client's; math.inf: no limit).

    Every method but close() raises OSError with the kernel's errno, TimeoutError, SessionLostError, and AiodError
    (EBADF) once the file is closed.
    """

    closed = True
    """Until __init__() has come so far that __del__() has a file to close."""

    def __init__(self, client: BaseClient, link: Link, opened: Call, mode: str) -> None:
        """For Client.open(), of an OPEN that was answered."""
        handle: int = opened.result[0]
        self.name = name = opened.filename or ""
        self.mode = mode
        self._client = client  # held: a dropped client ends its sessions
        self._link = link
        self._loop = link.loop
        self._handle = handle
        self._rings: RingHolder = link  # until the file is closed; a ring that has ended fails by itself
        self._opened = link.opened(handle)
        self._at_once = 0  # requests that completed at once
        link.name_handle(handle, name)
        # From here on this object closes the handle, not open(). A signal handler cannot run between the two.
        self.closed = False
        opened.result = None

    async def pread(self, length: int, offset: int, *, timeout: float | None = None) -> bytes:
        """Read up to `length` bytes at `offset`; the result is shorter only at the end of the file."""
        if self._loop.is_closed():
            self._check()
        ring = self._rings.ring
        timeout_s = self._client.timeout_s if timeout is None else timeout
        found = None if ring is None else ring.read_soon(self._handle, length, offset, timeout_s)
        if type(found) is bytes:
            self._at_once += 1
            return found if self._at_once % AT_ONCE_MAX else await turn_of_the_loop(found)
        if found is None or type(found) is tuple:
            request = operations.read_request(self._handle, length, offset)
            return bytes(await self._by_session(ring, found, request, timeout_s))
        try:
            result: bytes = await found  # type: ignore[misc]
        except asyncio.CancelledError:
            self._link.abandon_awaited(found)  # type: ignore[arg-type]
            raise
        return result

    async def pread_view(self, length: int, offset: int, *, timeout: float | None = None) -> memoryview:
        """As pread(), with a read-only memoryview as the result.

        By message it saves the copy of a large read: the view is of the message itself. By ring it is of new bytes.
        """
        if self._rings.ring is not None:
            return memoryview(await self.pread(length, offset, timeout=timeout))
        result: memoryview = await self._perform(operations.read_view_request(self._handle, length, offset), timeout)
        return result

    async def pread_into(self, buffer: Buffer, offset: int, *, timeout: float | None = None) -> int:
        """Fill `buffer` (writable, C-contiguous) from `offset` on; returns the bytes read, fewer only at the file's
        end.
        """
        if self._loop.is_closed():
            self._check()
        ring = self._rings.ring
        timeout_s = self._client.timeout_s if timeout is None else timeout
        found = None if ring is None else ring.read_into_soon(self._handle, buffer, offset, timeout_s)
        if type(found) is int:
            self._at_once += 1
            return found if self._at_once % AT_ONCE_MAX else await turn_of_the_loop(found)
        if found is None or type(found) is tuple:
            request = operations.read_into_request(self._handle, buffer, offset)
            return int(await self._by_session(ring, found, request, timeout_s))
        try:
            result: int = await found  # type: ignore[misc]
        except asyncio.CancelledError:
            self._link.abandon_awaited(found)  # type: ignore[arg-type]
            raise
        return result

    async def preadv(self, buffers: Iterable[Buffer], offset: int, *, timeout: float | None = None) -> int:
        """Fill `buffers`, one after the other, from `offset` on; returns the bytes, fewer only at the file's end."""
        result: int = await self._perform(operations.readv_request(self._handle, buffers, offset), timeout)
        return result

    async def pwrite(self, data: Buffer, offset: int, *, fua: bool = False, timeout: float | None = None) -> int:
        """Write all of `data` (bytes-like, C-contiguous) at `offset`; returns its length in bytes.

        The data is on stable storage after the next flush(), or with `fua` when this returns. An error's `written` says
        how many bytes, from the beginning, are known to be written.
        """
        if self._loop.is_closed():
            self._check()
        ring = self._rings.ring
        timeout_s = self._client.timeout_s if timeout is None else timeout
        found = None
        if ring is not None:
            opened = None if fua else self._opened
            found = ring.write_soon(self._handle, data, offset, _FUA if fua else 0, timeout_s, opened)
        if type(found) is int:
            self._at_once += 1
            return found if self._at_once % AT_ONCE_MAX else await turn_of_the_loop(found)
        if found is None or type(found) is tuple:
            request = operations.write_request(self._handle, data, offset, fua)
            return int(await self._by_session(ring, found, request, timeout_s))
        try:
            result: int = await found  # type: ignore[misc]
        except asyncio.CancelledError:
            self._link.abandon_awaited(found)  # type: ignore[arg-type]
            raise
        return result

    async def pwritev(
        self, buffers: Iterable[Buffer], offset: int, *, fua: bool = False, timeout: float | None = None
    ) -> int:
        """Write all of `buffers`, one after the other, at `offset`; returns the bytes. Durable as after pwrite()."""
        result: int = await self._perform(operations.writev_request(self._handle, buffers, offset, fua), timeout)
        return result

    async def append(self, data: Buffer, *, timeout: float | None = None) -> int:
        """Write all of `data` at the end of the file, in one piece; returns the offset of its first byte.

        An append is never split and never executed twice. Raises OSError (EMSGSIZE) for more than `request_bytes_max`
        bytes.
        """
        result: int = await self._perform(operations.append_request(self._handle, data), timeout)
        return result

    async def flush(self, *, timeout: float | None = None) -> None:
        """Make every write that had completed before durable (fdatasync).

        After a failed flush data may be lost, and every flush of the file fails (EIO) until all its handles are closed.
        """
        if self._loop.is_closed():
            self._check()
        ring = self._rings.ring
        timeout_s = self._client.timeout_s if timeout is None else timeout
        opened = self._opened
        covers, opened.epoch = opened.epoch, opened.epoch + 1
        opened.unanswered.add(covers)
        found = None if ring is None else ring.flush_soon(self._handle, timeout_s, covers)
        if type(found) is int:
            self._at_once += 1
            if self._at_once % AT_ONCE_MAX == 0:
                await turn_of_the_loop(found)
        elif found is None or type(found) is tuple:
            request = operations.whole_request(Op.FLUSH, self._handle)
            request.covers = covers
            await self._by_session(ring, found, request, timeout_s)
            return
        else:
            try:
                await found  # type: ignore[misc]
            except asyncio.CancelledError:
                self._link.abandon_awaited(found)  # type: ignore[arg-type]
                raise
        opened.flushed(covers)

    async def size(self, *, timeout: float | None = None) -> int:
        """The file's size in bytes."""
        result: int = await self._perform(operations.whole_request(Op.SIZE, self._handle), timeout)
        return result

    async def stat(self, *, timeout: float | None = None) -> FileStat:
        """The file's properties."""
        result: FileStat = await self._perform(operations.whole_request(Op.STAT, self._handle), timeout)
        return result

    async def discard(self, offset: int, length: int, *, timeout: float | None = None) -> None:
        """Deallocate a range. A file reads as zeroes there; a device may read as anything.

        Raises OSError (EOPNOTSUPP) where the file system or device cannot.
        """
        await self._perform(operations.range_request(Op.DISCARD, self._handle, offset, length), timeout)

    async def write_zeroes(
        self, offset: int, length: int, *, unmap: bool = False, fua: bool = False, timeout: float | None = None
    ) -> None:
        """Make a range read as zeroes, in the fastest way there is; with `unmap` its space may be deallocated."""
        await self._perform(operations.write_zeroes_request(self._handle, offset, length, unmap, fua), timeout)

    async def truncate(self, size: int, *, timeout: float | None = None) -> None:
        """Set the file's size in bytes; what is added reads as zeroes."""
        await self._perform(operations.truncate_request(self._handle, size), timeout)

    async def allocate(
        self, offset: int, length: int, *, keep_size: bool = False, timeout: float | None = None
    ) -> None:
        """Reserve space for a range; the file grows to contain it, unless `keep_size`.

        Raises OSError (EOPNOTSUPP) where the file system cannot.
        """
        await self._perform(operations.allocate_request(self._handle, offset, length, keep_size), timeout)

    async def extents(
        self, offset: int = 0, length: int | None = None, *, timeout: float | None = None
    ) -> list[Extent]:
        """The data and the holes of a range (`length` None: up to the end of the file), in order, as Extents."""
        found: list[Extent] = []
        end = operations.OFFSET_MAX if length is None else offset + length
        while True:
            request = operations.range_request(Op.EXTENTS, self._handle, offset, end - offset)
            more: list[Extent] = await self._perform(request, timeout)
            found += more
            if len(more) < EXTENTS_MAX:
                return found
            offset = more[-1].offset + more[-1].length

    async def copy_range(
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
            length = max(0, min(length, await self.size(timeout=timeout) - source_offset))
            request = operations.copy_range_request(self._handle, handle, source_offset, offset, length)
        result: int = await self._perform(request, timeout)
        return result

    async def prefetch(self, offset: int = 0, length: int | None = None, *, timeout: float | None = None) -> None:
        """Read a range (`length` None: up to the end of the file), 1 GiB of it at most, into the page cache. A hint."""
        length = operations.OFFSET_MAX - offset if length is None else length
        await self._perform(operations.range_request(Op.PREFETCH, self._handle, offset, length), timeout)

    async def ioctl(self, number: int, argument: Buffer = b"", *, timeout: float | None = None) -> tuple[int, bytes]:
        """Send an ioctl; returns its return value, and `argument` as the kernel has left it.

        Raises OSError (EPERM) unless the export's configuration lists `number` with the size of `argument`.
        """
        result: tuple[int, bytes] = await self._perform(
            operations.ioctl_request(self._handle, number, argument), timeout
        )
        return result

    async def lock(
        self, *, exclusive: bool = True, offset: int = 0, length: int | None = None, timeout: float | None = None
    ) -> FileLock:
        """Lock a range of the file: `async with await f.lock(): ...`. `length` None: up to any end that it will have.

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
            await perform(self._link, call, max(0.0, wait_s) + self._client.timeout_s, self.name)
            return FileLock(self, self._link, offset, length, self._opened.locks.get((offset, length or 0)))
        except BaseException:
            if call.result is not None:  # the await was cancelled after the answer
                self._link.send_later(unlock_call(self._handle, self.name, offset, length))
            raise

    async def unlock(self, *, offset: int = 0, length: int | None = None, timeout: float | None = None) -> None:
        """Release the locks of a range, after the file's requests in flight; each lock as a whole.

        A lock that was lost is released, too: then requests are carried out again. After a timeout or a cancelled await
        the locks are released nevertheless, later.
        """
        self._check()
        if not self._link.session.welcome.locks:
            raise no_locks(self.name)
        call = unlock_call(self._handle, self.name, offset, length)
        await perform(self._link, call, self._timeout_s(timeout), self.name)

    def submit(self, batch: Iterable[tuple[Any, ...]], *, timeout: float | None = None) -> list[RequestFuture[Any]]:
        """Start a batch, as the blocking File.submit(); returns one asyncio future for each operation, in order."""
        self._check()
        requests = operations.from_tuples(self._handle, batch, self._link, timeout)
        futures: list[RequestFuture[Any]] = [RequestFuture(self, request) for request in requests]
        for request in requests:
            self._link.add(request)
            if timeout is not None:
                self._link.expiries.add(request, timeout, self.name)
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

    def buffer(self, nbytes: int) -> memoryview:
        """Memory that this file's engine reads into and writes from without a copy: see Client.buffer()."""
        self._check()
        return self._link.buffer(nbytes)

    def source_handle(self, link: Link) -> int:
        """The handle, for a copy_range in the session `link`. Raises OSError (EXDEV) for a file of another session."""
        self._check()
        if self._link is not link:
            raise other_session(self.name)
        return self._handle

    @property
    def request_bytes_max(self) -> int:
        """The most bytes that the daemon accepts in one request: the limit of append() and ioctl()."""
        return self._link.request_bytes_max

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the file once its requests in flight have completed. Idempotent; does not flush.

        After a timeout or a cancelled await the file is closed nevertheless, later.
        """
        if self.closed:
            return
        if not self._loop.is_closed():
            check_loop(self._loop, f"file {self.name}")
        self.closed = True
        try:
            self._rings = NO_RING
            # When the loop has ended the end of the session closes the file.
            if self._client._is_forked() or self._link.ended is not None or self._loop.is_closed():  # noqa: SLF001
                return
            timeout_s = self._timeout_s(timeout)
            if self._opened.by_ring and await close_file(self._link, self._handle, timeout_s, self.name):
                return
            call = Call(MessageType.CLOSE, self._handle, handle=self._handle)
            await perform(self._link, call, timeout_s, self.name)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException:  # a signal's handler has raised: whether a CLOSE is on its way is not known
            self._link.close_noted(self._link.noted(self._handle, self._opened))
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        """Raise TypeError: it would have to be opened again, and pickle cannot await that."""
        raise TypeError(f"cannot pickle {self!r}: pickle its client and its path, and open it again")

    async def __aenter__(self) -> Self:
        """The file; it is closed at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        await self.close()

    def __repr__(self) -> str:
        """The name, the mode, and whether the file is closed."""
        return f"<aiod_client.aio.File {self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        """Warn about a file that was not closed; it is closed soon, if its loop still runs."""
        if self.closed:
            return
        link = self._link
        if self._client.closed or link.ended is not None or self._client._is_forked():  # noqa: SLF001
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        if not link.loop.is_closed():
            link.loop.call_soon_threadsafe(link.close_noted, link.noted(self._handle, self._opened))

    def _check(self) -> None:
        if self.closed:
            raise closed(f"file {self.name}")
        check_loop(self._loop, f"file {self.name}")
        self._client._check()  # noqa: SLF001

    def _timeout_s(self, timeout: float | None) -> float:
        return self._client.timeout_s if timeout is None else timeout

    async def _by_session(self, ring: Ring | None, failure: Failure | None, request: Request, timeout_s: float) -> Any:
        """Have the session do what `ring` has no room for (`failure`: None), or has ended as its engine was going."""
        if ring is not None and failure is not None:
            request.sent = may_be_done(ring, failure)
            if not is_lost(failure) or not self._link.continues_without_ring():
                link = self._link
                raise failed(failure, request, self.name, timeout_s, link.ended, link.why_lost(request))
            if request.sent and changes_file(request.op):
                request.flags |= OpFlag.REPEAT
        self._check()
        return await perform(self._link, request, timeout_s, self.name)

    async def _perform(self, request: Request, timeout: float | None) -> Any:
        self._check()
        return await perform(self._link, request, self._timeout_s(timeout), self.name)
