"""What waits to be sent to the engine. Protected by whatever protects the session.

Three queues, since after a reconnection the engine accepts replayed requests first and new ones only after GO:

- `new`: first come, first served, but that a request in parts goes to the end after each part, so that it does not
  starve the others.
- `replays`: changes of a file that an engine before has not answered. They go before anything new.
- `postponed`: what a daemon that is stopping has refused. It waits for the next daemon.

A signal's handler may raise in the midst of a method: so each method leaves a request in two queues rather than in
none.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiod_client.requests.pending import Call, Pending, Request

_NOTHING: Final[deque[Request | Call]] = deque(maxlen=0)
_IN_ORDER: Final = frozenset({MessageType.CLOSE, MessageType.LOCK, MessageType.UNLOCK})


class Backlog:
    """The queues of one session."""

    def __init__(self) -> None:
        self.new: deque[Request | Call] = deque()
        self.replays: deque[Request | Call] = deque()
        self.postponed: list[Request | Call] = []
        self.queue = self.new
        """The queue that is sent from: `new`, `replays`, or an empty one until the engine says GO."""
        self.splits: set[Request] = set()
        """Requests that have parts still to be sent."""

    def unsent(self) -> list[Request | Call]:
        """Everything that waits."""
        return [*self.new, *self.replays, *self.postponed]

    def clear(self) -> None:
        """Drop everything."""
        self.new.clear()
        self.replays.clear()
        self.postponed.clear()
        self.splits.clear()

    def add_call(self, call: Call) -> None:
        """Queue a call before the requests; a CLOSE behind them, and LOCK and UNLOCK, whose order matters."""
        (self.new.append if call.kind in _IN_ORDER else self.new.appendleft)(call)

    def must_wait(self, call: Call) -> bool:
        """Whether a CLOSE waits for parts of its handle that are not sent yet, which may stand behind it."""
        # A handle is never 0.
        return call.kind == MessageType.CLOSE and any(call.handle in (part.handle, part.source) for part in self.splits)

    def drop(self, pending: Pending) -> None:
        """Take `pending` out."""
        for queue in (self.new, self.replays):
            with contextlib.suppress(ValueError):  # its link may not have added it yet
                queue.remove(pending)  # type: ignore[arg-type]

    def drop_all(self, pendings: set[Request | Call]) -> None:
        """Take all of `pendings` out."""
        for queue in (self.new, self.replays):
            kept = [pending for pending in queue if pending not in pendings]
            queue.clear()
            queue.extend(kept)

    def drop_parts(self, request: Request) -> None:
        """Send no further part of `request`."""
        if request in self.splits:
            self.splits.discard(request)
            self.drop(request)

    def part_sent(self, request: Request, *, last: bool) -> None:
        """A part of the request at the head of the queue was sent."""
        if last:
            self.splits.discard(request)
            self.queue.popleft()
        else:
            self.queue.rotate(-1)

    # ---- after the engine has gone ----------------------------------------------------------------------------------

    def put_first(self, requests: Iterable[Request | Call]) -> None:
        """Queue `requests`, in their order, before everything new."""
        self.new.extendleft(reversed(list(requests)))

    def send_replays_first(self) -> None:
        """The engine accepts replays only."""
        self.queue = self.replays

    def send_all(self) -> None:
        """The engine accepts everything at once: the replays go first."""
        self.put_first(self.replays)
        self.replays.clear()
        self.queue = self.new

    def hold(self) -> None:
        """Send nothing until the engine says GO."""
        self.queue = _NOTHING

    def go(self) -> None:
        """The engine has said GO."""
        self.queue = self.new
