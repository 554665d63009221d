"""A session's open files: OPEN and CLOSE on their way through a worker.

Opening and closing block (network file systems, a last close that writes back), so workers do them; the core confines
the path and keeps the table. Here stands only who waits for which.
"""

from __future__ import annotations

import errno
import itertools
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aiod import logs
from aiod.engine.errors import refused
from aiod_client.sentences import sentence
from aiod_client.wire import OpenFlag

if TYPE_CHECKING:
    from aiod._core import Control, Core
    from aiod.engine.model import Opening, Reply, Session

log = logging.getLogger(__name__)


class AdmitOpen(Protocol):
    """Says what may be opened."""

    def __call__(self, session: Session, export: str, path: str, flags: int, mode: int, *, files: int) -> Opening:
        """The open to try, or OSError."""


class _Waiting(NamedTuple):
    session: Session
    cookie: int
    opening: Opening | None
    name: str


class Handles:
    """Opens and closes in flight. Main loop thread only."""

    def __init__(self, core: Core, admit_open: AdmitOpen, reply: Reply) -> None:
        """`admit_open` says what may be opened, `reply` answers."""
        self._core = core
        self._admit_open = admit_open
        self._reply = reply
        self._tags = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._opening = 0

    @property
    def waiting(self) -> int:
        """Opens and closes that have not been answered."""
        return len(self._waiting)

    def open(self, session: Session, cookie: int, export: str, path: str, flags: int, mode: int) -> None:
        """OPEN: let a worker try it, or refuse."""
        files = self._core.files + self._opening
        try:
            opening = self._admit_open(session, export, path, flags, mode, files=files)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        tag = next(self._tags)
        self._waiting[tag] = _Waiting(session, cookie, opening, opening.name)
        session.opens_inflight += 1
        self._opening += 1
        settings = opening.export
        self._core.open(
            tag,
            settings.path,
            opening.path,
            int(opening.flags),
            opening.mode,
            exact_mode=settings.create_mode >= 0,
            uid=settings.create_uid,
            gid=settings.create_gid,
            links=settings.symlinks,
            as_client=opening.as_client,
        )

    def close(self, session: Session, cookie: int, handle: int) -> None:
        """CLOSE: answered when nothing is in flight on the handle any more and the file is closed."""
        tag = next(self._tags)
        name = session.names.get(handle, "")
        try:
            self._core.close_handle(tag, session.core, handle & 0xFFFFFFFF if handle < 1 << 32 else 0)
        except OSError:
            known = refused(errno.EBADF, f"close: handle {handle} is unknown in this session, or closed already")
            self._reply_error(session, cookie, known)
            return
        session.names.pop(handle, None)
        self._waiting[tag] = _Waiting(session, cookie, None, name)

    def finished(self, control: Control) -> None:
        """An open or close that a worker has done."""
        tag, result, *_ = control
        waiting = self._waiting.pop(tag)
        if waiting.opening is None:
            self._closed(waiting, result)
            return
        waiting.session.opens_inflight -= 1
        self._opening -= 1
        if result < 0:
            self._not_opened(waiting, -result)
        elif waiting.session.ended:
            self._core.close_fd(0, result)
        else:
            self._opened(waiting, waiting.opening, control)

    def _opened(self, waiting: _Waiting, opening: Opening, control: Control) -> None:
        session, flags = waiting.session, opening.flags
        _, fd, size, dev, ino, *alignment = control
        try:
            handle = self._core.add_handle(
                session.core,
                fd,
                dev,
                ino,
                readable=OpenFlag.READ in flags,
                writable=OpenFlag.WRITE in flags,
                append=OpenFlag.APPEND in flags,
                alignment=(alignment[0], alignment[1]) if OpenFlag.DIRECT in flags else None,
                ioctls=opening.export.ioctls,
                size_max=opening.export.max_file_bytes,
            )
        except OSError as error:
            self._core.close_fd(0, fd)
            self._reply_error(session, waiting.cookie, error)
            return
        session.names[handle] = opening.name
        self._reply(session, waiting.cookie, handle, None, {"size": size})

    def _not_opened(self, waiting: _Waiting, number: int) -> None:
        if waiting.session.ended:
            return
        advice = ""
        if number == errno.EXDEV:
            number = errno.EACCES
            advice = "the path leaves the export (.., an absolute path or a symbolic link out)"
        elif number == errno.EINVAL:
            advice = "only regular files can be opened, and block devices as an export of their own"
            if waiting.opening is not None and OpenFlag.DIRECT in waiting.opening.flags:
                advice += "; or the file system has no O_DIRECT"
        text = sentence(f"open {waiting.name}", number, advice)
        self._reply(waiting.session, waiting.cookie, -number, text)

    def _closed(self, waiting: _Waiting, result: int) -> None:
        text = sentence(f"close {waiting.name}", -result) if result < 0 else None
        if not waiting.session.ended:
            self._reply(waiting.session, waiting.cookie, result, text)
        elif text is not None:
            log.warning(
                "after %s had ended: %s",
                waiting.session,
                text,
                extra=waiting.session.about
                | logs.about(export=waiting.name.partition("/")[0], error=OSError(-result, "")),
            )

    def _reply_error(self, session: Session, cookie: int, error: OSError) -> None:
        self._reply(session, cookie, -(error.errno or errno.EIO), error.strerror or str(error))
