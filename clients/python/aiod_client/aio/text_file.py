"""A file of text with a position, for asyncio: as io.TextIOWrapper over a BinaryFile.

tell() gives a number for seek() only: where to begin to decode, the state of the decoder there, and how many characters
to skip. Of UTF-8 and other encodings without states it is the offset in bytes, but between the two characters of a
translated end of line.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import io
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiod_client.aio.lines import Lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiod_client.aio.binary_file import BinaryFile

_FIELD_BITS: Final = 64
_FIELD: Final = (1 << _FIELD_BITS) - 1


class _Place(NamedTuple):
    """Text that was decoded: `data`, from the offset `at` on, by a decoder with `flags`, gave `text`."""

    at: int
    flags: int
    data: bytes
    text: str


_NOTHING: Final = _Place(0, 0, b"", "")


def _cookie(at: int, skip: int, flags: int) -> int:
    """What tell() returns."""
    return (flags << 2 * _FIELD_BITS) | (skip << _FIELD_BITS) | at


class TextFile(Lines[str]):
    """An open file of text with a position. Writes are kept as those of a BinaryFile, which is `buffer`."""

    def __init__(
        self, buffer: BinaryFile, mode: str, codec: io.TextIOWrapper, newline: str | None, *, line_buffering: bool
    ) -> None:
        """Made by open(). `codec` has checked the encoding and how to treat errors."""
        self.name = buffer.name
        self.mode = mode
        self.buffer = buffer
        self.encoding = codec.encoding
        self.errors: str = codec.errors or "strict"
        self.line_buffering = line_buffering
        self._newline = newline
        self._lock = asyncio.Lock()
        decoder: Any = codecs.getincrementaldecoder(self.encoding)(self.errors)
        if newline in (None, "", "\r\n"):  # which keeps a CR back until it is known whether LF follows
            decoder = io.IncrementalNewlineDecoder(decoder, translate=newline is None)
        self._decoder = decoder
        self._encoder = codecs.getincrementalencoder(self.encoding)(self.errors)
        self._encoder_ready = False  # it has written at the position
        self._place = _NOTHING
        self._taken = 0  # characters of its text

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self.buffer.closed

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The ends of lines that were read so far, as those of io.TextIOBase."""
        if self._newline:
            return None
        found: str | tuple[str, ...] | None = self._decoder.newlines
        return found

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def read(self, size: int | None = -1) -> str:
        """Read `size` characters, fewer only at the end of the file; None or negative: all that are left."""
        self._check(reads=True)
        async with self._lock, self._all_or_nothing():
            return await (self._read_rest() if size is None or size < 0 else self._read(size))

    async def readline(self, limit: int | None = -1) -> str:
        """Read up to the end of a line, which is returned, too; `limit` characters at most, unless it is negative."""
        self._check(reads=True)
        limit = -1 if limit is None else limit
        if limit < 0 and not self._lock.locked():
            end = self._end_of_line(self._place.text, self._taken)
            if end:
                return self._take(end - self._taken)
        async with self._lock, self._all_or_nothing():
            return await self._find_line(limit)

    async def _read_rest(self) -> str:
        rest = self._place.text[self._taken :]
        text: str = rest + self._decoder.decode(await self.buffer.read(), final=True)
        self._place, self._taken = _NOTHING, 0
        self._encoder_ready = False
        return text

    async def _read(self, size: int) -> str:
        parts: list[str] = []
        while size > 0:
            part = self._take(size)
            parts.append(part)
            size -= len(part)
            if size > 0 and not await self._fetch():
                break
        return "".join(parts)

    async def _find_line(self, limit: int) -> str:
        parts: list[str] = []
        while limit != 0:
            text = self._place.text
            end = self._end_of_line(text, self._taken)
            length = (end or len(text)) - self._taken
            parts.append(self._take(length if limit < 0 else min(limit, length)))
            if limit > 0:
                limit -= len(parts[-1])
            if (end and self._taken == end) or limit == 0 or not await self._fetch():
                break
        return "".join(parts)

    def _end_of_line(self, text: str, start: int) -> int:
        """The index after the first end of a line; 0: there is none."""
        if self._newline in (None, "\n"):
            return text.find("\n", start) + 1
        if self._newline:
            found = text.find(self._newline, start)
            return found + len(self._newline) if found >= 0 else 0
        feed, back = text.find("\n", start), text.find("\r", start)
        if back < 0 or 0 <= feed < back:
            return feed + 1
        return back + (2 if feed == back + 1 else 1)

    def _take(self, most: int) -> str:
        part = self._place.text[self._taken : self._taken + most]
        self._taken += len(part)
        return part

    async def _fetch(self) -> bool:
        """Decode more, once all text is taken. False: the end of the file."""
        self._encoder_ready = False
        while True:
            kept, flags = self._decoder.getstate()
            data = await self.buffer.read1()
            at = await self.buffer.tell() - len(data) - len(kept)
            text = self._decoder.decode(data, final=not data)
            self._place, self._taken = _Place(at, flags, kept + data, text), 0
            if text or not data:
                return bool(text)

    @contextlib.asynccontextmanager
    async def _all_or_nothing(self) -> AsyncIterator[None]:
        """A read that fails or is cancelled moves the position nowhere: the next one finds what this one had found."""
        place, taken = self._place, self._taken
        if not place.data:
            place = _Place(await self.buffer.tell(), self._decoder.getstate()[1], b"", "")
        try:
            yield
        except BaseException:
            await self.buffer.seek(place.at + len(place.data))
            self._decoder.setstate((b"", place.flags))
            self._decoder.decode(place.data)
            self._place, self._taken = place, taken
            raise

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def write(self, text: str) -> int:
        """Write `text` at the position, in append mode at the end; returns its length in characters."""
        self._check(writes=True)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        async with self._lock:
            await self._begin_write()
            ended = text.replace("\n", self._newline) if self._newline in ("\r", "\r\n") else text
            await self.buffer.write(self._encoder.encode(ended))
            if self.line_buffering and ("\n" in text or "\r" in text):
                await self.buffer.flush()
        return len(text)

    async def _begin_write(self) -> None:
        if self._place.data:  # it was read ahead of the position
            await self._seek(await self._tell())
        if not self._encoder_ready:
            self._encoder_ready = True
            self._place, self._taken = _NOTHING, 0
            if await self.buffer.tell():
                self._encoder.setstate(0)  # no byte order mark
            else:
                self._encoder.reset()

    async def flush(self) -> None:
        """Give the daemon what was written. It is durable after sync()."""
        await self.buffer.flush()

    async def sync(self) -> None:
        """Make what was written durable."""
        await self.buffer.sync()

    async def truncate(self, size: int | None = None) -> int:
        """Set the file's size in bytes (None: the position); returns the size. The position does not change."""
        self._check(writes=True)
        async with self._lock:
            size = await self._tell() if size is None else size
            return await self.buffer.truncate(size)

    # ---- the position -----------------------------------------------------------------------------------------------

    async def tell(self) -> int:
        """The position, for seek()."""
        self._check()
        async with self._lock:
            return await self._tell()

    async def _tell(self) -> int:
        place = self._place
        if not place.data:
            return _cookie(await self.buffer.tell(), self._taken, place.flags)
        decoder, now = self._decoder, self._decoder.getstate()
        try:
            # The last byte from where decoding can go on: at most all taken characters are decoded before it.
            low, high = 0, len(place.data)
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if self._decoded(place, middle) <= self._taken else (low, middle - 1)
            decoded = self._decoded(place, low)
            while decoder.getstate()[0]:
                low -= 1
                decoded = self._decoded(place, low)
            return _cookie(place.at + low, self._taken - decoded, decoder.getstate()[1])
        finally:
            decoder.setstate(now)

    def _decoded(self, place: _Place, count: int) -> int:
        """How many characters the first `count` bytes of the place are."""
        self._decoder.setstate((b"", place.flags))
        return len(self._decoder.decode(place.data[:count]))

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to what tell() has returned, or with `whence` 2 to the end; returns the position."""
        self._check()
        async with self._lock:
            if whence == os.SEEK_CUR:
                if offset:
                    raise io.UnsupportedOperation("can't do nonzero cur-relative seeks")
                offset = await self._tell()
            elif whence == os.SEEK_END:
                if offset:
                    raise io.UnsupportedOperation("can't do nonzero end-relative seeks")
                offset = await self.buffer.seek(0, os.SEEK_END)
            elif whence != os.SEEK_SET:
                raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
            if offset < 0:
                raise ValueError(f"negative seek position {offset}")
            return await self._seek(offset)

    async def _seek(self, offset: int) -> int:
        at, skip, flags = offset & _FIELD, (offset >> _FIELD_BITS) & _FIELD, offset >> 2 * _FIELD_BITS
        await self.buffer.seek(at)
        self._place, self._taken = _Place(at, flags, b"", ""), 0
        self._encoder_ready = False
        if offset:
            self._decoder.setstate((b"", flags))
        else:
            self._decoder.reset()
        if skip:
            await self._fetch()
            self._take(skip)
        return offset

    async def close(self) -> None:
        """Write what is left, and close the file, also if that fails. Idempotent."""
        await self.buffer.close()
