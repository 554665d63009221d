"""A session whose requests go by its ring where it has one, else by message. Without sockets, threads or clocks.

It is to its transports what session.py is to the messages: whatever drives it (blocking/link.py, aio/link.py) settles
the requests that the methods return as done. Protected by the link's lock, or by the event loop.

A session that continues with another engine uses that engine's ring only once the engine accepts new requests (GO):
replayed requests go by message.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from aiod_client.records import Counters
from aiod_client.requests.pending import Request
from aiod_client.ring.direct import LOST, memory_of
from aiod_client.ring.paths import RingPaths
from aiod_client.ring.transport import RingTransport
from aiod_client.session.open_files import OpenFile
from aiod_client.session.session import Session
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod_client._ring import Pending as RingPending
    from aiod_client._ring import Ring
    from aiod_client.requests.pending import Call, Pending
    from aiod_client.session.handshake import Welcome


class NotedHandle(NamedTuple):
    """A handle that has to be closed."""

    handle: int
    opened: OpenFile | None
    pauses: int


class RoutedSession:
    """A session and its ring. The base of both clients' Links."""

    def __init__(
        self, welcome: Welcome, now_s: float, ring: Ring | None, *, resumable: bool, watches_deadlines: bool
    ) -> None:
        """The session of `welcome` with its `ring`; with `resumable` the loss of the connection suspends it.

        `watches_deadlines`: tick() of the session fails a submitted request when its deadline has passed.
        """
        self.session = Session(welcome, now_s)
        self.session.resumable = resumable
        self.ring = ring
        """The ring that File uses at every read; None: there is none, or not now."""
        self.transport = None if ring is None else RingTransport(ring, self.session)
        self.paths = None if ring is None else RingPaths(ring)
        """Requests on paths by that ring."""
        self._next_ring: Ring | None = None  # the new engine's ring, until that engine accepts new requests
        self._watches_deadlines = watches_deadlines
        self._done_by_rings = 0  # by those of earlier engines

    @property
    def ended(self) -> OSError | None:
        """Why the session ended, or None."""
        return self.session.ended

    @property
    def pending(self) -> int:
        """Requests and calls not done, by whichever transport."""
        return self.session.pending + (0 if self.transport is None else self.transport.pending)

    @property
    def is_connected(self) -> bool:
        """Whether the session has not ended, and does not look for another engine."""
        return self.session.ended is None and self.session.suspended is None

    @property
    def counters(self) -> Counters:
        """What was done so far."""
        ring, session = self.ring, self.session
        done = self._done_by_rings + (ring.done_count if ring is not None else 0)
        return Counters(done, session.in_flight.cookie, session.retries, session.pauses, session.failovers)

    @property
    def request_bytes_max(self) -> int:
        """The most bytes of a request that cannot be split."""
        return self.session.request_bytes_max

    def why_lost(self, request: Request) -> OSError | None:
        """Why a file of `request` could not be opened again at this engine; None: it could."""
        return self.session.files.why_lost(request)

    def opened(self, handle: int) -> OpenFile:
        """What is known of an open file."""
        return self.session.files[handle]

    def noted(self, handle: int, opened: OpenFile | None = None) -> NotedHandle:
        """Note `handle`, of the file `opened`, to close it later. Another engine gives the same numbers again."""
        return NotedHandle(handle, opened or self.session.files.get(handle), self.session.pauses)

    def is_open(self, noted: NotedHandle) -> bool:
        """Whether the handle is still that of the same file. One that is no file's ends with its engine."""
        if noted.opened is None:
            return noted.pauses == self.session.pauses
        return self.session.files.get(noted.handle) is noted.opened

    def add_opened(
        self, paths: RingPaths, handle: int, arguments: tuple[str, str, int, int], identity: tuple[int, ...]
    ) -> bool:
        """Add a file that the ring of `paths` has opened. False: that ring has gone, and its handles with it."""
        session = self.session
        if self.paths is not paths or session.suspended is not None or session.ended is not None:
            return False
        export, path, flags, _ = arguments
        session.files[handle] = OpenFile(export, path, flags, identity, paths.origins.get(export, b""), by_ring=True)
        return True

    def may_close_by_ring(self, handle: int) -> bool:
        """Whether the ring can be asked to close a file that it has opened.

        Not while requests on it wait for room in the ring, or go by message, since CLOSE_FILE would overtake them.
        """
        return self.transport is not None and not self.transport.uses(handle) and not self.session.uses(handle)

    def closed_by_ring(self, handle: int) -> None:
        """The ring has closed the file."""
        self.session.files.closed(handle)
        if self.transport is not None:
            self.transport.names.pop(handle, None)

    def name_handle(self, handle: int, name: str) -> None:
        """Set the file's name in error messages."""
        if self.transport is not None:
            self.transport.names[handle] = name

    def buffer(self, nbytes: int) -> memoryview:
        """See Client.buffer()."""
        return memory_of(self.ring, nbytes)

    # ---- requests ---------------------------------------------------------------------------------------------------

    def move_overflow(self) -> bool:
        """Queue what the ring has no room for to go by message. Returns whether there was something."""
        if self.transport is None:
            return False
        overflow = self.transport.take_overflow()
        for request in overflow:
            self.session.add(request)
            if self._watches_deadlines and request.deadline_s != math.inf:
                self.session.watch_deadline(request)
        return bool(overflow)

    def waits_for_ring(self, call: Call, send: Callable[[], None]) -> bool:
        """Have `send` called when the ring has nothing in flight on the handle of `call`, a CLOSE or UNLOCK.

        False: it has nothing now.
        """
        if self.transport is None:
            return False
        waits = self.transport.after(call.handle, send)
        if call.kind == MessageType.CLOSE:
            self.transport.names.pop(call.handle, None)
        return waits

    def in_ring(self, request: Request) -> RingPending | None:
        """What the ring has in flight of `request`."""
        return self.transport.pending_of(request) if self.transport is not None and request.by_ring else None

    def give_up(self, pending: Request | Call, error: BaseException) -> bool:
        """Fail `pending` with `error`, unless it is done, and cancel it; returns whether it had been sent."""
        if self.transport is not None and isinstance(pending, Request) and pending.by_ring:
            return self.transport.abandon(pending, error)
        return self.session.abandon(pending, error)

    # ---- the end of the ring, and another engine --------------------------------------------------------------------

    def lose_ring(self) -> list[Pending]:
        """The ring has ended, and so the connection: suspend or end the session. Returns what is done by that."""
        if self.transport is not None:
            self.session.take_notice(self.transport.shutdown_notice)
        return self.session.interrupt(str(LOST.strerror))

    def take_back_from_ring(self) -> list[Pending]:
        """The session is suspended: what the ring had waits with the rest. Returns what is done by that."""
        transport, self.transport, self.ring, self._next_ring = self.transport, None, None, None
        self.paths = None
        if transport is None:
            return []
        self._done_by_rings += transport.ring.done_count
        finished, requests = transport.give_back()
        return finished + self.session.take_back(requests)

    def resume(
        self, welcome: Welcome, ring: Ring | None, lost: dict[int, OSError], now_s: float, *, moved: bool
    ) -> list[Pending]:
        """Continue with the engine that said `welcome`; `lost`: handles it could not open again, and why.

        Its `ring` is used once the engine accepts new requests. `moved`: it is another daemon's. Returns what has
        failed by that.
        """
        self._next_ring = ring
        return self.session.resume(welcome, now_s, lost, moved=moved)

    def use_next_ring(self) -> Ring | None:
        """Use the new engine's ring, if there is one and the engine accepts new requests: the ring."""
        if self._next_ring is None or not self.session.sends_new:
            return None
        ring, self._next_ring = self._next_ring, None
        self.transport = RingTransport(ring, self.session)
        self.transport.names = {handle: f"{file.export}/{file.path}" for handle, file in self.session.files.items()}
        self.ring = ring
        self.paths = RingPaths(ring)
        return ring
