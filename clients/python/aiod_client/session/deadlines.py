"""Deadlines of the requests that no thread may be waiting for. Protected by whatever protects the session."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Final

from aiod_client.requests.pending import GRACE_S

if TYPE_CHECKING:
    from aiod_client.requests.pending import Request

_KEPT: Final = 64
"""Entries of requests that are done are dropped when there are more than this, and than those of others."""


class Deadlines:
    """A heap of requests by deadline (monotonic seconds)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []

    def watch(self, request: Request, pending: int) -> None:
        """Add `request`; `pending` is how many requests the session has that are not done."""
        if len(self._heap) > 2 * pending + _KEPT:
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (request.deadline_s, id(request), request))

    def next_s(self) -> float:
        """When take_late() has something to do next."""
        return self._heap[0][0] if self._heap else math.inf

    def take_late(self, now_s: float) -> Request | None:
        """A request that is to be given up now. One that was sent is given GRACE_S more; None: there is no further."""
        while self._heap and self._heap[0][0] <= now_s:
            due_s, number, request = heapq.heappop(self._heap)
            if request.done:
                continue
            if request.sent and due_s < request.deadline_s + GRACE_S:
                heapq.heappush(self._heap, (request.deadline_s + GRACE_S, number, request))
                continue
            return request
        return None
