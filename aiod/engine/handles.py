"""A session's open files: OPEN, CLOSE and the last flush on their way through a worker.

Opening and closing block (network file systems, a last close that writes back), so workers do them; the core confines
the path and keeps the table. Here stands only who waits for which.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from aiod.engine.errors import refused
from aiod.engine_api.fd_store_messages import Witness
from aiod.util import logs
from aiod_client.sentences import sentence
from aiod_client.wire import OpenFlag
from aiod_protocol.reasons import Reason, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod._core import Control, Core, Rate
    from aiod.engine.file_requests import Opening, Reopening, Reply
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)


_KEPT_FLAGS: Final = OpenFlag.READ | OpenFlag.WRITE | OpenFlag.APPEND | OpenFlag.DIRECT


class AdmitOpen(Protocol):
    """Says what may be opened."""

    def __call__(self, session: Session, export: str, path: str, flags: int, mode: int, *, descriptors: int) -> Opening:
        """The open to try, or OSError."""


class _Again(NamedTuple):
    """What is opened once more was open with the engine before."""

    handle: int
    opened: Reopening
    by_witness: bool


@dataclass(slots=True)
class _Waiting:
    session: Session
    cookie: int
    opening: Opening | None
    name: str
    asked_s: float
    again: _Again | None = None
    answered: bool = False
    """It hangs, and its client has been told."""


class Keeping(Protocol):
    """Has open files kept for the engine after this one, and has those of the one before it."""

    def keep(self, witness: Witness, then: Callable[[], None]) -> None:
        """Have it kept, and call `then`; its descriptor is closed."""

    def drop(self, token: bytes, handle: int) -> None:
        """The file has been closed."""

    def take(self, token: bytes, handle: int) -> Witness | None:
        """The file that the session had open under that number; its descriptor is the caller's."""

    def is_poisoned(self, dev: int, ino: int) -> bool:
        """Whether a flush of that file had failed in an engine before."""

    def earlier_than(self, token: bytes, handle: int, dev: int, ino: int) -> int:
        """A descriptor, the caller's, of the file's first witness still here; -1: the handle was opened before."""


