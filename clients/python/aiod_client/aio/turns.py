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
        self.several = False
        """Whether several tasks have requests, as far as can be told: one alone can only poll for its own."""

    def take_now(self, nbytes: int, most: int) -> bool:
        """Take room of `nbytes`, if `most` bytes are the whole. False: take() waits for it."""
        free = not self._taken
        if not free and (self._waiting or self._taken + nbytes > most):
            return False
        self.several = self.several or not free
        self._taken += nbytes
        return True

    async def take(self, nbytes: int, most: int) -> None:
        """Wait for room of `nbytes`, if `most` bytes are the whole."""
        if self.take_now(nbytes, most):
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

    def has_waited(self, nbytes: int) -> None:
        """A task has waited for its request, and still has its `nbytes`: note whether others have some, too."""
        self.several = self._taken > nbytes

    def is_pause_due(self) -> bool:
        """Whether to pause() after a request that was done at once."""
        self._at_once += 1
        return self._at_once % _AT_ONCE_MAX == 0

    async def pause(self, nbytes: int) -> None:
        """Let other tasks run, after a request whose `nbytes` the task still has. They pause with theirs, too."""
        await asyncio.sleep(0)
        self.has_waited(nbytes)
