"""A session's open files, and which changes of them may not be on disk: REOPEN passes both to the next engine.

Protected by whatever protects the session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiod_client.requests.pending import Call
from aiod_protocol.operations import Op, OpFlag, changes_file, may_repeat
from aiod_protocol.wire import OpenFlag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiod_client.requests.pending import Request

_FLUSH: Final = int(Op.FLUSH)
_FUA: Final = int(OpFlag.FUA)


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
    the file is by_ring: then no descriptor of it may have outlived the engine."""

    def flushed(self, covers: int) -> None:
        """Note that the flush that covers the changes up to epoch `covers` was acknowledged."""
        self.dirty.difference_update([epoch for epoch in self.dirty.copy() if epoch <= covers])
        self.unanswered.difference_update([epoch for epoch in self.unanswered.copy() if epoch <= covers])

    @property
    def changed(self) -> bool:
        """Whether there are acknowledged changes that no flush is known to cover, or a flush without an answer."""
        return bool(self.dirty or (self.by_ring and self.unanswered)) and not self.settled


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
        """The error of a file that `pending` needs and that could not be opened again; None: there is none."""
        if isinstance(pending, Call):
            return None  # a lost file may be closed
        return self.lost.get(pending.handle) or self.lost.get(pending.source)

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

    def _is_one_file(self, one: int, other: int) -> bool:
        identities = [file.identity for handle in (one, other) if (file := self.get(handle)) is not None]
        return one == other or len(identities) < 2 or identities[0] == identities[1]  # noqa: PLR2004
