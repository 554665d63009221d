"""What files of lines have in common, of bytes and of text: iteration, the end of a `with`, questions to answer."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, AnyStr, Generic, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType


class Lines(ABC, Generic[AnyStr]):
    """An asynchronous file with a position."""

    name: str
    """EXPORT/PATH."""
    mode: str
    """The mode that open() was given."""

    @abstractmethod
    async def readline(self, limit: int = -1) -> AnyStr:
        """Read one line with its end; empty at the end of the file."""

    @abstractmethod
    async def write(self, data: AnyStr) -> int:
        """Write at the position; returns the length of `data`."""

    @abstractmethod
    async def close(self) -> None:
        """Close the file."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the file is closed."""

    def __aiter__(self) -> Self:
        """The lines."""
        return self

    async def __anext__(self) -> AnyStr:
        """The next line."""
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def readlines(self, hint: int | None = -1) -> list[AnyStr]:
        """The lines that are left; no more once they have `hint` bytes or characters, if that is positive."""
        lines: list[AnyStr] = []
        length = 0
        async for line in self:
            lines.append(line)
            length += len(line)
            if hint is not None and 0 < hint <= length:
                break
        return lines

    async def writelines(self, lines: Iterable[AnyStr]) -> None:
        """Write each of `lines`; no ends of lines are added."""
        for line in lines:
            await self.write(line)

    def readable(self) -> bool:
        """Whether the mode allows reads."""
        self._check()
        return "r" in self.mode or "+" in self.mode

    async def writable(self) -> bool:
        """Whether the mode allows writes."""
        self._check()
        return "r" not in self.mode or "+" in self.mode

    async def seekable(self) -> bool:
        """True."""
        self._check()
        return True

    async def isatty(self) -> bool:
        """False."""
        self._check()
        return False

    def fileno(self) -> NoReturn:
        """Raise io.UnsupportedOperation: the file is the daemon's."""
        raise io.UnsupportedOperation("fileno: the file is open in the daemon")

    def _check(self, *, reads: bool = False, writes: bool = False) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if reads and "r" not in self.mode and "+" not in self.mode:
            raise io.UnsupportedOperation("not readable")
        if writes and "r" in self.mode and "+" not in self.mode:
            raise io.UnsupportedOperation("not writable")

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
        kind = type(self)
        return f"<{kind.__module__}.{kind.__name__} {self.name!r} mode={self.mode!r}{' closed' * self.closed}>"
