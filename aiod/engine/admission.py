"""Admission of OPEN and NAME: every refusal of one is here. No system calls.

The records of a SUBMIT are admitted one by one in the core (core/admission.c), where a check costs nanoseconds.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Any

from aiod.engine.errors import refused
from aiod.engine.file_requests import DirectoryRequest, OpenRequest
from aiod.engine.name_admission import (
    check_attribute,
    check_cursor,
    check_path,
    check_permissions,
    parse_times,
)
from aiod.engine.name_verbs import NAME_VERBS
from aiod_protocol.messages import object_name
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import OpenFlag

if TYPE_CHECKING:
    from aiod.engine.file_requests import Identity
    from aiod.engine.name_verbs import NameVerb
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings, ExportSettings

_PERMISSIONS = 0o777
_ALL_FLAGS = ~OpenFlag(0)
_NEEDS_WRITE = OpenFlag.CREATE | OpenFlag.EXCLUSIVE | OpenFlag.TRUNCATE | OpenFlag.APPEND


class Admission:
    """Checks requests against the engine's exports and limits. Main loop thread only."""

    def __init__(self, settings: EngineSettings, descriptors_max: int) -> None:
        """`descriptors_max`: most descriptors that the engine may hold for handles."""
        self._settings = settings
        self._descriptors_max = descriptors_max
        self._draining = False

    def apply(self, settings: EngineSettings) -> None:
        """Use other exports and limits from now on."""
        self._settings = settings

    def drain(self) -> None:
        """Refuse every OPEN and NAME from now on."""
        self._draining = True

    def admit_open(
        self, session: Session, export: str, path: str, flags: int, mode: int, *, descriptors: int
    ) -> OpenRequest:
        """Check an OPEN. `descriptors`: number of those held or being opened.

        Raises OSError with errno and message when it is refused.
        """
        name = object_name(export, path)
        self._check_room(session, name, descriptors)
        settings = self._find_export(session, f"open {name}", export)
        wanted = _check_flags(name, flags, mode)
        check_path(f"open {name}", path)
        if settings.read_only and wanted & OpenFlag.WRITE:
            raise refused(
                errno.EROFS, f"open {name}: the export {export} is read-only; open it for reading", Reason.NOT_ALLOWED
            )
        if settings.direct:
            wanted |= OpenFlag.DIRECT
        if wanted & OpenFlag.APPEND and wanted & OpenFlag.DIRECT:
            why = "O_DIRECT cannot append, since the end of a file is not aligned"
            raise refused(errno.EINVAL, f"open {name}: {why}; open it to write at offsets", Reason.BAD_ENTRY)
        if wanted & OpenFlag.CREATE and not settings.create:
            if wanted & OpenFlag.EXCLUSIVE:
                raise refused(errno.EACCES, f"open {name}: {_no_creation(export)}", Reason.NOT_ALLOWED)
            wanted &= ~OpenFlag.CREATE  # an existing file may be opened
        mode = mode if settings.create_mode < 0 else settings.create_mode
        return OpenRequest(settings, path, wanted, mode, name, _identity(f"open {name}", session, settings), export)

    def admit_names(self, session: Session, export: str, path: str) -> tuple[ExportSettings, int]:
        """Check an OPEN with NAMES: the export's settings, and the verbs that it allows, as bits.

        Raises OSError: EOPNOTSUPP where files are opened in another way than by a ring.
        """
        what = f"open {object_name(export, path)}"
        if self._draining:
            raise refused(errno.ESHUTDOWN, f"{what}: the daemon is stopping", Reason.STOPPING)
        if session.core.names >= len(self._settings.exports):
            raise refused(errno.EMFILE, f"{what}: the session has a handle for names of each export", Reason.LIMIT)
        settings = self._find_export(session, what, export)
        if path:
            raise refused(errno.EINVAL, f"{what}: a handle for names is one of the export alone", Reason.BAD_ENTRY)
        if settings.as_client or settings.direct or settings.faults:
            why = "opens files as the client" if settings.as_client else "opens files with O_DIRECT"
            raise refused(errno.EOPNOTSUPP, f"{what}: the export {export} {why}: open each file", Reason.NOT_ALLOWED)
        return settings, _allowed_verbs(export, settings)

    def admit_directory_request(
        self, session: Session, verb: str, export: str, path: str, arguments: dict[str, Any]
    ) -> DirectoryRequest:
        """Check a NAME. `arguments` has those of the verb, each of the right type.

        Raises OSError with errno and message when it is refused.
        """
        to = arguments.get("to", "")
        what = f"{verb[:64]} {object_name(export, path)}" + (f" to {object_name(export, to)}" if to else "")
        self._check_directory_requests(session, what)
        known = NAME_VERBS.get(verb)
        if known is None:
            text = f"{what!r}: there is no such verb; the verbs are: {', '.join(NAME_VERBS)}"
            raise refused(errno.EINVAL, text, Reason.BAD_ENTRY)
        settings = self._find_export(session, what, export)
        target = arguments.get("target", "")
        for each in (path, to, target):
            check_path(what, each)
        _check_allowed(what, export, settings, known)
        return DirectoryRequest(
            verb=known,
            export_name=export,
            root=settings.path,
            links=settings.symlinks,
            as_client=_identity(what, session, settings),
            path=path,
            to=to or target or check_attribute(what, arguments),
            cursor=check_cursor(what, arguments.get("cursor", 0)),
            mode=check_permissions(what, arguments.get("mode", 0)),
            replace=arguments.get("replace", False),
            with_stats=arguments.get("stat", False),
            times=parse_times(what, arguments.get("times", b"")),
            value=arguments.get("value", b""),
            xattr_flags=arguments.get("flags", 0),
            follow=arguments.get("follow", True),
            what=what,
        )

    def _check_directory_requests(self, session: Session, what: str) -> None:
        if self._draining:
            raise refused(errno.ESHUTDOWN, f"{what}: the daemon is stopping", Reason.STOPPING)
        if session.directory_requests_inflight >= session.depth_max:
            raise refused(
                errno.EAGAIN,
                f"{what}: {session.depth_max} such requests wait already; wait for some",
                Reason.OVER_CREDIT,
            )

    def _find_export(self, session: Session, what: str, export: str) -> ExportSettings:
        settings = self._settings.exports.get(export)
        if settings is None:
            known = ", ".join(sorted(self._settings.exports))
            raise refused(
                errno.ENOENT,
                f"{what}: there is no export {export[:64]!r} here; the exports are: {known}",
                Reason.NO_EXPORT,
            )
        if not settings.admits(session.peer.uid, session.gids, _key_of(session)):
            raise refused(
                errno.EACCES, f"{what}: the export {export} is not for {session.peer.principal}", Reason.NOT_ALLOWED
            )
        return settings

    def _check_room(self, session: Session, name: str, descriptors: int) -> None:
        limits = self._settings
        if self._draining:
            raise refused(errno.ESHUTDOWN, f"open {name}: the daemon is stopping", Reason.STOPPING)
        if session.opens_inflight >= session.depth_max:
            raise refused(
                errno.EAGAIN, f"open {name}: {session.depth_max} opens wait already; wait for some", Reason.OVER_CREDIT
            )
        if session.core.handles + session.core.lent + session.opens_inflight >= limits.handles_max:
            raise refused(
                errno.EMFILE, f"open {name}: the session has {limits.handles_max} handles; close some", Reason.LIMIT
            )
        session.quota.check_handle(f"open {name}")
        if descriptors >= self._descriptors_max:
            text = f"open {name}: the engine has {self._descriptors_max} descriptors for open files; try again later"
            raise refused(errno.ENFILE, text, Reason.LIMIT)


