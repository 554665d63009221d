"""The asyncio client's FileLock."""

# ruff: noqa: ASYNC109 - the same names and arguments as the blocking client's

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from aiod_client.requests.locks import check_held

if TYPE_CHECKING:
    from types import TracebackType

    from aiod_client.requests.locks import LockState


class LockedFile(Protocol):
    """The File whose lock it is."""

    name: str
    closed: bool

    async def unlock(self, *, offset: int = 0, length: int | None = None, timeout: float | None = None) -> None:
        """Release the locks of a range."""


class Ended(Protocol):
    """The session of the file."""

    @property
    def ended(self) -> OSError | None:
        """Why the session has ended; None: it has not."""


class FileLock:
    """A lock that File.lock() has got: release it by unlock(), or use it in `async with`."""

    def __init__(self, file: LockedFile, link: Ended, offset: int, length: int | None, state: LockState | None) -> None:
        """For File.lock()."""
        self._link = link
        self.file = file
        self.offset = offset
        self.length = length
        """None: to the end of the file, wherever that is."""
        self._state = state
        self._released = False

    @property
    def exclusive(self) -> bool:
        """Whether it is exclusive."""
        return self._state is not None and self._state.exclusive

    @property
    def lost(self) -> bool:
        """Whether the lock is known to be lost: others may have had it (LockLostError)."""
        return self._error() is not None

    async def unlock(self, *, timeout: float | None = None) -> None:
        """Release the lock, after the file's requests in flight. Idempotent; no error if the lock is lost."""
        if not self._released:
            self._released = True
            if not self.file.closed:
                await self.file.unlock(offset=self.offset, length=self.length, timeout=timeout)

    def _error(self) -> OSError | None:
        return check_held(self._state, self.file.name, ended=self._link.ended is not None)

    async def __aenter__(self) -> Self:
        """The lock; it is released at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock. Raises LockLostError if it was lost, unless another error is raised already."""
        try:
            await self.unlock()
        except OSError:
            if error is None:
                raise
        lost = self._error()
        if error is None and lost is not None:
            raise lost

    def __repr__(self) -> str:
        """The file, the range and the kind."""
        kind = "exclusive" if self.exclusive else "shared"
        length = "to the end" if self.length is None else f"{self.length} bytes"
        return f"<aiod_client.aio.FileLock of {self.file.name!r}: {kind}, {length} from {self.offset}>"