class Handles:
    """Opens and closes in flight. Main loop thread only."""

    def __init__(
        self,
        settings: EngineSettings,
        core: Core,
        admit_open: AdmitOpen,
        reply: Reply,
        keeping: Keeping,
        rate_of: Callable[[str], Rate],
    ) -> None:
        """`admit_open` says what may be opened, `reply` answers, `keeping` has every open file kept.

        `rate_of` has the rate of an export.
        """
        self._rate_of = rate_of
        self._keeping = keeping
        self._settings = settings
        self._core = core
        self._admit_open = admit_open
        self._reply = reply
        self._tags = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._flushing: dict[int, asyncio.Future[int]] = {}
        self._opening = 0

    def apply(self, settings: EngineSettings) -> None:
        """Use another timeout from now on."""
        self._settings = settings

    def describe(self, tag: int) -> tuple[str, str]:
        """Whose the open or close `tag` is, and the file; nothing of one that nobody waits for."""
        waiting = self._waiting.get(tag)
        return (waiting.session.short_id, waiting.name) if waiting is not None else ("", "")

    def open(self, session: Session, cookie: int, export: str, path: str, flags: int, mode: int) -> None:
        """OPEN: let a worker try it, or refuse."""
        descriptors = self._core.descriptors + self._opening
        try:
            opening = self._admit_open(session, export, path, flags, mode, descriptors=descriptors)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        self._open(self._wait(_Waiting(session, cookie, opening, opening.name, time.monotonic())), opening)

    def reopen(self, session: Session, cookie: int, handle: int, opened: Reopening) -> None:
        """REOPEN: what the supervisor has kept, else what has the name now, if it is the same file.

        If it fails the number stays unknown: a client may still use it, and must not meet another file.
        """
        session.core.retire_handle(handle)
        descriptors = self._core.descriptors + self._opening
        flags = opened.flags & int(_KEPT_FLAGS)
        try:
            opening = self._admit_open(session, opened.export, opened.path, flags, 0, descriptors=descriptors)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        witness = self._keeping.take(session.token, handle)
        kept = witness is not None and (witness.export, witness.flags) == (opened.export, int(opening.flags))
        again = _Again(handle, opened, kept)
        tag = self._wait(_Waiting(session, cookie, opening, opening.name, time.monotonic(), again))
        if witness is not None and kept:
            self._core.adopt(tag, self._rate_of(opening.export_name), witness.fd, int(opening.flags))
            return
        if witness is not None:
            self._core.close_fd(0, self._rate_of(witness.export), witness.fd)
        self._open(tag, opening)

    def _wait(self, waiting: _Waiting) -> int:
        """The tag of an open that begins."""
        tag = next(self._tags)
        self._waiting[tag] = waiting
        waiting.session.opens_inflight += 1
        self._opening += 1
        return tag

    def _open(self, tag: int, opening: Opening) -> None:
        settings = opening.export
        self._core.open(
            tag,
            self._rate_of(opening.export_name),
            settings.path,
            opening.path,
            int(opening.flags),
            opening.mode,
            exact_mode=settings.create_mode >= 0,
            uid=settings.create_uid,
            gid=settings.create_gid,
            links=settings.symlinks,
            as_client=opening.as_client,
            timeout_ms=self._settings.open_timeout_ms,
        )

    def close(self, session: Session, cookie: int, handle: int) -> None:
        """CLOSE: answered when nothing is in flight on the handle any more and the file is closed."""
        tag = next(self._tags)
        name = session.names.get(handle, "")
        try:
            self._core.close_handle(tag, session.core, handle & 0xFFFFFFFF if handle < 1 << 32 else 0)
        except OSError:
            known = f"close: handle {handle} is unknown in this session, or closed already"
            self._reply_error(session, cookie, refused(errno.EBADF, known, Reason.NO_HANDLE))
            return
        session.names.pop(handle, None)
        if not session.by_socket:
            self._keeping.drop(session.token, handle)
        self._waiting[tag] = _Waiting(session, cookie, None, name, time.monotonic())

    async def flush(self, session: Session) -> list[int]:
        """Have on disk all that is completed on the session's files; the handles of those where it is."""
        handles = list(session.names)
        done = await asyncio.gather(*(self._flush(session, handle) for handle in handles))
        return [handle for handle, flushed in zip(handles, done, strict=True) if flushed]

    async def _flush(self, session: Session, handle: int) -> bool:
        tag = next(self._tags)
        try:
            self._core.flush_handle(tag, session.core, handle)
        except OSError:  # closed meanwhile, or its client is to hear of it by a flush of its own
            return False
        self._flushing[tag] = asyncio.get_running_loop().create_future()
        return await self._flushing[tag] == 0

    def give_up(self, older_than_s: float) -> None:
        """Answer the opens asked for before `older_than_s` (of time.monotonic()) that hang."""
        for waiting in self._waiting.values():
            if waiting.opening is None or waiting.answered or waiting.asked_s > older_than_s:
                continue
            waiting.answered = True
            if not waiting.session.ended:
                what = f"open {waiting.name}: it hangs, unknown whether done; a file that it opens at last is closed"
                self._reply_error(waiting.session, waiting.cookie, refused(errno.ETIMEDOUT, what, Reason.HANGS))

    def finished(self, control: Control) -> None:
        """An open, a close or a last flush that a worker has done."""
        tag, result, reason, *_ = control
        if tag in self._flushing:
            self._flushing.pop(tag).set_result(result)
            return
        waiting = self._waiting.pop(tag)
        if waiting.opening is None:
            self._closed(waiting, result)
            return
        waiting.session.opens_inflight -= 1
        self._opening -= 1
        if result >= 0 and (waiting.session.ended or waiting.answered):
            self._close_all(waiting.opening, control)
        elif waiting.answered:
            return
        elif result < 0:
            self._not_opened(waiting, -result, reason)
        else:
            self._opened(waiting, waiting.opening, control)

    def _close_all(self, opening: Opening, control: Control) -> None:
        """What was opened is of no use."""
        self._close_fds(opening, control[1], control[7], control[8])

    def _close_fds(self, opening: Opening, *fds: int) -> None:
        for fd in fds:
            if fd >= 0:
                self._core.close_fd(0, self._rate_of(opening.export_name), fd)

    def _opened(self, waiting: _Waiting, opening: Opening, control: Control) -> None:
        session, flags, again = waiting.session, opening.flags, waiting.again
        _, fd, _, size, dev, ino, generation, witness_fd, flush_fd, on_fuse, *alignment = control
        file = (dev, ino, generation)
        if again is not None and not again.by_witness and (doubt := _doubt(file, _file_of(again.opened))):
            self._close_all(opening, control)
            text = f"open {waiting.name} again: {os.strerror(errno.ESTALE)} (ESTALE): {doubt}"
            self._reply(session, waiting.cookie, -errno.ESTALE, text, reason=Reason.OTHER_FILE)
            return
        if again is not None:
            flush_fd = self._first_of(session, again, opening, dev, ino, flush_fd)
        try:
            handle = self._core.add_handle(
                session.core,
                fd,
                dev,
                ino,
                readable=OpenFlag.READ in flags,
                writable=OpenFlag.WRITE in flags,
                append=OpenFlag.APPEND in flags,
                on_fuse=on_fuse,
                alignment=(alignment[0], alignment[1]) if OpenFlag.DIRECT in flags else None,
                ioctls=opening.export.ioctls,
                size_max=opening.export.max_file_bytes,
                name=opening.name,
                rate=self._rate_of(opening.export_name),
                ioprio=opening.export.ioprio,
                wanted=again.handle if again is not None else 0,
                poisoned=again is not None and again.by_witness and self._keeping.is_poisoned(dev, ino),
                suspect=again is not None and again.opened.changed and not again.by_witness,
                flush_fd=flush_fd,
            )
        except OSError as error:
            self._close_fds(opening, fd, witness_fd)
            self._reply_error(session, waiting.cookie, error)
            return
        session.names[handle] = opening.name
        answer = functools.partial(
            self._reply, session, waiting.cookie, handle, None, {"size": size, "file": [dev, ino, generation]}
        )
        if session.by_socket or witness_fd < 0:
            self._close_fds(opening, witness_fd)
            answer()
            return
        peer = session.peer
        witness = Witness(
            session.token,
            handle,
            witness_fd,
            peer.who,
            peer.pid,
            opening.export_name,
            int(flags & _KEPT_FLAGS),
            dev,
            ino,
        )
        self._keeping.keep(witness, answer)

    def _first_of(self, session: Session, again: _Again, opening: Opening, dev: int, ino: int, flush_fd: int) -> int:
        """Of `flush_fd` and what the engine before had open, what was opened first; the other is closed."""
        earlier = self._keeping.earlier_than(session.token, again.handle, dev, ino)
        if earlier < 0:
            return flush_fd
        self._close_fds(opening, flush_fd)
        return earlier

    def _not_opened(self, waiting: _Waiting, number: int, reason: int) -> None:
        if waiting.session.ended:
            return
        if reason == Reason.DEADLINE:
            what = f"open {waiting.name}: no worker was free for it in time; it was not executed"
            self._reply_error(waiting.session, waiting.cookie, refused(errno.ETIMEDOUT, what, Reason.DEADLINE))
            return
        advice = ""
        if number == errno.EXDEV:
            number, reason = errno.EACCES, Reason.OUTSIDE
            advice = "the path leaves the export (.., an absolute path or a symbolic link out)"
        elif number == errno.EAGAIN:
            advice = "a program has a lease on the file (fcntl F_SETLEASE), and has been asked to give it up; try again"
        elif number == errno.EINVAL:
            advice = "only regular files can be opened, and block devices as an export of their own"
            if waiting.opening is not None and OpenFlag.DIRECT in waiting.opening.flags:
                advice += "; or the file system has no O_DIRECT"
        text = sentence(f"open {waiting.name}", number, advice)
        self._reply(waiting.session, waiting.cookie, -number, text, reason=reason)

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
        number, text = -(error.errno or errno.EIO), error.strerror or str(error)
        self._reply(session, cookie, number, text, reason=reason_of(error))


def _doubt(file: tuple[int, int, int], before: tuple[int, int, int]) -> str:
    """Why a file found by its name, (device, inode, generation), may not be the one that was open before; "": it is."""
    if file != before:
        return "another file has this name now"
    if file[2] == 0:
        return "its file system does not tell whether it is the same file (no file handles, no birth times)"
    return ""


def _file_of(opened: Reopening) -> tuple[int, int, int]:
    return opened.dev, opened.ino, opened.generation
