"""Locks of ranges of files, for clients (docs/distributed.md, Locks and fencing).

A worker asks the kernel for a lock and never waits for it (core/ops/file_locks.h): the kernel's queue would hold a
worker for each waiting client, and is known to one host only. This module keeps the waiting requests of the engine in
the order of their arrival, and has the first ones asked for again: soon after a lock of the file was released in this
engine, and now and then because another engine or host may have released one.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod.engine.errors import refused
from aiod.engine.file_requests import LockClaim
from aiod.engine.lock_claims import LockClaims
from aiod_protocol.messages import errno_message
from aiod_protocol.reasons import Reason, reason_of
from aiod_protocol.wire import LOCK_EXCLUSIVE, LOCK_LAST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiod._core import Control, Core
    from aiod.engine.file_requests import Reply
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

TAGS_FROM: Final = 1 << 62
"""The tags of locks begin here; those of opens and closes never get there."""
HELD_MAX: Final = 1024
"""Most locks of a session."""
WAITING_MAX: Final = 64
"""Most lock requests of a session that wait."""
_RETRY_FIRST_S: Final = 0.002
_RETRY_LAST_S: Final = 0.1
_WAIT_MAX_S: Final = 86400.0


@dataclass(slots=True)
class _Held:
    first: int
    last: int
    exclusive: bool
    lost: bool = False
    """Others may have had it since an earlier engine had it for this client; it is not held."""
    regained: bool = False
    """An earlier engine had it for this client, and no other exclusive lock overlapped it since."""


@dataclass(slots=True, eq=False)
class _Wanted:
    """A lock that is being asked for."""

    session: Session
    handle: int
    file: tuple[int, int]
    first: int
    last: int
    exclusive: bool
    deadline_s: float
    answer: Callable[[int], None]
    """Gets the result: the lock's number, or a negative errno; called once."""
    number: int = 0
    """That the lock had with an earlier engine; 0: it is a new one."""
    trying: bool = False
    """A worker asks the kernel."""
    ended: bool = False
    """It was answered. If a worker is trying, it stays in the queue until what that worker gets is released."""
    delay_s: float = _RETRY_FIRST_S
    retry: asyncio.TimerHandle | None = None
    deadline: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class _Unlock:
    session: Session
    handle: int
    first: int
    last: int
    answer: Callable[[int], None]


@dataclass(slots=True)
class _OfHandle:
    """The locks of one handle."""

    file: tuple[int, int]
    held: list[_Held] = field(default_factory=list)
    unlocks: deque[_Unlock] = field(default_factory=deque)
    """The first one is being carried out."""


class _Range(Protocol):
    first: int
    last: int


