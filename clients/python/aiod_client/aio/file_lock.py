"""The asyncio client's FileLock."""

# ruff: noqa: ASYNC109 - the same names and arguments as the blocking client's

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from aiod_client.requests.held_lock import HeldLock

if TYPE_CHECKING:
    from types import TracebackType

    from aiod_client.requests.held_lock import Ended
    from aiod_client.requests.locks import LockState


class LockedFile(Protocol):
    """The File whose lock it is."""

    name: str
    closed: bool

    async def unlock(self, *, offset: int = 0, length: int | None = None, timeout: float | None = None) -> None:
        """Release the locks of a range."""


class FileLock(HeldLock):
    """A lock that File.lock() has got: release it by unlock(), or use it in `async with`."""

    _shown = "aiod_client.aio.FileLock"

    def __init__(self, file: LockedFile, link: Ended, offset: int, length: int | None, state: LockState | None) -> None:
        """For File.lock()."""
        super().__init__(file.name, link, offset, length, state)
        self.file = file

    async def unlock(self, *, timeout: float | None = None) -> None:
        """Release the lock, after the file's requests in flight. Idempotent; no error if the lock is lost."""
        if not self._released:
            self._released = True
            if not self.file.closed:
                await self.file.unlock(offset=self.offset, length=self.length, timeout=timeout)

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
