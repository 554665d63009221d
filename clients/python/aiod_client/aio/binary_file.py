"""A file of bytes with a position, for asyncio: buffered, and read ahead of a task that reads one block after another.

Its methods are those of the files of aiofiles. Operations of several tasks follow one another.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
from typing import TYPE_CHECKING, Final

from aiod_client.aio.lines import Lines
from aiod_client.aio.write_buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from aiod_client.aio.file import File, RequestFuture

BUFFER_BYTES: Final = 256 * 1024
"""Default size of a buffer (bytes)."""

_UNBUFFERED_LINE_BYTES: Final = 8 * 1024
"""How much an unbuffered file reads to find the end of a line."""

_UNKNOWN_BYTES: Final = 64 * 1024
_GROWTH_BYTES_MAX: Final = 8 * 1024 * 1024
"""As those of blocking/raw_file.py."""


class BinaryFile(Lines[bytes]):
    """An open file with a position.

    A write that raises an error has taken nothing of its data. Data that a write has taken is kept until it is written:
    if that fails, the next write(), flush(), seek(), truncate() or close() tries again and raises the error. An append
    that may have been done is not tried again (AiodError, EIO): check the file, and open it again.
    """

    def __init__(self, file: File, mode: str, size: int, position: int, timeout: float | None) -> None:
        """Made by open(). `size` is that of the buffer in bytes; 0: none."""
        self.name = file.name
        self.mode = mode
        self.raw = file
        """The File without a position."""
        self._size = size
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._position = position
        self._ahead = b""  # bytes of the file from `_ahead_at` on
        self._ahead_at = position
        self._next: RequestFuture | None = None  # reads the bytes after these
        self._writes = WriteBuffer(file, timeout)

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self.raw.closed

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, fewer only at the end of the file; None or negative: all that are left."""
        self._check(reads=True)
        async with self._lock:
            await self._push()
            with self._all_or_nothing():
                return await (self._read_rest() if size is None or size < 0 else self._read(size))

    async def _read(self, size: int) -> bytes:
        found = self._take(size)
        while (missing := size - len(found)) > 0:
            if missing >= self._size:
                block = await self.raw.pread(missing, self._position, timeout=self._timeout)
                self._position += len(block)
            else:
                await self._fetch(self._size)
                block = self._take(missing)
            found = found + block if found else block
            if not block:
                break
        return found

    async def read1(self, size: int = -1) -> bytes:
        """Read at most `size` bytes by at most one request; negative: what a buffer holds."""
        self._check(reads=True)
        async with self._lock:
            await self._push()
            size = size if size >= 0 else self._size or _UNBUFFERED_LINE_BYTES
            if size and not self._at_hand():
                await self._fetch(self._size or size)
            found = self._take(size)
            self._keep_nothing_unbuffered()
            return found

    async def readall(self) -> bytes:
        """Read all that is left."""
        return await self.read()

    async def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer`; returns the bytes read, fewer only at the end of the file."""
        self._check(reads=True)
        view = memoryview(buffer).cast("B")
        async with self._lock:
            await self._push()
            with self._all_or_nothing():
                return await self._read_into(view)

    async def _read_into(self, view: memoryview) -> int:
        count = len(found := self._take(len(view)))
        view[:count] = found
        while count < len(view):
            if len(view) - count >= self._size:
                more = await self.raw.pread_into(view[count:], self._position, timeout=self._timeout)
                self._position += more
            else:
                await self._fetch(self._size)
                more = len(found := self._take(len(view) - count))
                view[count : count + more] = found
            count += more
            if not more:
                break
        return count

    async def readline(self, limit: int | None = -1) -> bytes:
        """Read up to the end of a line, which is returned, too; of `limit` bytes at most, unless that is negative."""
        self._check(reads=True)
        limit = -1 if limit is None else limit
        if self._ahead and not self._writes.length and not self._lock.locked():
            start = self._position - self._ahead_at
            end = self._ahead.find(b"\n", start) + 1 if start >= 0 else 0
            if end and limit < 0:
                self._position = self._ahead_at + end
                return self._ahead[start:end]
        async with self._lock:
            await self._push()
            with self._all_or_nothing():
                return await self._find_line(limit)

    async def peek(self, size: int = 0) -> bytes:
        """The bytes at the position that are at hand, by at most one request; the position does not move."""
        self._check(reads=True)
        async with self._lock:
            await self._push()
            if not self._at_hand():
                await self._fetch(self._size or max(size, 1))
            found = self._ahead[self._position - self._ahead_at :]
            self._keep_nothing_unbuffered()
            return found

    async def _find_line(self, limit: int) -> bytes:
        parts = []
        left = limit
        while left != 0:
            if not self._at_hand():
                await self._fetch(self._size or _UNBUFFERED_LINE_BYTES)
            start = self._position - self._ahead_at
            end = self._ahead.find(b"\n", start) + 1 or len(self._ahead)
            part = self._take(end - start if left < 0 else min(left, end - start))
            parts.append(part)
            if not part or part.endswith(b"\n"):
                break
            if left > 0:
                left -= len(part)
        self._keep_nothing_unbuffered()
        return b"".join(parts)

    async def _read_rest(self) -> bytes:
        parts = [self._take(len(self._ahead))]
        left = await self.raw.size(timeout=self._timeout) - self._position
        # As RawFile.readall(): a short read is the end of the file.
        asked = left + 1 if left > 0 else _UNKNOWN_BYTES
        while True:
            parts.append(await self.raw.pread(asked, self._position, timeout=self._timeout))
            self._position += len(parts[-1])
            if len(parts[-1]) < asked:
                return b"".join(parts)
            asked = min(max(2 * asked, _UNKNOWN_BYTES), _GROWTH_BYTES_MAX)

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """A read that fails or is cancelled moves the position nowhere: the next one finds what this one had found."""
        begin = self._position
        try:
            yield
        except BaseException:
            self._position = begin
            raise

    def _at_hand(self) -> int:
        """How many bytes at the position are in the buffer."""
        start = self._position - self._ahead_at
        return max(0, len(self._ahead) - start) if start >= 0 else 0

    def _take(self, most: int) -> bytes:
        """Up to `most` bytes of the buffer; moves the position."""
        most = min(most, self._at_hand())
        start = self._position - self._ahead_at
        self._position += most
        return self._ahead[start : start + most] if most else b""

    async def _fetch(self, size: int) -> None:
        """Fill the buffer from the position on, and begin to read the next one of a file that is read in order."""
        position = self._position
        in_order = position == self._ahead_at + len(self._ahead)
        following, self._next = self._next, None
        block: bytes | None = None
        if following is not None and in_order:
            with contextlib.suppress(OSError):  # it is read again, for an error of now
                block = await following
        elif following is not None:
            following.cancel()
        if block is None:
            block = await self.raw.pread(size, position, timeout=self._timeout)
        self._ahead, self._ahead_at = block, position
        if in_order and self._size and len(block) == size:
            (self._next,) = self.raw.submit([("read", size, position + size)], timeout=self._writes.timeout_s)
            self._next.add_done_callback(_note_exception)

    def _forget(self) -> None:
        """Drop what was read ahead: the file changes."""
        following, self._next = self._next, None
        if following is not None:
            following.cancel()
        self._ahead, self._ahead_at = b"", self._position

    def _keep_nothing_unbuffered(self) -> None:
        if not self._size:
            self._forget()

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def write(self, data: Buffer) -> int:
        """Write all of `data` (bytes-like) at the position, in append mode at the end; returns its length in bytes."""
        self._check(writes=True)
        payload = data if type(data) is bytes else memoryview(data).tobytes()
        async with self._lock:
            self._forget()
            writes = self._writes
            if writes.length + len(payload) > self._size:
                await self._push()
            writes.put(payload, self._position)
            self._position = writes.end
            if not self._size:
                await self._push_or_drop()
            elif writes.length >= self._size:
                with contextlib.suppress(OSError):  # the data is taken: the next call tries again, and raises the error
                    await self._push()
        return len(payload)

    async def flush(self) -> None:
        """Give the daemon what was written. It is durable after sync()."""
        self._check()
        async with self._lock:
            await self._push()

    async def sync(self) -> None:
        """Make what was written durable."""
        await self.flush()
        await self.raw.flush(timeout=self._timeout)

    async def truncate(self, size: int | None = None) -> int:
        """Set the file's size (None: the position); returns the size. The position does not change."""
        self._check(writes=True)
        async with self._lock:
            await self._push()
            self._forget()
            size = self._position if size is None else operator.index(size)
            await self.raw.truncate(size, timeout=self._timeout)
            return size

    async def _push(self) -> None:
        """Have everything written before anything else is done."""
        writes = self._writes
        if not writes.length:
            writes.check()
            return
        try:
            await writes.push()
        finally:
            self._position = writes.end

    async def _push_or_drop(self) -> None:
        """The same, for a file without a buffer: what is not written is forgotten; `written` of the error counts."""
        try:
            await self._push()
        except OSError:
            self._position = self._writes.drop()
            raise

    # ---- the position -----------------------------------------------------------------------------------------------

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; returns it."""
        self._check()
        offset = operator.index(offset)
        async with self._lock:
            await self._push()
            if whence == os.SEEK_CUR:
                offset += self._position
            elif whence == os.SEEK_END:
                offset += await self.raw.size(timeout=self._timeout)
            elif whence != os.SEEK_SET:
                raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
            if offset < 0:
                raise ValueError(f"negative seek position {offset}")
            self._position = offset
            return offset

    async def tell(self) -> int:
        """The position."""
        self._check()
        return self._position

    async def close(self) -> None:
        """Write what is left, and close the file, also if that fails. Idempotent."""
        if self.closed:
            return
        async with self._lock:
            self._forget()
            try:
                await self._push()
            finally:
                await self.raw.close()


def _note_exception(future: asyncio.Future[object]) -> None:
    """Of a block that is not read in the end."""
    if not future.cancelled():
        future.exception()
