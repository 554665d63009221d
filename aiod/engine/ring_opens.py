"""Files that rings open and close by themselves (core/ring/collect.h): numbers are lent, and opened files collected.

A ring opens files for reading in handles whose numbers were lent to it, and the main loop does not hear of it. It
collects what is still open after some milliseconds, or as soon as it needs to know: before a message that names such
a file. Only then is the file's descriptor stored for the next engine. A file that is closed before that has cost the
main loop and the supervisor nothing. If the engine dies earlier, the client opens the file again by its name, and the
next engine compares it: OPEN_FILE refuses files that it could not compare. Nothing has been written to them.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Final, Protocol

from aiod.engine.session import FuseFile
from aiod.engine_api.fd_store_messages import StoredDescriptor
from aiod_protocol.messages import object_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod._core import Core, Rate
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings

_LENT_FIRST: Final = 32
"""Numbers that a ring gets first; twice as many each time that it runs out of them."""
_LENT_MAX: Final = 128
"""The core's limit: AIOD_RING_NUMBERS_MAX."""
_ROOM_MIN: Final = 2 * _LENT_FIRST
"""Numbers are lent while every limit leaves room for so many files, so that limits are mostly reached by message."""


class DescriptorStore(Protocol):
    """Stores descriptors of open files for the next engine (fd_store_client.py)."""

    def store(self, stored: StoredDescriptor, then: Callable[[], None] | None = None) -> None:
        """Store the descriptor, and close it here; call `then` when it is sent."""

    def poisoned(self, dev: int, ino: int) -> None:
        """Note that a flush of a stored file had failed before it was stored."""


class RingOpens:
    """Main loop thread only."""

    def __init__(
        self,
        settings: EngineSettings,
        core: Core,
        fd_store: DescriptorStore,
        rate_of: Callable[[str], Rate],
        descriptors_max: int,
    ) -> None:
        """`rate_of(export)`: the rate of an export. `descriptors_max`: most descriptors for open files."""
        self._settings = settings
        self._core = core
        self._fd_store = fd_store
        self._rate_of = rate_of
        self._descriptors_max = descriptors_max
        self._borrowers: dict[bytes, Session] = {}  # by token: whose rings numbers were lent to
        self._wanted: dict[bytes, int] = {}  # by token: numbers of a ring that has run out of _LENT_FIRST

    def start(self) -> None:
        """Watch the timer that rings arm."""
        asyncio.get_running_loop().add_reader(self._core.collect_fd, self._collect_old)

    def stop(self) -> None:
        """Stop watching the timer."""
        asyncio.get_running_loop().remove_reader(self._core.collect_fd)

    def apply(self, settings: EngineSettings) -> None:
        """Use other limits from now on."""
        self._settings = settings
        self.take_back()

    def collect_all(self) -> None:
        """Register what the rings of all sessions have opened."""
        for session in self._core.sessions_to_collect():
            self._collect(session, everything=True)

    def _collect_old(self) -> None:
        for session in self._core.sessions_to_collect():
            self._collect(session, everything=False)

    def collect(self, session: Session) -> None:
        """Register what the session's ring has opened."""
        if session.core.has_opened:
            self._collect(session, everything=True)

    def _collect(self, session: Session, *, everything: bool) -> None:
        """Register files of the session's ring, and lend it other numbers."""
        opened = self._core.collect_opened(session.core, everything=everything, again=session.resumable)
        for handle, encoded, fd, flags, dev, ino, on_fuse in opened:
            export, _, path = encoded.decode(errors="replace").partition("/")
            session.names[handle] = object_name(export, path)
            if on_fuse:
                session.fuse_files[handle] = FuseFile(export, path, flags)
            if not session.resumable and fd >= 0:
                self._core.close_fd(0, self._rate_of(export), fd)
            if not session.resumable or fd < 0:  # a worker has stored it
                continue
            peer = session.peer
            stored = StoredDescriptor(session.token, handle, fd, peer.principal, peer.pid, export, flags, dev, ino)
            self._fd_store.store(stored, functools.partial(self._stored, session, stored))
        self.lend(session)

    def _stored(self, session: Session, stored: StoredDescriptor) -> None:
        """The supervisor did not know the file before, so that it has ignored the notice that a flush of it failed."""
        if session.core.is_poisoned(stored.handle):
            self._fd_store.poisoned(stored.dev, stored.ino)

    def lend(self, session: Session) -> None:
        """Lend the session's ring as many numbers as it may have, if all limits leave room for more than that."""
        core = session.core
        if session.ended or session.resumed or not core.has_ring:
            return
        wanted = self._wanted.get(session.token, _LENT_FIRST)
        if core.ran_out_of_handles():
            wanted = self._wanted[session.token] = min(2 * wanted, _LENT_MAX)
        if core.lent > wanted // 2:
            return
        limits = self._settings
        room = min(
            limits.handles_max - core.handles - core.lent - session.opens_inflight,
            self._descriptors_max - self._core.descriptors - self._core.lent,
            session.quota.handles_left(2 * _LENT_MAX),
        )
        if room >= _ROOM_MIN and self._core.lend_handles(core, min(wanted - core.lent, room - _LENT_FIRST)):
            self._borrowers[session.token] = session

    def opens_by_message(self, session: Session) -> None:
        """Lend the session's ring more numbers: it may open a file by message because it has used all of them."""
        if session.token in self._borrowers:
            self.lend(session)

    def take_back(self) -> bool:
        """Take back every number that is not in use, since a limit is reached. Whether there were any."""
        sessions = self._borrowers.values()
        self._borrowers = {}
        taken = [self._core.take_back_handles(session.core) for session in sessions]
        return any(taken)

    def ended(self, token: bytes) -> None:
        """The session has ended."""
        self._borrowers.pop(token, None)
        self._wanted.pop(token, None)
