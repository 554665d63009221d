"""When a HEARTBEAT is due, and when the daemon has been silent for too long. The caller passes the time.

Other messages may be sent all the time and never be answered (a CANCEL, a read of a disk that hangs) though the daemon
lives. A HEARTBEAT is always answered: only silence after a HEARTBEAT counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiod_client.session.handshake import Welcome


class Heartbeat:
    """The heartbeats of one session. Times are monotonic seconds."""

    def __init__(self, welcome: Welcome, now_s: float) -> None:
        self.restart(welcome, now_s)

    def restart(self, welcome: Welcome, now_s: float) -> None:
        """Begin with the intervals that an engine grants in `welcome`."""
        self._interval_s = welcome.heartbeat_s
        self._silence_max_s = welcome.session_timeout_s
        self.last_sent_s = now_s
        self.silent_since_s: float | None = None
        """When the oldest message was sent after which nothing has come; None: something has come since the last."""
        self._asked_s = -math.inf  # when the last HEARTBEAT was sent

    def sent(self, now_s: float) -> None:
        """Note that messages are sent."""
        self.last_sent_s = now_s
        if self.silent_since_s is None:
            self.silent_since_s = now_s

    def due_s(self) -> float:
        """When the next HEARTBEAT is due."""
        since_s = self.last_sent_s
        if self.silent_since_s is not None:
            since_s = min(since_s, max(self.silent_since_s, self._asked_s))
        return since_s + self._interval_s

    def silence_s(self, now_s: float) -> float:
        """How long the daemon has been silent, if that is too long; else 0. A HEARTBEAT is due."""
        since_s = self.silent_since_s
        if since_s is None or self._asked_s < since_s or now_s - since_s <= self._silence_max_s:
            return 0.0
        return now_s - since_s

    def ask(self, now_s: float) -> None:
        """Note that a HEARTBEAT is sent."""
        if self.silent_since_s is None:
            self.silent_since_s = now_s
        self._asked_s = now_s
