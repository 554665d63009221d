"""Timeouts of requests, by one timer of the loop: a timer for each would cost a fifth of a small request."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aiod_client.requests.pending import Call, Request

_KEPT: Final = 64
"""Entries that are done are dropped when there are more than this, and twice as many as were left the last time."""


class Expiries:
    """The requests and calls with a timeout. Belongs to one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Request | Call, float, str], None]) -> None:
        """`expire` is called with the arguments of add() for each that is not done in time."""
        self._loop = loop
        self._expire = expire
        self._heap: list[tuple[float, int, Request | Call, float, str]] = []
        self._numbers = itertools.count()
        self._prune_at = _KEPT
        self._timer: asyncio.TimerHandle | None = None
        self._armed_s = 0.0

    def add(self, pending: Request | Call, timeout_s: float, what: str, elapsed_s: float = 0.0) -> None:
        """Expire `pending` `timeout_s` seconds after it began, `elapsed_s` ago, unless it is done.

        `what` names it in the error message.
        """
        if len(self._heap) > self._prune_at:
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)
            self._prune_at = max(_KEPT, 2 * len(self._heap))
        due_s = self._loop.time() + timeout_s - elapsed_s
        heapq.heappush(self._heap, (due_s, next(self._numbers), pending, timeout_s, what))
        if self._timer is None or due_s < self._armed_s:
            self._arm()

    def stop(self) -> None:
        """Expire nothing from now on."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_s = self._heap[0][0]
        self._timer = self._loop.call_at(self._armed_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now_s = max(self._loop.time(), self._armed_s)
        while self._heap and (self._heap[0][0] <= now_s or self._heap[0][2].done):
            _, _, pending, timeout_s, what = heapq.heappop(self._heap)
            if not pending.done:
                self._expire(pending, timeout_s, what)
        if self._heap and self._timer is None:
            self._arm()
