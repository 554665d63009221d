"""One client's session with this engine: data only, which the stages share. Main loop thread only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod.util import logs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiod._core import Session as CoreSession
    from aiod.engine.user_quotas import Account
    from aiod.net.peer import Connection, Peer

TOKEN_BYTES: Final = 16


def short_id_of(token: bytes) -> str:
    """What logs and `aiodctl clients` call the session of `token`."""
    return token[:4].hex()


class RingConnection(Protocol):
    """A connection to the ring socket."""

    def close(self) -> None:
        """End it."""

    def reply(
        self, cookie: int, result: int, text: str | None, *, reason: int, file: Iterable[int] | None = None
    ) -> None:
        """Answer OPEN or CLOSE. `file`: device, inode, generation of what was opened."""


@dataclass(slots=True, eq=False)
class Session:
    """One client's session with this engine."""

    token: bytes = field(repr=False)
    peer: Peer
    """Who sent the last valid message: replies go there."""
    software: str
    core: CoreSession
    depth_max: int
    """Requests unanswered that it was promised."""
    bytes_max: int
    """And the bytes of their reads and writes."""
    request_bytes_max: int
    """Of one read or write."""
    account: Account
    """What its user has."""
    gids: frozenset[int]
    """Groups of the client."""
    greeted_by: Connection
    """Who said HELLO."""
    started_s: float
    heard_s: float
    names: dict[int, str] = field(default_factory=dict)
    """Open handle -> "export/path", for sentences."""
    opens_inflight: int = 0
    namings_inflight: int = 0
    resumed: bool = False
    """It was another engine's before."""
    ended: bool = False
    ring: RingConnection | None = None
    """The connection of its ring; closed with the session."""
    ring_entries: int = 0
    ring_bytes: int = 0
    """Of its ring; 0: it has none."""
    ticket: bytes = field(default=b"", repr=False)
    """What attaches a ring to it, once; empty: nothing does."""
    by_socket: bool = False
    """Begun on the ring socket, where its opens and closes are answered."""
    pidfd: int = -1
    flushed: list[int] = field(default_factory=list)
    """Handles all of whose changes are on disk, when it is ended by a daemon that stops."""

    @property
    def short_id(self) -> str:
        """What logs and `aiodctl clients` call the session; too short to be used as its token."""
        return short_id_of(self.token)

    @property
    def about(self) -> dict[str, Any]:
        """The `extra` of a record about it."""
        return logs.about(client=self.short_id)

    def __str__(self) -> str:
        """For log lines."""
        return f"session {self.short_id} ({self.peer}, {self.software})"