def _key_of(session: Session) -> str:
    owner = session.peer.owner
    return owner.name if owner is not None else ""


def _identity(what: str, session: Session, settings: ExportSettings) -> Identity | None:
    """Identity whose permissions count; None: the daemon's. Raises OSError for a user that this host does not know."""
    if not settings.as_client:
        return None
    peer = session.peer
    if peer.uid < 0:
        raise refused(
            errno.EACCES,
            f"{what}: the export opens files as the client, and {peer} is not a user of this host",
            Reason.NOT_ALLOWED,
        )
    return peer.uid, peer.gid, sorted(session.gids)


def _no_creation(export: str) -> str:
    return f"nothing may be created in the export {export}; open what exists"


def _check_flags(name: str, flags: int, mode: int) -> OpenFlag:
    if flags & ~int(_ALL_FLAGS) or mode & ~_PERMISSIONS:
        raise refused(
            errno.EINVAL, f"open {name}: unknown bits in flags {flags:#x} or mode {mode:#o}", Reason.BAD_ENTRY
        )
    wanted = OpenFlag(flags)
    if wanted & OpenFlag.NAMES:
        raise refused(errno.EINVAL, f"open {name}: NAMES goes with no other flag", Reason.BAD_ENTRY)
    if not wanted & (OpenFlag.READ | OpenFlag.WRITE):
        raise refused(errno.EINVAL, f"open {name}: neither READ nor WRITE is requested", Reason.BAD_ENTRY)
    if wanted & _NEEDS_WRITE and not wanted & OpenFlag.WRITE:
        raise refused(errno.EINVAL, f"open {name}: CREATE, EXCLUSIVE, TRUNCATE and APPEND need WRITE", Reason.BAD_ENTRY)
    if wanted & OpenFlag.EXCLUSIVE and not wanted & OpenFlag.CREATE:
        raise refused(errno.EINVAL, f"open {name}: EXCLUSIVE needs CREATE", Reason.BAD_ENTRY)
    return wanted


def _allowed_verbs(export: str, settings: ExportSettings) -> int:
    """The verbs of NAME that the export allows, as bits."""
    allowed = 0
    for verb in NAME_VERBS.values():
        with contextlib.suppress(OSError):
            _check_allowed("", export, settings, verb)
            allowed |= 1 << verb.number
    return allowed


def _check_allowed(what: str, export: str, settings: ExportSettings, verb: NameVerb) -> None:
    """Raise OSError if the export does not allow `verb`."""
    if settings.read_only and verb.changes:
        text = f"{what}: the export {export} is read-only; its names cannot be changed"
        raise refused(errno.EROFS, text, Reason.NOT_ALLOWED)
    if verb.creates and not settings.create:
        raise refused(errno.EACCES, f"{what}: {_no_creation(export)}", Reason.NOT_ALLOWED)
    if verb.needs and not getattr(settings, verb.needs):
        text = f"{what}: the export {export} does not allow it; its option {verb.needs} does"
        raise refused(errno.EPERM, text, Reason.NOT_ALLOWED)
