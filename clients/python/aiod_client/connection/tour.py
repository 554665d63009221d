"""In which order a session that has lost its engine asks the daemons, and how long it waits before it asks the next.

The daemon of the lost engine comes first, if it answers: where only an engine has died, the next one is there in a
moment, and has what the session left (docs/architecture/processes.md). After `host_timeout`, and at once if nothing
listens there, if the daemon was silent, or if it stops in order, the others are asked. The clients of a daemon that has
gone do not come to the next one all at the same moment: each waits for a time of its own, and longer after each round.

No sockets and no clocks: the driver passes the time.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from aiod_client.session.reconnection import RETRY_S

if TYPE_CHECKING:
    from aiod_client.connection.hosts import Hosts

JITTER_S: Final = 0.1
"""The first other daemon is asked after up to this time."""

RETRY_MAX_S: Final = 1.0
"""The longest time between two rounds, on average."""

_random: Final = random.SystemRandom()


class Tour:
    """The way of one search over the hosts. Times are monotonic seconds."""

    def __init__(self, hosts: Hosts, left: str, now_s: float, *, leaves: bool) -> None:
        """From the daemon `left` on, or from another if the session `leaves` it."""
        others = [front for front in hosts.candidates(left) if front != left]
        gone = leaves or hosts.current != left  # another session of the client has moved already
        self._order = [*others, left] if gone else [left, *others]
        self._left = left
        self._stay_until_s = now_s if gone else now_s + hosts.timeout_s
        self._first_patience_s = hosts.patience_s
        self._at = self._round = 0

    @property
    def front(self) -> str:
        """The daemon to ask."""
        return self._order[self._at]

    @property
    def patience_s(self) -> float | None:
        """How long to wait for each of its answers."""
        return None if self._first_patience_s is None else self._first_patience_s * (1 << min(self._round, 4))

    def failed(self, now_s: float, *, answers: bool) -> float:
        """Go on; `answers`: the daemon answers, but has no engine. Returns the seconds to wait before asking again."""
        if answers and self._round == 0 and self.front == self._left and now_s < self._stay_until_s:
            return RETRY_S
        self._at += 1
        if self._at < len(self._order):
            return _random.uniform(0.0, JITTER_S) if (self._round, self._at) == (0, 1) else 0.0
        self._at = 0
        self._round += 1
        return min(RETRY_S * (1 << min(self._round, 8)), RETRY_MAX_S) * _random.uniform(0.5, 1.5)
