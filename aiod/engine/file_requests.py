"""Requests about files and names that the engine has checked, as its stages hand them on: data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from aiod.engine.name_verbs import NameVerb
    from aiod.engine.session import Session
    from aiod.engine_api.settings import ExportSettings
    from aiod_protocol import wire

Identity = tuple[int, int, list[int]]
"""uid, gid, groups."""


@dataclass(slots=True, frozen=True)
class OpenRequest:
    """An OPEN that admission has accepted."""

    export: ExportSettings
    path: str
    flags: wire.OpenFlag
    mode: int
    name: str
    """"export/path", shortened for messages."""
    as_client: Identity | None
    """Identity that the kernel checks at the open; None: the daemon's."""
    export_name: str


class LockClaim(NamedTuple):
    """A lock that the client had at an earlier engine."""

    exclusive: bool
    first: int
    last: int
    number: int
    """The result of its LOCK; 0: it cannot be regained."""


@dataclass(slots=True, frozen=True)
class ReopenRequest:
    """A REOPEN: a file that the client had open with a previous engine."""

    export: str
    path: str
    flags: int
    dev: int
    ino: int
    generation: int
    """Generation of the file (core/path/file_id.h)."""
    changed: bool
    """It has acknowledged writes that no acknowledged flush covers."""
    origin: bytes | None = None
    """Where another daemon has opened it (file_origin.py); None: an earlier engine of this daemon has."""
    locks: tuple[LockClaim, ...] = ()
    wait_ms: int = 0
    """How long to wait for the locks."""


@dataclass(slots=True, frozen=True, kw_only=True)
class DirectoryRequest:
    """A NAME that admission has accepted."""

    verb: NameVerb
    export_name: str
    root: str
    links: bool
    """Whether symbolic links are followed within the root."""
    as_client: Identity | None
    """Identity that the kernel checks; None: the daemon's."""
    path: str
    to: str
    """The new path, a symbolic link's target, or an attribute's name."""
    cursor: int
    mode: int
    replace: bool
    with_stats: bool
    """list: with a record of STAT for each name."""
    times: tuple[int, int] | None
    """Of access and change (ns); None: now."""
    value: bytes
    xattr_flags: int
    follow: bool
    """Whether a symbolic link that is the last part of the path is followed."""
    what: str
    """"rename export/path to export/to", shortened for messages."""


class Reply(Protocol):
    """Answers the message with a cookie."""

    def __call__(
        self,
        session: Session,
        cookie: int,
        result: int,
        text: str | None = None,
        body: Any = None,
        reason: int = Reason.BY_KERNEL,
    ) -> None:
        """Send REPLY."""
