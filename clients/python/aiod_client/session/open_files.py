"""A session's open files, and which changes of them may not be on disk: REOPEN passes both to the next engine.

Protected by whatever protects the session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiod_client.errors import LockLostError
from aiod_client.requests.locks import LockState
from aiod_client.requests.pending import Call
from aiod_protocol.operations import Op, OpFlag, changes_file, may_repeat
from aiod_protocol.wire import LOCK_EXCLUSIVE, LOCK_LAST, OpenFlag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiod_client.requests.pending import Request

_FLUSH: Final = int(Op.FLUSH)
_FUA: Final = int(OpFlag.FUA)
_WRITE: Final = int(OpenFlag.WRITE)


@dataclass(slots=True)
class OpenFile:
    """One handle."""

    export: str
    path: str
    flags: int
    """wire.OpenFlag."""
    identity: tuple[int, ...]
    """Device, inode and generation, if the engine has reported them; else ()."""
    origin: bytes = b""
    """Of which host and file system it is, as the engine has said: for another daemon to read."""
    epoch: int = 0
    """How many flushes have been submitted."""
    dirty: set[int] = field(default_factory=set)
    """Epochs with acknowledged changes that no acknowledged flush covers. A set, since File adds without a lock."""
    settled: bool = False
    """Whether the engine's shutdown notice says that all acknowledged changes are on disk."""
    by_ring: bool = False
    """Whether the ring has opened it, so that it may be able to close it, too."""
    unanswered: set[int] = field(default_factory=set)
    """Epochs that flushes cover which were not acknowledged: an error that the engine has read may be lost with it, if
    the ring has opened the file for reading: then no descriptor of it may have outlived the engine."""

    locks: dict[tuple[int, int], LockState] = field(default_factory=dict)
    """By offset and length (0: to the end of the file)."""

    @property
    def lock_claims(self) -> list[list[int]]:
        """The locks as REOPEN claims them: flags, offset, length and number. Any thread."""
        return [
            [LOCK_EXCLUSIVE if lock.exclusive else 0, offset, length, 0 if lock.lost else lock.number]
            for (offset, length), lock in list(self.locks.items())
        ]

    def flushed(self, covers: int) -> None:
        """Note that the flush that covers the changes up to epoch `covers` was acknowledged."""
        self.dirty.difference_update([epoch for epoch in self.dirty.copy() if epoch <= covers])
        self.unanswered.difference_update([epoch for epoch in self.unanswered.copy() if epoch <= covers])

    @property
    def changed(self) -> bool:
        """Whether there are acknowledged changes that no flush is known to cover, or a flush without an answer."""
        unkept = self.by_ring and not self.flags & _WRITE
        return bool(self.dirty or (unkept and self.unanswered)) and not self.settled


