"""One client's session with this engine: data only, which the stages share. Main loop thread only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from aiod.util import logs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiod._core import Session as CoreSession
    from aiod.engine.user_quotas import UserQuota
    from aiod.net.peer import Connection, Peer

TOKEN_BYTES: Final = 16


def short_id_of(token: bytes) -> str:
    """The session's name in logs and `aiodctl clients`; too short to be used as its token."""
    return token[:4].hex()


class FuseFile(NamedTuple):
    """How to open a file on FUSE again, if its mount dies (lost_mounts.py)."""

    export: str
    path: str
    flags: int
    """READ, WRITE, APPEND and DIRECT as of wire.OpenFlag."""


class RingConnection(Protocol):
    """A connection to the ring socket."""

    def close(self) -> None:
        """Close the connection."""

    def reply(
        self, cookie: int, result: int, text: str | None, *, reason: int, file: Iterable[int] | None = None
    ) -> None:
        """Answer OPEN, REOPEN or CLOSE. `file`: device, inode and generation of the opened file."""

    def go(self) -> None:
        """Send GO."""


@dataclass(slots=True, eq=False)
class Session:
    """One client's session with this engine."""

    token: bytes = field(repr=False)
    peer: Peer
    """Sender of the last valid message; replies go there."""
    software: str
    core: CoreSession
    depth_max: int
    """Credit: requests that have not been acknowledged."""
    bytes_max: int
    """Credit: bytes of their reads and writes."""
    request_bytes_max: int
    """Most bytes of one read or write."""
    quota: UserQuota
    """Quota of its user, shared with the user's other sessions."""
    gids: frozenset[int]
    """Groups of the client."""
    hello_connection: Connection
    """Connection that its HELLO came by."""
    started_s: float
    last_message_s: float
    """Time of its last message."""
    names: dict[int, str] = field(default_factory=dict)
    """Open handle -> "export/path", for error messages."""
    fuse_files: dict[int, FuseFile] = field(default_factory=dict)
    """By handle: the files on FUSE that were opened by message."""
    opens_inflight: int = 0
    directory_requests_inflight: int = 0
    lease_s: float = 0.0
    """After how long a silence its client may have moved to another daemon: then it is ended; 0: it does not move."""
    leased_s: float = 0.0
    """Time of its last message, by the clock of leases."""
    reclaiming: int = 0
    """Files of which it waits to have the locks again: it has reason to be silent."""
    resumed: bool = False
    """It resumes a session of a previous engine, and has not been released yet."""
    ended: bool = False
    ring: RingConnection | None = None
    """Connection of its ring; closed with the session."""
    ring_entries: int = 0
    ring_bytes: int = 0
    """Memory of its ring; 0: it has none."""
    ticket: bytes = field(default=b"", repr=False)
    """Secret that attaches a ring to the session, once; empty: it can have none."""
    by_socket: bool = False
    """It began on the ring socket, so its messages are answered there."""
    resumable: bool = True
    """The descriptors of its files are stored, so that its client can resume it at the next engine."""
    pidfd: int = -1
    flushed: list[int] = field(default_factory=list)
    """At the stop of the daemon: handles whose changes are all on disk."""

    @property
    def short_id(self) -> str:
        """See short_id_of."""
        return short_id_of(self.token)

    @property
    def about(self) -> dict[str, Any]:
        """The `extra` of log records about the session."""
        return logs.about(client=self.short_id)

    def __str__(self) -> str:
        """The session in log lines."""
        return f"session {self.short_id} ({self.peer}, {self.software})"
