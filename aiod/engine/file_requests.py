"""Requests about files and names that the engine has checked, as the stages hand them on: data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from aiod.engine.session import Session
    from aiod.engine_api.settings import ExportSettings
    from aiod_client import wire

Identity = tuple[int, int, list[int]]
"""uid, gid, groups."""


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
    export_name: str
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
        self,
        session: Session,
        cookie: int,
        result: int,
        sentence: str | None = None,
        body: Any = None,
        reason: int = Reason.BY_KERNEL,
    ) -> None:
        """Send REPLY."""