class OpenFiles(dict[int, OpenFile]):
    """The open files by handle."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: dict[int, OSError] = {}
        """Handles of the files that could not be opened again, and the errors."""

    def opened(self, handle: int, arguments: tuple[Any, ...], body: Any) -> None:
        """Add the file of an OPEN with `arguments` that was answered."""
        export, path, flags, _ = arguments
        if flags == OpenFlag.NAMES:  # of one engine's ring: asked for anew at the next engine
            return
        known = body if isinstance(body, dict) else {}
        identity, origin = known.get("file"), known.get("origin")
        self[handle] = OpenFile(
            export,
            path,
            flags,
            tuple(identity) if isinstance(identity, list) else (),
            origin if isinstance(origin, bytes) else b"",
        )

    def settle(self, handles: Iterable[int]) -> None:
        """Note that a stopping engine has flushed the files of `handles`: also changes whose completion comes later."""
        for file in map(self.get, handles):
            if file is not None:
                file.settled = True

    def resumed(self) -> None:
        """Note that another engine acknowledges from now on."""
        for file in self.values():
            if file.settled:
                file.dirty.clear()
                file.unanswered.clear()
                file.settled = False

    def doubt(self, handle: int) -> None:
        """Note that it is unknown whether a change was done: the next daemon's flush has to say so."""
        file = self.get(handle)
        if file is not None:
            file.dirty.add(file.epoch)

    def closed(self, handle: int) -> bool:
        """Remove the file of a CLOSE that was answered. Returns whether it was lost, so that EBADF is no error."""
        self.pop(handle, None)
        return self.lost.pop(handle, None) is not None

    def why_lost(self, pending: Request | Call) -> OSError | None:
        """The error of a file that `pending` needs and that could not be opened again, or whose lock is lost."""
        if isinstance(pending, Call):
            return None  # a lost file may be closed, and a lost lock be released
        error = self.lost.get(pending.handle) or self.lost.get(pending.source)
        return None if isinstance(error, LockLostError) and pending.op == _FLUSH else error

    # ---- locks

    def locked(self, call: Call, number: int) -> None:
        """Note that the daemon has granted the LOCK `call`."""
        handle, flags, offset, length, _ = call.arguments
        file = self.get(handle)
        if file is None:
            return
        for (start, size), lock in list(file.locks.items()):
            if lock.lost and start < _end(offset, length) and offset < _end(start, size):
                del file.locks[start, size]
        file.locks[offset, length] = LockState(bool(flags & LOCK_EXCLUSIVE), number)
        self._forgive(handle, file)

    def unlocking(self, call: Call) -> None:
        """Note that the UNLOCK `call` is sent: the locks in its range are not claimed at another engine any more."""
        handle, offset, length = call.arguments
        file = self.get(handle)
        if file is None:
            return
        for start, size in list(file.locks):
            if offset <= start and _end(start, size) <= _end(offset, length):
                call.locks.append(file.locks.pop((start, size)))
        self._forgive(handle, file)

    def lose_locks(self) -> None:
        """Mark the locks that the errors in `lost` name."""
        for handle, error in self.lost.items():
            if isinstance(error, LockLostError) and handle in self:
                for each in error.ranges:
                    if each in self[handle].locks:
                        self[handle].locks[each].lost = True

    def is_guarded(self, request: Request) -> bool:
        """Whether the request may be repeated at another host: it lies within an exclusive lock that is not lost."""
        file = self.get(request.handle)
        end = request.offset + request.length
        return (
            file is not None
            and request.handle not in self.lost
            and self.may_repeat(request)
            and any(
                lock.exclusive and not lock.lost and start <= request.offset and end <= _end(start, size)
                for (start, size), lock in file.locks.items()
            )
        )

    def _forgive(self, handle: int, file: OpenFile) -> None:
        if isinstance(self.lost.get(handle), LockLostError) and not any(lock.lost for lock in file.locks.values()):
            del self.lost[handle]

    def begin_flush(self, request: Request) -> None:
        """Note that a FLUSH is submitted: it covers the changes acknowledged by now."""
        file = self.get(request.handle)
        if file is not None:
            request.covers = file.epoch
            file.unanswered.add(file.epoch)
            file.epoch += 1

    def completed(self, request: Request) -> None:
        """Note that a request other than a READ was answered."""
        file = self.get(request.handle)
        if file is None:
            return
        if changes_file(request.op):
            if request.error is not None or not request.flags & _FUA:
                file.dirty.add(file.epoch)
        elif request.op == _FLUSH and request.error is None:
            file.flushed(request.covers)

    def may_repeat(self, request: Request) -> bool:
        """Whether a request that may have been executed may be sent again."""
        if not may_repeat(request.op):
            return False
        return not request.source or not self._is_one_file(request.source, request.handle)

    def lock_state(self, handle: int, offset: int, length: int) -> LockState | None:
        """The lock of that range; None: there is none."""
        file = self.get(handle)
        return None if file is None else file.locks.get((offset, length))

    def _is_one_file(self, one: int, other: int) -> bool:
        identities = [file.identity for handle in (one, other) if (file := self.get(handle)) is not None]
        return one == other or len(identities) < 2 or identities[0] == identities[1]  # noqa: PLR2004


def _end(offset: int, length: int) -> int:
    """The first byte behind a range; length 0: to the end."""
    return offset + length if length else LOCK_LAST + 1
