"""Giving up what has no answer in time, by one timer of the loop: one each is a fifth of a small request's cost."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aiod_client.requests.pending import Call, Request

_KEPT: Final = 64
"""What is done is dropped when there are more entries than this, and twice as many as were not done the last time."""


class Expiries:
    """What is to be given up, and when. Belongs to one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Request | Call, float, str], None]) -> None:
        """`expire` is called with what add() was given, of what is not done by then."""
        self._loop = loop
        self._expire = expire
        self._heap: list[tuple[float, int, Request | Call, float, str]] = []
        self._numbers = itertools.count()
        self._prune_at = _KEPT
        self._timer: asyncio.TimerHandle | None = None
        self._armed_s = 0.0

    def add(self, pending: Request | Call, timeout_s: float, what: str) -> None:
        """Expire `pending` in `timeout_s` seconds, unless it is done; `what` names it for people."""
        if len(self._heap) > self._prune_at:
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)
            self._prune_at = max(_KEPT, 2 * len(self._heap))
        due_s = self._loop.time() + timeout_s
        heapq.heappush(self._heap, (due_s, next(self._numbers), pending, timeout_s, what))
        if self._timer is None or due_s < self._armed_s:
            self._arm()

    def stop(self) -> None:
        """Expire nothing any more."""
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