class Locks:
    """Main loop thread only."""

    def __init__(self, settings: EngineSettings, core: Core, reply: Reply) -> None:
        """`reply` answers a LOCK or UNLOCK."""
        self._settings = settings
        self._core = core
        self._reply = reply
        self._tags = itertools.count(TAGS_FROM)
        self._running: dict[int, _Wanted | _Unlock] = {}  # by tag
        self._waiting: dict[tuple[int, int], list[_Wanted]] = {}  # by file, in the order of arrival
        self._waiting_of: dict[Session, int] = {}  # how many of them
        self._of: dict[Session, dict[int, _OfHandle]] = {}
        self._draining = False
        self._claims = LockClaims(settings.lock_claims_path, self._ask_all)
        self._counts = {"granted": 0, "timed_out": 0, "regained": 0, "lost": 0}

    def apply(self, settings: EngineSettings) -> None:
        """Use other settings for new requests."""
        self._settings = settings

    def start(self) -> None:
        """Begin to wait for the claims of clients whose locks an orderly restart has ended."""
        self._claims.start()

    def stop(self) -> None:
        """End that wait."""
        self._claims.stop()

    def stats(self) -> dict[str, int]:
        """Locks that are held and waited for now, and what became of requests so far."""
        held = sum(self._held_by_process().values())
        return {"held": held, "waiting": sum(self._waiting_of.values())} | self._counts

    def of_session(self, session: Session) -> dict[str, int]:
        """The same of one session, for `aiodctl clients`."""
        held = sum(len(each.held) for each in self._of.get(session, {}).values())
        return {"held": held, "waiting": self._waiting_of.get(session, 0)}

    def of_handle(self, session: Session, handle: int) -> list[dict[str, Any]]:
        """The locks of a handle, for `aiodctl handles`."""
        known = self._of.get(session, {}).get(handle)
        return [
            {
                "offset": each.first,
                "length": 0 if each.last == LOCK_LAST else each.last - each.first + 1,
                "exclusive": each.exclusive,
                "lost": each.lost,
            }
            for each in (known.held if known is not None else ())
        ]

    # ---- requests

    def lock(
        self, session: Session, cookie: int, handle: int, flags: int, offset: int, length: int, wait_ms: int
    ) -> None:
        """LOCK: answered when the lock is held, or was not to be had for `wait_ms`."""
        name = session.names.get(handle, f"handle {handle}")
        try:
            first, last = _range_of(name, offset, length)
            exclusive = bool(flags & LOCK_EXCLUSIVE)
            file = self._check(session, name, handle, flags, first, last)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        wait_s = min(wait_ms / 1000, _WAIT_MAX_S)
        answer = functools.partial(self._answer_lock, session, cookie, name, wait_s)
        self._begin(
            _Wanted(session, handle, file, first, last, exclusive, time.monotonic() + wait_s, answer),
            first_of_all=False,
        )

    def unlock(self, session: Session, cookie: int, handle: int, offset: int, length: int) -> None:
        """UNLOCK: ends what waits for these locks, and releases them after the handle's requests in flight."""
        name = session.names.get(handle, f"handle {handle}")
        try:
            first, last = _range_of(name, offset, length)
            file = self._file_of(session, name, handle)
            wanted = _Held(first, last, exclusive=False)
            of_handle = self._of.setdefault(session, {}).setdefault(handle, _OfHandle(file[:2]))
            if any(_overlap(each, wanted) and not _contains(wanted, each) for each in of_handle.held):
                raise refused(errno.EINVAL, f"unlock {name}: a lock is released as a whole", Reason.BAD_ENTRY)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        for each in self._waiting_in(session):
            if each.handle == handle and _overlap(each, wanted):
                self._end(each, -errno.ECANCELED)
        self._unlock(
            _Unlock(session, handle, first, last, functools.partial(self._answer_unlock, session, cookie, name))
        )

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
        """LOCK of a lock that the client had at an earlier engine: answered with `number`, or EOWNERDEAD if it is lost.

        `number` 0: the client knows that it is lost.
        """
        name = session.names.get(handle, f"handle {handle}")
        try:
            first, last = _range_of(name, offset, length)
            self._check(session, name, handle, flags, first, last)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        answer = functools.partial(self._answer_claim, session, cookie, name, number)
        self.reclaim(session, handle, [LockClaim(bool(flags & LOCK_EXCLUSIVE), first, last, number)], wait_ms, answer)

    def reclaim(
        self,
        session: Session,
        handle: int,
        claims: Sequence[LockClaim],
        wait_ms: int,
        then: Callable[[list[bool]], None],
    ) -> None:
        """Regain the locks (at least one) of the client at an earlier engine; `then` gets which of them it has again.

        Until every lost one is released by UNLOCK, or taken anew, the handle's requests are refused.
        """
        session.core.set_locks(handle, held=True, lost=True, regained=[])
        file = session.core.file_of(handle)
        assert file is not None, "the handle is open"  # noqa: S101 - a mistake of ours
        of_handle = self._of.setdefault(session, {}).setdefault(handle, _OfHandle(file[:2]))
        results: dict[int, bool] = {}

        def answered(index: int, result: int) -> None:
            results[index] = result >= 0
            known = self._of.get(session, {}).get(handle)
            # A stopping daemon answers nothing: the client claims its locks from the next one.
            if len(results) == len(claims) and known is of_handle and not self._draining:
                self._reclaimed(session, handle, of_handle, claims, [results[i] for i in range(len(claims))], then)

        deadline_s = time.monotonic() + min(wait_ms / 1000, _WAIT_MAX_S)
        wanted = []
        for index, claim in enumerate(claims):
            answer = functools.partial(answered, index)
            each = _Wanted(session, handle, file[:2], claim.first, claim.last, claim.exclusive, deadline_s, answer)
            each.number = claim.number
            wanted.append(each)
        for index, each in enumerate(wanted):
            if each.number == 0 or index >= HELD_MAX:
                each.answer(-errno.EOWNERDEAD)
            else:
                self._begin(each, first_of_all=True)

    def _reclaimed(
        self,
        session: Session,
        handle: int,
        of_handle: _OfHandle,
        claims: Sequence[LockClaim],
        results: list[bool],
        then: Callable[[list[bool]], None],
    ) -> None:
        for claim, held in zip(claims, results, strict=True):
            of_handle.held.append(_Held(claim.first, claim.last, claim.exclusive, lost=not held, regained=held))
        self._counts["regained"] += sum(results)
        self._counts["lost"] += len(results) - sum(results)
        if not all(results):
            log.warning(
                "%s: %d of %d locks of %s are lost: others may have had them",
                session,
                len(results) - sum(results),
                len(results),
                session.names.get(handle, f"handle {handle}"),
                extra=session.about,
            )
        self._tell_core(session, handle, of_handle)
        then(results)
        self._claims.claimed(len(claims))

    def drain(self) -> None:
        """Refuse every lock request from now on, and those that wait: the daemon is stopping.

        The next engine lets the clients that have locks claim them.
        """
        self._draining = True
        self._claims.leave(self._held_by_process())
        for session in [*self._waiting_of]:
            for wanted in self._waiting_in(session):
                self._end(wanted, -errno.ESHUTDOWN)

    def closed(self, session: Session, handle: int) -> None:
        """The handle is being closed: the core releases its locks."""
        known = self._of.get(session, {}).pop(handle, None)
        for wanted in self._waiting_in(session):
            if wanted.handle == handle:
                self._end(wanted, -errno.ECANCELED)
        if known is not None:
            self._hurry(known.file)

    def moved(self, session: Session, handle: int) -> None:
        """The handle has another description, since its mount or server has given up the old: its locks are lost."""
        known = self._of.get(session, {}).get(handle)
        if known is not None and known.held:
            for each in known.held:
                each.lost, each.regained = True, False
            self._counts["lost"] += len(known.held)
            self._tell_core(session, handle, known)

    def ended(self, session: Session) -> None:
        """The session has ended: the core closes its handles."""
        for wanted in self._waiting_in(session):
            self._end(wanted, -errno.ECANCELED)
        for known in self._of.pop(session, {}).values():
            self._hurry(known.file)

    def describe(self, tag: int) -> tuple[str, str]:
        """Client and file of the lock or unlock `tag`; both empty if no client waits for it."""
        running = self._running.get(tag)
        if running is None:
            return "", ""
        return running.session.short_id, running.session.names.get(running.handle, "")

    def _held_by_process(self) -> dict[int, int]:
        """The number of locks that the clients of each pid have."""
        held: dict[int, int] = {}
        for session, handles in self._of.items():
            locks = sum(len(each.held) for each in handles.values())
            if locks:
                held[session.peer.pid] = held.get(session.peer.pid, 0) + locks
        return held

    # ---- checks

    def _file_of(self, session: Session, name: str, handle: int) -> tuple[int, int, bool, bool]:
        file = session.core.file_of(handle)
        if file is None:
            text = f"lock {name}: the handle is unknown in this session, or no file's"
            raise refused(errno.EBADF, text, Reason.NO_HANDLE)
        return file

    def _check(self, session: Session, name: str, handle: int, flags: int, first: int, last: int) -> tuple[int, int]:
        """Check a LOCK; the file's device and inode. Raises OSError."""
        what = f"lock {name}"
        if self._draining:
            raise refused(errno.ESHUTDOWN, f"{what}: the daemon is stopping", Reason.STOPPING)
        if flags & ~LOCK_EXCLUSIVE:
            raise refused(errno.EINVAL, f"{what}: unknown bits in flags {flags:#x}", Reason.BAD_ENTRY)
        dev, ino, readable, writable = self._file_of(session, name, handle)
        if flags & LOCK_EXCLUSIVE and not writable:
            text = f"{what}: an exclusive lock needs a file that is open for writing; a shared one does not"
            raise refused(errno.EBADF, text, Reason.NO_ACCESS)
        if not flags & LOCK_EXCLUSIVE and not readable:
            raise refused(errno.EBADF, f"{what}: a shared lock needs a file that is open for reading", Reason.NO_ACCESS)
        export = name.partition("/")[0]
        settings = self._settings.exports.get(export)
        if settings is not None and not settings.locks:
            text = f"{what}: the export {export} does not allow it; its option locks does"
            raise refused(errno.EPERM, text, Reason.NOT_ALLOWED)
        self._check_own(session, what, handle, (dev, ino), _Held(first, last, exclusive=False))
        return dev, ino

    def _check_own(self, session: Session, what: str, handle: int, file: tuple[int, int], wanted: _Held) -> None:
        """Check a LOCK beside the other locks of its session. Raises OSError."""
        handles = self._of.get(session, {})
        known = handles.get(handle, _OfHandle(file))
        own: list[_Range] = [each for each in self._waiting_in(session) if each.handle == handle]
        own += [each for each in known.held if not each.lost and not _is_releasing(known, each)]
        if any(_overlap(each, wanted) for each in own):
            text = f"{what}: this open file has, or waits for, a lock of a part of the range: release it first"
            raise refused(errno.EDEADLK, text, Reason.BAD_ENTRY)
        if self._waiting_of.get(session, 0) >= WAITING_MAX:
            text = f"{what}: {WAITING_MAX} lock requests of the session wait already; wait for some"
            raise refused(errno.EAGAIN, text, Reason.LIMIT)
        if sum(len(each.held) for each in handles.values()) >= HELD_MAX:
            raise refused(errno.ENOLCK, f"{what}: the session has {HELD_MAX} locks; release some", Reason.LIMIT)

    def _waiting_in(self, session: Session) -> list[_Wanted]:
        if session not in self._waiting_of:
            return []
        return [
            each for queue in self._waiting.values() for each in queue if each.session is session and not each.ended
        ]

    # ---- the queues

    def _begin(self, wanted: _Wanted, *, first_of_all: bool) -> None:
        queue = self._waiting.setdefault(wanted.file, [])
        queue.insert(0 if first_of_all else len(queue), wanted)
        self._waiting_of[wanted.session] = self._waiting_of.get(wanted.session, 0) + 1
        wait_s = max(0.0, wanted.deadline_s - time.monotonic())
        wanted.deadline = asyncio.get_running_loop().call_later(wait_s, self._expired, wanted)
        self._ask(wanted.file)

    def _expired(self, wanted: _Wanted) -> None:
        """The time is up. The last attempt, if there is one, counts."""
        if not wanted.trying:
            self._end(wanted, -errno.ETIMEDOUT)

    def _ask(self, file: tuple[int, int]) -> None:
        """Ask for the file's waiting locks, but for those behind another one that they conflict with."""
        before: list[_Wanted] = []
        for wanted in [*self._waiting.get(file, ())]:
            if not (wanted.trying or wanted.ended or wanted.retry or self._must_wait(wanted, before)):
                self._try(wanted)
            before.append(wanted)

    def _must_wait(self, wanted: _Wanted, before: Sequence[_Wanted]) -> bool:
        if self._claims.awaited and wanted.number == 0:
            return True
        if any(_conflict(each, wanted) for each in before):
            return True
        known = self._of.get(wanted.session, {}).get(wanted.handle)
        return known is not None and any(_overlap(unlock, wanted) for unlock in known.unlocks)

    def _try(self, wanted: _Wanted) -> None:
        tag = next(self._tags)
        try:
            self._core.lock(
                tag,
                wanted.session.core,
                wanted.handle,
                exclusive=wanted.exclusive,
                first=wanted.first,
                last=wanted.last,
                regain=wanted.number,
            )
        except OSError as error:
            self._end(wanted, -(error.errno or errno.EIO))
            return
        wanted.trying = True
        self._running[tag] = wanted

    def finished(self, control: Control) -> None:
        """Take the result of a worker."""
        tag, result, *_ = control
        running = self._running.pop(tag)
        if isinstance(running, _Unlock):
            self._unlocked(running, result)
            return
        running.trying = False
        if running.ended:
            self._undo(running, result)
        elif result != -errno.EAGAIN:
            self._end(running, result)
        elif time.monotonic() >= running.deadline_s:
            self._end(running, -errno.ETIMEDOUT)
        else:
            self._ask_later(running)

    def _undo(self, wanted: _Wanted, result: int) -> None:
        """Release what a worker has got for a client that does not want it any more."""
        session, handle = wanted.session, wanted.handle
        if result < 0 or session.ended or session.core.file_of(handle) is None:
            self._remove(wanted)
        else:
            self._unlock(_Unlock(session, handle, wanted.first, wanted.last, lambda _: self._remove(wanted)))

    def _ask_all(self) -> None:
        for file in [*self._waiting]:
            self._ask(file)

    def _ask_later(self, wanted: _Wanted) -> None:
        wait_s = min(wanted.delay_s, max(0.0, wanted.deadline_s - time.monotonic()))
        wanted.delay_s = min(wanted.delay_s * 1.5, _RETRY_LAST_S)
        wanted.retry = asyncio.get_running_loop().call_later(wait_s, self._ask_again, wanted)

    def _ask_again(self, wanted: _Wanted) -> None:
        wanted.retry = None
        self._ask(wanted.file)

    def _hurry(self, file: tuple[int, int]) -> None:
        """A lock of the file is being released in this engine: ask soon."""
        for wanted in self._waiting.get(file, ()):
            wanted.delay_s = _RETRY_FIRST_S
            if wanted.retry is not None:
                wanted.retry.cancel()
                self._ask_later(wanted)
        self._ask(file)

    def _end(self, wanted: _Wanted, result: int) -> None:
        """Answer a lock request, and let those behind it have their turn."""
        wanted.ended = True
        for timer in (wanted.retry, wanted.deadline):
            if timer is not None:
                timer.cancel()
        wanted.retry = None
        left = self._waiting_of.pop(wanted.session, 1) - 1
        if left > 0:
            self._waiting_of[wanted.session] = left
        if result >= 0 and wanted.number == 0:
            self._granted(wanted)
        if not wanted.trying:
            self._remove(wanted)
        wanted.answer(result)

    def _remove(self, wanted: _Wanted) -> None:
        queue = self._waiting[wanted.file]
        queue.remove(wanted)
        if not queue:
            del self._waiting[wanted.file]
        self._ask(wanted.file)

    def _granted(self, wanted: _Wanted) -> None:
        session = wanted.session
        if session.ended:
            return
        self._counts["granted"] += 1
        of_handle = self._of.setdefault(session, {}).setdefault(wanted.handle, _OfHandle(wanted.file))
        of_handle.held = [each for each in of_handle.held if not (each.lost and _overlap(each, wanted))]
        of_handle.held.append(_Held(wanted.first, wanted.last, wanted.exclusive))
        self._tell_core(session, wanted.handle, of_handle)

    def _tell_core(self, session: Session, handle: int, of_handle: _OfHandle) -> None:
        if session.core.file_of(handle) is None:
            return
        regained = [(each.first, each.last) for each in of_handle.held if each.regained and each.exclusive]
        lost = any(each.lost for each in of_handle.held)
        session.core.set_locks(handle, held=bool(of_handle.held), lost=lost, regained=regained)

    # ---- unlocking

    def _unlock(self, unlock: _Unlock) -> None:
        """Carry it out after the earlier ones of its handle."""
        file = unlock.session.core.file_of(unlock.handle)
        known = self._of.setdefault(unlock.session, {}).setdefault(
            unlock.handle, _OfHandle(file[:2] if file is not None else (0, 0))
        )
        known.unlocks.append(unlock)
        if len(known.unlocks) == 1:
            self._start_unlock(unlock)

    def _start_unlock(self, unlock: _Unlock) -> None:
        tag = next(self._tags)
        try:
            self._core.unlock(tag, unlock.session.core, unlock.handle, first=unlock.first, last=unlock.last)
        except OSError as error:
            self._unlocked(unlock, -(error.errno or errno.EIO))
            return
        self._running[tag] = unlock

    def _unlocked(self, unlock: _Unlock, result: int) -> None:
        known = self._of.get(unlock.session, {}).get(unlock.handle)
        if known is not None:
            known.unlocks.popleft()
            if result == -errno.EBADFD:  # the server has given up the open file, and its locks
                result = 0
                for each in known.held:
                    each.lost = True
            if result >= 0:
                result = sum(each.lost for each in known.held if _contains(unlock, each))
                known.held = [each for each in known.held if not _contains(unlock, each)]
                self._tell_core(unlock.session, unlock.handle, known)
            if known.unlocks:
                self._start_unlock(known.unlocks[0])
            elif not known.held:
                del self._of[unlock.session][unlock.handle]
            self._hurry(known.file)
        unlock.answer(result)

    # ---- answers

    def _answer_lock(self, session: Session, cookie: int, name: str, wait_s: float, result: int) -> None:
        if session.ended:
            return
        if result >= 0:
            self._reply(session, cookie, result)
            return
        number, text, reason = -result, errno_message(f"lock {name}", -result), Reason.BY_KERNEL
        if number == errno.ETIMEDOUT:
            self._counts["timed_out"] += 1
            reason = Reason.DEADLINE
            if wait_s == 0:
                number = errno.EAGAIN
            text = f"lock {name}: another one has a lock of a part of the range (waited {wait_s:g} s)"
            if self._claims.awaited:
                text = f"lock {name}: the daemon was restarted, and lets its earlier clients claim their locks first"
        elif number == errno.ECANCELED:
            reason, text = Reason.CANCELLED, f"lock {name}: cancelled"
        elif number == errno.ESHUTDOWN:
            reason, text = Reason.STOPPING, f"lock {name}: the daemon is stopping"
        elif number in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            text = errno_message(f"lock {name}", number, "the file system has no locks here (a mount option, perhaps)")
        self._reply(session, cookie, -number, text, reason=reason)

    def _answer_claim(self, session: Session, cookie: int, name: str, number: int, held: list[bool]) -> None:
        if all(held):
            self._reply(session, cookie, number)
        else:
            text = f"lock {name}: the lock is lost with its engine: others may have had it since"
            self._reply(session, cookie, -errno.EOWNERDEAD, text, reason=Reason.LOCK_LOST)

    def _answer_unlock(self, session: Session, cookie: int, name: str, result: int) -> None:
        if not session.ended:
            text = errno_message(f"unlock {name}", -result) if result < 0 else None
            self._reply(session, cookie, result, text)

    def _reply_error(self, session: Session, cookie: int, error: OSError) -> None:
        number, text = -(error.errno or errno.EIO), error.strerror or str(error)
        self._reply(session, cookie, number, text, reason=reason_of(error))


def _range_of(name: str, offset: int, length: int) -> tuple[int, int]:
    """First and last byte; `length` 0: up to the last byte that a file can have. Raises OSError."""
    last = LOCK_LAST if length == 0 else offset + length - 1
    if offset > LOCK_LAST or last > LOCK_LAST:
        raise refused(errno.EINVAL, f"lock {name}: the range ends behind {LOCK_LAST}", Reason.BAD_ENTRY)
    return offset, last


def _overlap(one: _Range, other: _Range) -> bool:
    return one.first <= other.last and other.first <= one.last


def _contains(one: _Range, other: _Range) -> bool:
    return one.first <= other.first and other.last <= one.last


def _conflict(one: _Wanted, other: _Wanted) -> bool:
    """Whether they cannot be held at once; two of one handle are one lock for the kernel."""
    of_one_handle = (one.session, one.handle) == (other.session, other.handle)
    return _overlap(one, other) and (one.exclusive or other.exclusive or of_one_handle)


def _is_releasing(known: _OfHandle, held: _Held) -> bool:
    return any(_contains(unlock, held) for unlock in known.unlocks)
