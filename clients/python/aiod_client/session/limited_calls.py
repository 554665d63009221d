"""The OPENs and NAMEs of one session: an engine has so many of each in flight, and refuses more (EAGAIN).

The rest waits here, in order. Protected by whatever protects the session.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from aiod_client.requests.pending import Call, Pending

_LIMITED: Final = (MessageType.OPEN, MessageType.NAME)


class LimitedCalls:
    """Counts what is in flight, and keeps what waits."""

    def __init__(self) -> None:
        self._in_flight: dict[MessageType, int] = {}
        self._waiting: dict[MessageType, deque[Call]] = {}
        self.clear()

    def __len__(self) -> int:
        """The calls that wait."""
        return sum(map(len, self._waiting.values()))

    def clear(self) -> list[Call]:
        """The engine has gone: nothing is in flight. Returns what waits, and forgets it."""
        waiting = self.waiting()
        self._in_flight = dict.fromkeys(_LIMITED, 0)
        self._waiting = {kind: deque() for kind in _LIMITED}
        return waiting

    def waiting(self) -> list[Call]:
        """The calls that wait."""
        return [call for calls in self._waiting.values() for call in calls]

    def holds(self, call: Call, most: int) -> bool:
        """Whether `call` has to wait, since `most` of its kind are in flight; then it is kept."""
        if self._in_flight.get(call.kind, 0) < most:
            return False
        self._waiting[call.kind].append(call)
        return True

    def sent(self, call: Call) -> None:
        """Count `call`."""
        if call.kind in self._in_flight:
            self._in_flight[call.kind] += 1

    def answered(self, call: Call) -> Call | None:
        """Count `call` no more. Returns what may be sent in its place."""
        if call.kind not in self._in_flight:
            return None
        self._in_flight[call.kind] -= 1
        waiting = self._waiting[call.kind]
        return waiting.popleft() if waiting else None

    def drop(self, pending: Pending) -> None:
        """Take `pending` out."""
        for waiting in self._waiting.values():
            with contextlib.suppress(ValueError):
                waiting.remove(pending)  # type: ignore[arg-type]
