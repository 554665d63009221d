"""OPEN, CLOSE and the flushes at shutdown, in flight.

Opening and closing block (network file systems, a last close that writes back), so workers carry them out; the core
confines the path, and keeps the table of handles. This module keeps which session waits for which operation.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import logging
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from aiod.engine.errors import refused
from aiod.engine.file_origin import doubt, origin_of
from aiod.engine.session import FuseFile
from aiod.engine_api import fd_store_messages
from aiod.engine_api.fd_store_messages import StoredDescriptor
from aiod.util import logs
from aiod_protocol.messages import errno_message
from aiod_protocol.reasons import Reason, reason_of
from aiod_protocol.wire import OpenFlag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiod._core import Control, Core, Rate
    from aiod._core import Session as CoreSession
    from aiod.engine.file_requests import LockClaim, OpenRequest, ReopenRequest, Reply
    from aiod.engine.ring_opens import RingOpens
    from aiod.engine.session import Session
    from aiod.engine.uring import Uring
    from aiod.engine_api.settings import EngineSettings, ExportSettings

log = logging.getLogger(__name__)

_NEW_FILE_MODE: Final = 0o666
_STORED_FLAGS: Final = OpenFlag.READ | OpenFlag.WRITE | OpenFlag.APPEND | OpenFlag.DIRECT


_DEAD_MOUNT: Final = (-errno.ENOTCONN, -errno.ECONNABORTED)
"""Results that a FUSE mount has whose server has ended."""


class OpenAdmission(Protocol):
    """Checks OPENs (admission.py)."""

    def admit_open(
        self, session: Session, export: str, path: str, flags: int, mode: int, *, descriptors: int
    ) -> OpenRequest:
        """The checked request. Raises OSError."""

    def admit_names(self, session: Session, export: str, path: str) -> tuple[ExportSettings, int]:
        """Of an OPEN with NAMES: the settings of the export, and the verbs that it allows. Raises OSError."""


class _Reopen(NamedTuple):
    """A file that was open with a previous engine."""

    handle: int
    opened: ReopenRequest
    from_fd_store: bool


@dataclass(slots=True)
class _Waiting:
    session: Session
    cookie: int
    opening: OpenRequest | None
    name: str
    asked_s: float
    reopen: _Reopen | None = None
    answered: bool = False
    """It hangs, and the client has got an error."""


class _Moving(NamedTuple):
    """A file that is being opened again, since its mount has died."""

    session: Session
    handle: int
    file: FuseFile
    then: Callable[[int], None]


class DescriptorStore(Protocol):
    """Stores descriptors of open files for the next engine, and has those of the previous one (fd_store_client.py)."""

    def store(self, stored: StoredDescriptor, then: Callable[[], None] | None = None) -> None:
        """Store the descriptor, close it here, and call `then`."""

    def drop(self, token: bytes, handle: int) -> None:
        """Remove the descriptor of a file that was closed."""

    def take(self, token: bytes, handle: int) -> StoredDescriptor | None:
        """Take out the inherited descriptor of the session's `handle`; the caller owns it."""

    def is_poisoned(self, dev: int, ino: int) -> bool:
        """Whether a flush of that file failed in a previous engine."""

    def earlier_descriptor(self, token: bytes, handle: int, dev: int, ino: int) -> int:
        """A duplicate of the file's first inherited descriptor; -1: the handle was opened before it."""


class OpenFiles(Protocol):
    """A session, or a disk of a guest: what is flushed at shutdown."""

    @property
    def core(self) -> CoreSession:
        """Its session of the core."""

    @property
    def names(self) -> dict[int, str]:
        """Its open files by their handles."""


class FileLocks(Protocol):
    """Has the locks of files (locks.py)."""

    def lock(
        self, session: Session, cookie: int, handle: int, flags: int, offset: int, length: int, wait_ms: int
    ) -> None:
        """Answer a LOCK."""

    def claim(
        self,
        session: Session,
        cookie: int,
        handle: int,
        flags: int,
        offset: int,
        length: int,
        number: int,
        wait_ms: int,
    ) -> None:
        """Answer the claim of a lock of an earlier engine."""

    def unlock(self, session: Session, cookie: int, handle: int, offset: int, length: int) -> None:
        """Answer an UNLOCK."""

    def reclaim(
        self,
        session: Session,
        handle: int,
        claims: Sequence[LockClaim],
        wait_ms: int,
        then: Callable[[list[bool]], None],
    ) -> None:
        """Regain locks of an earlier engine; `then` gets which of them are held again."""

    def moved(self, session: Session, handle: int) -> None:
        """The handle has another description."""

    def closed(self, session: Session, handle: int) -> None:
        """The handle is being closed."""


