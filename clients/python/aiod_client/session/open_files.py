"""A session's open files, and what has been changed in them: what another engine has to be told of them.

Protected by whatever protects the session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiod_client.requests.pending import Call
from aiod_protocol.operations import Op, OpFlag, changes_file, may_repeat

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
    """Device, inode and generation, as the engine says; (): it does not."""
    epoch: int = 0
    """How many flushes have been submitted."""
    dirty: set[int] = field(default_factory=set)
    """Epochs with acknowledged changes that no acknowledged flush covers; a set, since File adds without a lock."""
    settled: bool = False
    """The engine has said, as its last word, that all of them are on disk."""

    @property
    def changed(self) -> bool:
        """Whether there are acknowledged changes that no flush is known to cover."""
        return bool(self.dirty) and not self.settled


class OpenFiles(dict[int, OpenFile]):
    """By handle."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: dict[int, OSError] = {}
        """Those that could not be opened again, and why."""

    def opened(self, handle: int, arguments: tuple[Any, ...], body: Any) -> None:
        """An OPEN with `arguments` was answered."""
        export, path, flags, _ = arguments
        identity = body.get("file") if isinstance(body, dict) else None
        self[handle] = OpenFile(export, path, flags, tuple(identity) if isinstance(identity, list) else ())

    def settle(self, handles: Iterable[int]) -> None:
        """An engine that stops has flushed these: whatever it has acknowledged, also what is heard of later."""
        for file in map(self.get, handles):
            if file is not None:
                file.settled = True

    def resumed(self) -> None:
        """From now on another engine acknowledges."""
        for file in self.values():
            if file.settled:
                file.dirty.clear()
                file.settled = False

    def closed(self, handle: int) -> bool:
        """A CLOSE was answered. Returns whether the file was lost, so that there was nothing to close."""
        self.pop(handle, None)
        return self.lost.pop(handle, None) is not None

    def why_lost(self, pending: Request | Call) -> OSError | None:
        """Why a file that `pending` needs could not be opened again; None: it needs none that was lost."""
        if isinstance(pending, Call):
            return None  # a lost file may be closed
        return self.lost.get(pending.handle) or self.lost.get(pending.source)

    def begin_flush(self, request: Request) -> None:
        """A FLUSH is submitted: it covers what has been acknowledged by now."""
        file = self.get(request.handle)
        if file is not None:
            request.covers = file.epoch
            file.epoch += 1

    def completed(self, request: Request) -> None:
        """A request other than a READ was answered."""
        file = self.get(request.handle)
        if file is None:
            return
        if changes_file(request.op):
            if request.error is not None or not request.flags & _FUA:
                file.dirty.add(file.epoch)
        elif request.op == _FLUSH and request.error is None:
            file.dirty.difference_update([epoch for epoch in file.dirty.copy() if epoch <= request.covers])

    def may_repeat(self, request: Request) -> bool:
        """Whether a request that was sent may be sent again, though it may have been done."""
        if not may_repeat(request.op):
            return False
        return not request.source or not self._is_one_file(request.source, request.handle)

    def _is_one_file(self, one: int, other: int) -> bool:
        identities = [file.identity for handle in (one, other) if (file := self.get(handle)) is not None]
        return one == other or len(identities) < 2 or identities[0] == identities[1]  # noqa: PLR2004
