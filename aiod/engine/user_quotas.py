"""Limits of one user over all its sessions in this engine ([users.NAME]). Main loop thread only.

There are no counters of usage here: it is summed over the sessions, so the end of a session cannot leave a wrong count.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod._core import Rate
from aiod.engine.errors import refused
from aiod.engine_api.settings import OTHER_USERS, UserLimits
from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiod._core import Core
    from aiod._core import Session as CoreSession

_BYTES_MIN: Final = 64 * 1024
"""The least credit that a session is granted."""


class SessionUsage(Protocol):
    """What one session uses of its user's quota (session.py)."""

    @property
    def core(self) -> CoreSession:
        """The core's part of the session, which counts its open handles."""

    @property
    def depth_max(self) -> int:
        """Requests granted to it as credit."""

    @property
    def bytes_max(self) -> int:
        """Bytes granted to it as credit."""

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
class UserQuota:
    """The quota of one user, or of a key without a user. A limit of 0 means no limit."""

    principal: str
    """Peer.principal of its sessions."""
    limits: UserLimits
    shown_uid: int = OTHER_USERS
    """Of a user that the configuration names."""
    sessions: set[SessionUsage] = field(default_factory=set)
    rate: Rate = field(default_factory=Rate)
    """Rate of all its requests; limited by limits.rate."""
    _messages_left: float = 0.0
    _counted_s: float = 0.0

    def grant(self, depth: int, nbytes: int) -> tuple[int, int]:
        """The credit of a new session that asks for `depth` requests and `nbytes` bytes: at most what is left.

        Raises OSError EAGAIN or EDQUOT when nothing is left.
        """
        limits = self.limits
        if limits.sessions_max and len(self.sessions) >= limits.sessions_max:
            raise refused(
                errno.EAGAIN,
                f"{self.principal} has {limits.sessions_max} sessions already; end one first",
                Reason.LIMIT,
            )
        requests = sum(session.depth_max + session.ring_entries for session in self.sessions)
        granted = sum(session.bytes_max for session in self.sessions)
        return (
            _left("requests", depth, limits.requests_max, requests, 1),
            _left("bytes", nbytes, limits.bytes_max, granted, _BYTES_MIN),
        )

    def check_handle(self, what: str) -> None:
        """Raise OSError EMFILE when the user may not open another file."""
        limit = self.limits.handles_max
        if self.handles_left(1) < 1:
            raise refused(errno.EMFILE, f"{what}: {self.principal} has {limit} handles; close some", Reason.LIMIT)

    def handles_left(self, enough: int) -> int:
        """How many files the user may open; `enough` without a limit. Numbers lent to rings count as open files."""
        limit = self.limits.handles_max
        if not limit:
            return enough
        return limit - sum(s.core.handles + s.core.lent + s.opens_inflight for s in self.sessions)

    def check_ring(self, entries: int, nbytes: int) -> None:
        """Raise OSError EAGAIN or EDQUOT when the user may not have a ring of this size."""
        limits = self.limits
        rings = [session for session in self.sessions if session.ring_bytes]
        if limits.rings_max and len(rings) >= limits.rings_max:
            raise refused(errno.EAGAIN, f"{self.principal} has {limits.rings_max} rings already", Reason.LIMIT)
        if limits.ring_bytes_max and sum(s.ring_bytes for s in rings) + nbytes > limits.ring_bytes_max:
            raise refused(
                errno.EDQUOT,
                f"a ring of {nbytes} bytes: {self.principal} may have {limits.ring_bytes_max}",
                Reason.LIMIT,
            )
        granted = sum(s.depth_max + s.ring_entries for s in self.sessions)
        if limits.requests_max and granted + entries > limits.requests_max:
            raise refused(
                errno.EDQUOT,
                f"a ring of {entries} entries: {self.principal} may have {limits.requests_max}",
                Reason.LIMIT,
            )

    def too_many_messages(self) -> bool:
        """Count a message; whether it exceeds messages_per_second_max (a token bucket of one second)."""
        limit = self.limits.messages_per_second_max
        if not limit:
            return False
        now_s = time.monotonic()
        self._messages_left = min(limit, self._messages_left + (now_s - self._counted_s) * limit) - 1
        self._counted_s = now_s
        return self._messages_left < 0


class ThrottledUsers:
    """How long the rates of users have held requests back, by the uids that the configuration names."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ended_s: dict[int, float] = {}  # of quotas that ended, with the last session of their user

    def end(self, quota: UserQuota) -> None:
        """Keep the time of a quota that ends."""
        throttled_s = self._core.throttling(quota.rate)["throttled_s"]
        if throttled_s:
            self._ended_s[quota.shown_uid] = self._ended_s.get(quota.shown_uid, 0.0) + throttled_s

    def shown(self, quotas: Iterable[UserQuota]) -> list[dict[str, Any]]:
        """For each uid (OTHER_USERS: the sum of all others): throttled_s, and waiting (sessions that wait now)."""
        result = {uid: {"uid": uid, "throttled_s": seconds, "waiting": 0} for uid, seconds in self._ended_s.items()}
        for quota in quotas:
            now = self._core.throttling(quota.rate)
            if now["throttled_s"]:
                shown = result.setdefault(quota.shown_uid, {"uid": quota.shown_uid, "throttled_s": 0.0, "waiting": 0})
                shown["throttled_s"] += now["throttled_s"]
                shown["waiting"] += now["waiting"]
        return list(result.values())


def _left(what: str, wanted: int, limit: int, granted: int, least: int) -> int:
    """The part of `wanted` that can still be granted."""
    if not limit:
        return wanted
    if limit - granted < least:
        text = f"this user may have {limit} {what} in flight, and {granted} are granted to its other sessions"
        raise refused(errno.EDQUOT, text, Reason.LIMIT)
    return min(wanted, limit - granted)
