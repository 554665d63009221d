"""The turns of requests on paths: they share the ring's buffer area, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

_AT_ONCE_MAX: Final = 64
"""After so many requests that were done at once other tasks have their turn."""


class Turns:
    """Lets requests take the ring's room in the order of asking."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._taken = 0
        self._at_once = 0

    async def take(self, nbytes: int, most: int) -> None:
        """Wait for room of `nbytes`, if `most` bytes are the whole."""
        if (self._taken + nbytes <= most and not self._waiting) or not self._taken:
            self._taken += nbytes
            return
        turn = nbytes, asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn[1]
        except asyncio.CancelledError:
            if turn[1].done() and not turn[1].cancelled():
                self.give(nbytes, most)
            else:
                self._waiting.remove(turn)
            raise

    def give(self, nbytes: int, most: int) -> None:
        """Give room back, and pass it on."""
        self._taken -= nbytes
        while self._waiting and (self._taken + self._waiting[0][0] <= most or not self._taken):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._taken += wanted
                turn.set_result(None)

    async def pause(self) -> None:
        """Let other tasks run now and then, after a request that was done at once."""
        self._at_once += 1
        if self._at_once % _AT_ONCE_MAX == 0:
            await asyncio.sleep(0)
