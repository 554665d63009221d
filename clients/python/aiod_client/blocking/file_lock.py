"""The blocking client's FileLock."""

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

    def unlock(self, *, offset: int = 0, length: int | None = None, timeout: float | None = None) -> None:
        """Release the locks of a range."""


class FileLock(HeldLock):
    """A lock that File.lock() has got: release it by unlock(), or use it in a `with` statement."""

    _shown = "aiod_client.FileLock"

    def __init__(self, file: LockedFile, link: Ended, offset: int, length: int | None, state: LockState | None) -> None:
        """For File.lock()."""
        super().__init__(file.name, link, offset, length, state)
        self.file = file

    def unlock(self, *, timeout: float | None = None) -> None:
        """Release the lock, after the file's requests in flight. Idempotent; no error if the lock is lost."""
        if not self._released:
            self._released = True
            if not self.file.closed:
                self.file.unlock(offset=self.offset, length=self.length, timeout=timeout)

    def __enter__(self) -> Self:
        """The lock; it is released at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock. Raises LockLostError if it was lost, unless another error is raised already."""
        try:
            self.unlock()
        except OSError:
            if error is None:
                raise
        lost = self._error()
        if error is None and lost is not None:
            raise lost
