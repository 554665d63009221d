"""What a FileLock of either client is, but for how it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from aiod_client.requests.locks import check_held

if TYPE_CHECKING:
    from aiod_client.requests.locks import LockState


class Ended(Protocol):
    """The session of the file."""

    @property
    def ended(self) -> OSError | None:
        """Why the session has ended; None: it has not."""


class HeldLock:
    """The range and the state of a lock."""

    _shown: ClassVar[str]
    """The name under which users know the class."""

    def __init__(self, name: str, link: Ended, offset: int, length: int | None, state: LockState | None) -> None:
        """Of the file `name`."""
        self._link = link
        self._name = name
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

    def _error(self) -> OSError | None:
        return check_held(self._state, self._name, ended=self._link.ended is not None)

    def __repr__(self) -> str:
        """The file, the range and the kind."""
        kind = "exclusive" if self.exclusive else "shared"
        length = "to the end" if self.length is None else f"{self.length} bytes"
        return f"<{self._shown} of {self._name!r}: {kind}, {length} from {self.offset}>"