class Handles:
    """Main loop thread only."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it asks of other stages
        self,
        settings: EngineSettings,
        core: Core,
        admission: OpenAdmission,
        reply: Reply,
        fd_store: DescriptorStore,
        rate_of: Callable[[str], Rate],
        uring: Uring,
        ring_opens: RingOpens,
        locks: FileLocks,
        renew: Callable[[Session], None],
    ) -> None:
        """`admission` checks an OPEN, `reply` answers it, `rate_of` returns the rate of an export."""
        self.ring_opens = ring_opens
        self.locks = locks
        self._renew = renew
        self._rate_of = rate_of
        self._uring = uring
        self._fd_store = fd_store
        self._settings = settings
        self._core = core
        self._admission = admission
        self._reply = reply
        self._tags = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._flushing: dict[int, asyncio.Future[int]] = {}
        self._moving: dict[int, _Moving] = {}
        self._opening = 0

    def apply(self, settings: EngineSettings) -> None:
        """Use another timeout from now on."""
        self._settings = settings

    def describe(self, tag: int) -> tuple[str, str]:
        """Client and file of the open or close `tag`; both empty if no client waits for it."""
        waiting = self._waiting.get(tag)
        return (waiting.session.short_id, waiting.name) if waiting is not None else ("", "")

    def open(self, session: Session, cookie: int, export: str, path: str, flags: int, mode: int) -> None:
        """Give an OPEN to a worker, or refuse it."""
        if flags == OpenFlag.NAMES:
            self.open_names(session, cookie, export, path)
            return
        try:
            opening = self._admit(session, export, path, flags, mode)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        self.ring_opens.opens_by_message(session)
        tag = self._wait(_Waiting(session, cookie, opening, opening.name, time.monotonic()))
        self._open(tag, opening, session.peer.transport_name)

    def _admit(self, session: Session, export: str, path: str, flags: int, mode: int) -> OpenRequest:
        """Check an OPEN. At a limit the numbers that are lent to rings, and that these do not use, are taken back."""
        try:
            return self._admission.admit_open(session, export, path, flags, mode, descriptors=self._descriptors)
        except OSError as error:
            if reason_of(error) != Reason.LIMIT or not self.ring_opens.take_back():
                raise
        return self._admission.admit_open(session, export, path, flags, mode, descriptors=self._descriptors)

    @property
    def _descriptors(self) -> int:
        return self._core.descriptors + self._core.lent + self._opening

    def open_names(self, session: Session, cookie: int, export: str, path: str) -> None:
        """OPEN with NAMES: touches no file, so it is answered here."""
        try:
            settings, verbs = self._admission.admit_names(session, export, path)
            peer = session.peer
            keep_token, keep_record = (
                fd_store_messages.kept_by_workers(session.token, peer.principal, peer.pid, export)
                if session.resumable
                else (b"", b"")
            )
            handle = self._core.add_names(
                session.core,
                root=settings.path,
                links=settings.symlinks,
                writable=settings.create and not settings.read_only,
                verbs=verbs,
                size_max=settings.max_file_bytes,
                name=export,
                mode=_NEW_FILE_MODE if settings.create_mode < 0 else settings.create_mode,
                exact_mode=settings.create_mode >= 0,
                uid=settings.create_uid,
                gid=settings.create_gid,
                ioctls=settings.ioctls,
                rate=self._rate_of(export),
                ioprio=settings.ioprio,
                keep_token=keep_token,
                keep_record=keep_record,
            )
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        self.ring_opens.lend(session)
        self._reply(session, cookie, handle, None, {"file": [0, 0, 0], "origin": origin_of(settings.shared)})

    def reopen(self, session: Session, cookie: int, handle: int, opened: ReopenRequest) -> None:
        """REOPEN: use the stored descriptor, else open by name and check that it is the same file.

        If it fails, the handle's number is not given to another file: the client may still use it.
        """
        session.core.retire_handle(handle)
        flags = opened.flags & int(_STORED_FLAGS)
        try:
            opening = self._admit(session, opened.export, opened.path, flags, 0)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        stored = self._fd_store.take(session.token, handle)
        usable = stored is not None and (stored.export, stored.flags) == (opened.export, int(opening.flags))
        reopen = _Reopen(handle, opened, usable)
        tag = self._wait(_Waiting(session, cookie, opening, opening.name, time.monotonic(), reopen))
        if stored is not None and usable:
            self._core.adopt(tag, self._rate_of(opening.export_name), stored.fd, int(opening.flags))
            return
        if stored is not None:
            self._core.close_fd(0, self._rate_of(stored.export), stored.fd)
        self._open(tag, opening, session.peer.transport_name)

    def _reopen_by_name(self, waiting: _Waiting, opening: OpenRequest, reopen: _Reopen) -> None:
        """The inherited descriptor is one of a mount that has died."""
        again = replace(waiting, reopen=reopen._replace(from_fd_store=False))
        self._open(self._wait(again), opening, again.session.peer.transport_name)

    def _wait(self, waiting: _Waiting) -> int:
        """Register an open that begins; its tag."""
        tag = next(self._tags)
        self._waiting[tag] = waiting
        waiting.session.opens_inflight += 1
        self._opening += 1
        return tag

    def _open(self, tag: int, opening: OpenRequest, transport: str) -> None:
        settings = opening.export
        self._core.open(
            tag,
            transport,
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
        """CLOSE: answered when no request is in flight on the handle, and the file is closed."""
        tag = next(self._tags)
        name = session.names.get(handle, "")
        try:
            self._core.close_handle(tag, session.core, handle & 0xFFFFFFFF if handle < 1 << 32 else 0)
        except OSError:
            known = f"close: handle {handle} is unknown in this session, or closed already"
            self._reply_error(session, cookie, refused(errno.EBADF, known, Reason.NO_HANDLE))
            return
        self._forget(session, handle)
        self._waiting[tag] = _Waiting(session, cookie, None, name, time.monotonic())

    def close_for_ring(self, session: Session, handle: int) -> None:
        """CLOSE_FILE of a file that was collected from its ring: the core answers it when the file is closed."""
        self._core.close_handle(0, session.core, handle)
        self._forget(session, handle)

    def _forget(self, session: Session, handle: int) -> None:
        """The handle is being closed."""
        session.names.pop(handle, None)
        session.fuse_files.pop(handle, None)
        self.locks.closed(session, handle)
        if session.resumable:
            self._fd_store.drop(session.token, handle)

    async def flush(self, session: OpenFiles) -> list[int]:
        """Flush the session's files; the handles of those whose flush succeeded."""
        handles = list(session.names)
        done = await asyncio.gather(*(self._flush(session, handle) for handle in handles))
        return [handle for handle, flushed in zip(handles, done, strict=True) if flushed]

    async def _flush(self, session: OpenFiles, handle: int) -> bool:
        tag = next(self._tags)
        try:
            self._core.flush_handle(tag, session.core, handle)
        except OSError:  # it was closed meanwhile, or only a flush of the client may get the error
            return False
        self._flushing[tag] = asyncio.get_running_loop().create_future()
        return await self._flushing[tag] == 0

    def move(self, session: Session, handle: int, file: FuseFile, then: Callable[[int], None]) -> None:
        """Open a file again, and let it continue on the mount that is there now (lost_mounts.py).

        Calls `then` with 1, if the mount is the same with 0, or with -errno.
        """
        tag = next(self._tags)
        try:
            opening = self._admit(session, file.export, file.path, file.flags, 0)
            self._core.move_handle(
                tag,
                session.core,
                handle,
                opening.export.path,
                file.path,
                links=opening.export.symlinks,
                as_client=opening.as_client,
                timeout_ms=self._settings.open_timeout_ms,
            )
        except OSError as error:
            then(-(error.errno or errno.EIO))
            return
        self._moving[tag] = _Moving(session, handle, file, then)

    def _moved(self, moving: _Moving, control: Control) -> None:
        _, result, _, _, dev, ino, _, store_fd, *_ = control
        if store_fd >= 0:
            self._store_moved(moving, dev, ino, store_fd)
        if result > 0 and not moving.session.ended:
            self.locks.moved(moving.session, moving.handle)
        moving.then(result)

    def _store_moved(self, moving: _Moving, dev: int, ino: int, store_fd: int) -> None:
        session, handle, file = moving.session, moving.handle, moving.file
        if session.ended or not session.resumable or handle not in session.names:
            self._core.close_fd(0, self._rate_of(file.export), store_fd)
            return
        peer = session.peer
        self._fd_store.store(
            StoredDescriptor(
                *(session.token, handle, store_fd, peer.principal, peer.pid, file.export, file.flags, dev, ino)
            )
        )

    def time_out(self, older_than_s: float) -> None:
        """Fail the opens that came before `older_than_s` (of time.monotonic()) and hang."""
        for waiting in self._waiting.values():
            if waiting.opening is None or waiting.answered or waiting.asked_s > older_than_s:
                continue
            waiting.answered = True
            if not waiting.session.ended:
                what = f"open {waiting.name}: it hangs, unknown whether done; if it succeeds later, the file is closed"
                self._reply_error(waiting.session, waiting.cookie, refused(errno.ETIMEDOUT, what, Reason.HANGS))

    def finished(self, control: Control) -> None:
        """Handle a completed open, close or flush."""
        tag, result, reason, *_ = control
        if tag in self._flushing:
            self._flushing.pop(tag).set_result(result)
            return
        if tag in self._moving:
            self._moved(self._moving.pop(tag), control)
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
        elif waiting.reopen is not None and waiting.reopen.from_fd_store and result in _DEAD_MOUNT:
            self._reopen_by_name(waiting, waiting.opening, waiting.reopen)
        elif result < 0:
            self._not_opened(waiting, -result, reason)
        else:
            self._opened(waiting, waiting.opening, control)

    def _close_all(self, opening: OpenRequest, control: Control) -> None:
        """Close the descriptors of an open whose client does not wait any more."""
        self._close_fds(opening, control[1], control[7], control[8])

    def _close_fds(self, opening: OpenRequest, *fds: int) -> None:
        for fd in fds:
            if fd >= 0:
                self._core.close_fd(0, self._rate_of(opening.export_name), fd)

    def _opened(self, waiting: _Waiting, opening: OpenRequest, control: Control) -> None:
        session, flags, reopen = waiting.session, opening.flags, waiting.reopen
        _, fd, _, size, dev, ino, generation, stored_fd, flush_fd, on_fuse, *alignment = control
        file = (dev, ino, generation)
        origin = origin_of(opening.export.shared)
        if reopen is not None and not reopen.from_fd_store and (why := doubt(file, reopen.opened, origin)):
            self._close_all(opening, control)
            text = f"open {waiting.name} again: {os.strerror(errno.ESTALE)} (ESTALE): {why}"
            self._reply(session, waiting.cookie, -errno.ESTALE, text, reason=Reason.OTHER_FILE)
            return
        if reopen is not None:
            flush_fd = self._first_of(session, reopen, opening, dev, ino, flush_fd)
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
                uring=self._uring.carries(opening.export) and not opening.export.faults,
                uring_alone=opening.export.io == "uring",
                faults=opening.export.faults,
                wanted=reopen.handle if reopen is not None else 0,
                poisoned=reopen is not None and self._fd_store.is_poisoned(dev, ino),
                suspect=reopen is not None and reopen.opened.changed and not reopen.from_fd_store,
                flush_fd=flush_fd,
            )
        except OSError as error:
            self._close_fds(opening, fd, stored_fd)
            self._reply_error(session, waiting.cookie, error)
            return
        session.names[handle] = opening.name
        if on_fuse:
            session.fuse_files[handle] = FuseFile(opening.export_name, opening.path, int(flags & _STORED_FLAGS))
        body = {"size": size, "file": [dev, ino, generation], "origin": origin}
        answer = functools.partial(self._answer_open, waiting, handle, body)
        if not session.resumable or stored_fd < 0:
            self._close_fds(opening, stored_fd)
            answer()
            return
        peer = session.peer
        stored = StoredDescriptor(
            session.token,
            handle,
            stored_fd,
            peer.principal,
            peer.pid,
            opening.export_name,
            int(flags & _STORED_FLAGS),
            dev,
            ino,
        )
        self._fd_store.store(stored, answer)

    def _answer_open(self, waiting: _Waiting, handle: int, body: dict[str, Any]) -> None:
        """Answer an OPEN, or a REOPEN when its locks are regained or lost."""
        session = waiting.session

        def answer(held: list[bool]) -> None:
            self._reply(session, waiting.cookie, handle, None, body | {"locks": held})
            session.reclaiming -= 1
            self._renew(session)

        if waiting.reopen is None or not waiting.reopen.opened.locks or session.ended:
            self._reply(session, waiting.cookie, handle, None, body)
            return
        session.reclaiming += 1
        opened = waiting.reopen.opened
        self.locks.reclaim(session, handle, opened.locks, opened.wait_ms, answer)

    def _first_of(
        self, session: Session, reopen: _Reopen, opening: OpenRequest, dev: int, ino: int, flush_fd: int
    ) -> int:
        """The earliest opened descriptor of the file: `flush_fd`, which is closed otherwise, or an inherited one."""
        earlier = self._fd_store.earlier_descriptor(session.token, reopen.handle, dev, ino)
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
        if -number in _DEAD_MOUNT:
            advice = "the file system is not connected to its server; if its mount has died, mount it again"
        elif number == errno.EXDEV:
            number, reason = errno.EACCES, Reason.OUTSIDE
            advice = "the path leaves the export (.., an absolute path or a symbolic link out)"
        elif number == errno.EAGAIN:
            advice = "a program has a lease on the file (fcntl F_SETLEASE), and was asked to give it up; try again"
        elif number == errno.EINVAL:
            advice = "only regular files can be opened, and block devices as an export of their own"
            if waiting.opening is not None and OpenFlag.DIRECT in waiting.opening.flags:
                advice += "; or the file system does not support O_DIRECT"
        text = errno_message(f"open {waiting.name}", number, advice)
        self._reply(waiting.session, waiting.cookie, -number, text, reason=reason)

    def _closed(self, waiting: _Waiting, result: int) -> None:
        text = errno_message(f"close {waiting.name}", -result) if result < 0 else None
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
