"""What one user has in this engine, over all sessions, and may have ([users.NAME]). Main loop thread only.

Nothing is counted twice: what a user has is asked of the sessions, so that no way out of one can leave a count behind.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from aiod._core import Rate
from aiod.engine.errors import refused
from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from aiod._core import Session as CoreSession
    from aiod.engine_api.settings import UserLimits

_BYTES_MIN: Final = 64 * 1024
"""Less is of no use to a session."""


class SessionUsage(Protocol):
    """What one session takes of its user's quota (engine/session.py)."""

    @property
    def core(self) -> CoreSession:
        """The core's part of the session, which counts its open handles."""

    @property
    def depth_max(self) -> int:
        """Requests promised to it as credit."""

    @property
    def bytes_max(self) -> int:
        """Bytes promised to it as credit."""

    @property
    def opens_inflight(self) -> int:
        """Opens that have not been answered."""

    @property
    def ring_entries(self) -> int:
        """Entries of its ring; 0: it has none."""

    @property
    def ring_bytes(self) -> int:
        """Bytes of its ring; 0: it has none."""


@dataclass(slots=True, eq=False)
class Account:
    """One user, or one key without a user. A limit of 0 is none."""

    who: str
    """As Peer.who has it."""
    limits: UserLimits
    sessions: set[SessionUsage] = field(default_factory=set)
    rate: Rate = field(default_factory=Rate)
    """Of all its requests; limits.rate says how much that is (Rates.follow)."""
    _messages_left: float = 0.0
    _counted_s: float = 0.0

    def grant(self, depth: int, nbytes: int) -> tuple[int, int]:
        """The credit, requests and bytes, of one more session that asks for so much: what is left of the user's.

        Raises OSError EAGAIN or EDQUOT when there is nothing left.
        """
        limits = self.limits
        if limits.sessions_max and len(self.sessions) >= limits.sessions_max:
            raise refused(
                errno.EAGAIN, f"{self.who} has {limits.sessions_max} sessions already; end one first", Reason.LIMIT
            )
        requests = sum(session.depth_max + session.ring_entries for session in self.sessions)
        promised = sum(session.bytes_max for session in self.sessions)
        return (
            _left("requests", depth, limits.requests_max, requests, 1),
            _left("bytes", nbytes, limits.bytes_max, promised, _BYTES_MIN),
        )

    def check_handle(self, what: str) -> None:
        """Raise OSError EMFILE when the user may have no more files open."""
        limit = self.limits.handles_max
        if limit and sum(s.core.handles + s.opens_inflight for s in self.sessions) >= limit:
            raise refused(errno.EMFILE, f"{what}: {self.who} has {limit} handles; close some", Reason.LIMIT)

    def check_ring(self, entries: int, nbytes: int) -> None:
        """Raise OSError EAGAIN or EDQUOT when the user may have no such ring."""
        limits = self.limits
        rings = [session for session in self.sessions if session.ring_bytes]
        if limits.rings_max and len(rings) >= limits.rings_max:
            raise refused(errno.EAGAIN, f"{self.who} has {limits.rings_max} rings already", Reason.LIMIT)
        if limits.ring_bytes_max and sum(s.ring_bytes for s in rings) + nbytes > limits.ring_bytes_max:
            raise refused(
                errno.EDQUOT, f"a ring of {nbytes} bytes: {self.who} may have {limits.ring_bytes_max}", Reason.LIMIT
            )
        promised = sum(s.depth_max + s.ring_entries for s in self.sessions)
        if limits.requests_max and promised + entries > limits.requests_max:
            raise refused(
                errno.EDQUOT, f"a ring of {entries} entries: {self.who} may have {limits.requests_max}", Reason.LIMIT
            )

    def too_many_messages(self) -> bool:
        """Whether this message is one more than the user may send in a second: a token bucket of one second's."""
        limit = self.limits.messages_per_second_max
        if not limit:
            return False
        now_s = time.monotonic()
        self._messages_left = min(limit, self._messages_left + (now_s - self._counted_s) * limit) - 1
        self._counted_s = now_s
        return self._messages_left < 0


def _left(what: str, wanted: int, limit: int, promised: int, least: int) -> int:
    """What can be promised still."""
    if not limit:
        return wanted
    if limit - promised < least:
        sentence = f"of {limit} {what} in flight that this user may have, {promised} are promised to its other sessions"
        raise refused(errno.EDQUOT, sentence, Reason.LIMIT)
    return min(wanted, limit - promised)
