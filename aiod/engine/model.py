"""What the engine's stages hand to each other: a session, a request to open, one about a name, and how to answer.

Data only. Everything here belongs to the main loop's thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from aiod.util import logs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiod._core import Session as CoreSession
    from aiod.engine.user_quotas import Account
    from aiod.engine_api.settings import ExportSettings
    from aiod.net.peer import Peer
    from aiod.net.router import Router
    from aiod_client import wire

TOKEN_BYTES = 16

Identity = tuple[int, int, list[int]]
"""uid, gid, groups."""

Connection = tuple["Router | None", bytes]
"""One of ZeroMQ's: routing ids are unique within their router only."""


def connection_of(peer: Peer) -> Connection:
    """The one that `peer` has sent by."""
    return peer.router, peer.routing_id


def short_id_of(token: bytes) -> str:
    """What logs and `aiodctl clients` call the session of `token`."""
    return token[:4].hex()


class RingConnection(Protocol):
    """A connection to the ring socket."""

    def close(self) -> None:
        """End it."""

    def reply(self, cookie: int, result: int, text: str | None, file: Iterable[int] | None = None) -> None:
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


class SessionBook(Protocol):
    """The sessions, as the ring socket needs them (engine/sessions.py)."""

    def by_ticket(self, ticket: bytes) -> Session | None:
        """The session that may attach a ring with `ticket`, which is used up by that."""

    def begin_by_socket(self, peer: Peer, gids: frozenset[int], software: str) -> Session:
        """A new session, or OSError."""

    def end(self, session: Session, reason: str = "") -> None:
        """End it."""


@dataclass(slots=True, frozen=True)
class Opening:
    """An OPEN that admission let pass."""

    export: ExportSettings
    path: str
    flags: wire.OpenFlag
    mode: int
    name: str
    """"export/path", shortened for sentences."""
    as_client: Identity | None
    """Who the kernel is to think opens it; None: the daemon."""
    export_name: str


@dataclass(slots=True, frozen=True)
class Reopening:
    """A REOPEN: what the client had open with an engine before this one."""

    export: str
    path: str
    flags: int
    dev: int
    ino: int
    generation: int
    """Of the file; core/path/file_id.h."""
    changed: bool
    """There were acknowledged writes that no flush was acknowledged for."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Naming:
    """A NAME that admission let pass."""

    verb: int
    """One of _core.VERB_*."""
    root: str
    links: bool
    """Symbolic links are followed within the root."""
    as_client: Identity | None
    """Who the kernel is to think does it; None: the daemon."""
    path: str
    to: str
    cursor: int
    mode: int
    replace: bool
    what: str
    """"rename export/path to export/to", shortened for sentences."""


class Reply(Protocol):
    """Answers a message that has a cookie."""

    def __call__(
        self, session: Session, cookie: int, result: int, sentence: str | None = None, body: Any = None
    ) -> None:
        """Send REPLY."""


def object_name(export: str, path: str, chars_max: int = 120) -> str:
    """`export`/`path` for a sentence, its middle left out when it is longer than `chars_max`."""
    name = f"{export}/{path}" if path else export
    if len(name) <= chars_max:
        return name
    half = (chars_max - 3) // 2
    return f"{name[:half]}...{name[-half:]}"
