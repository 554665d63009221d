"""What happens to unanswered requests when an engine has gone, and when another engine continues the session.

- A change of a file that is harmless to repeat is *replayed*: marked REPEAT, before anything new.
- What only reads, and what was not sent, is sent again like something new.
- What must not be done twice (an append, a truncate, ...) fails: its outcome is unknown.
- Where the session continues at another daemon, what was to be replayed fails, too: the daemon before may be frozen or
  cut off, and carry it out later.

Protected by whatever protects the session.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from aiod_client.errors import NOT_SENT, UNKNOWN, SessionLostError, set_reason
from aiod_client.requests.pending import Call, Request
from aiod_protocol.operations import OpFlag, changes_file
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod_client.requests.pending import Pending
    from aiod_client.session.backlog import Backlog
    from aiod_client.session.open_files import OpenFiles

_REPEAT: Final = int(OpFlag.REPEAT)


class Replay:
    """Sorts the unanswered requests of one session into its backlog."""

    def __init__(self, backlog: Backlog, files: OpenFiles) -> None:
        self._backlog = backlog
        self._files = files

    def take_back(
        self, requests: list[Request], reason: OSError, fits: Callable[[Request], bool], *, drained: bool
    ) -> list[Pending]:
        """Queue `requests`, which the engine that has gone for `reason` has not answered. Returns those that fail.

        `fits(request)` splits a request that is too long for one record; False: it cannot be split, and has failed.
        `drained`: the engine has said that it has executed none of them.
        """
        failed: list[Pending] = []
        first: list[Request | Call] = []
        for request in requests:
            if request.done:
                continue
            self._backlog.drop_parts(request)
            # Of a request in parts other parts may have been done; that is no harm if it may be done twice.
            request.sent &= not drained or (request.split is not None and not self._files.may_repeat(request))
            request.split, request.by_ring = None, False
            if request.sent and not self._files.may_repeat(request):
                request.fail(unknown(request, reason))
                failed.append(request)
            elif fits(request):
                if request.sent and changes_file(request.op):
                    request.flags |= _REPEAT
                    self._backlog.replays.append(request)
                else:
                    first.append(request)
        self._backlog.put_first(first)
        return failed

    def take_back_call(self, call: Call, reason: OSError, used: set[int]) -> list[Pending]:
        """Queue the unanswered `call` before everything else, if it may be sent again. Returns what is done.

        `used`: the handles that requests wait for.
        """
        if call.kind == MessageType.CANCEL:  # what it was about is sent again, or has failed
            call.result, call.done = (0, None), True
            return [call]
        if call.kind == MessageType.CLOSE and call.sent and call.handle not in used:
            # Not opened again, it is closed. The engine may have closed it, and given its slot to another file.
            self._files.closed(call.handle)
            call.result, call.done = (0, None), True
            return [call]
        if call.done and call.kind != MessageType.CLOSE:
            return [call]
        if call.kind == MessageType.OPEN and call.result is not None:
            # A signal's handler has raised as the answer was taken. The session continues without that file.
            self._files.pop(call.result[0], None)
            call.result = None
        if call.sent and not call.may_repeat:
            call.fail(unknown(call, reason))
            return [call]
        self._backlog.put_first([call])
        return []

    def fail_replays(self, reason: OSError) -> list[Pending]:
        """Fail the replays: another daemon cannot tell whether the one before has carried them out, or still will.

        But those under an exclusive lock that was regained: the one before has lost the lock, so it will not.
        """
        failed: list[Pending] = []
        kept: list[Request | Call] = []
        for pending in list(self._backlog.replays):
            if isinstance(pending, Request):
                if self._files.is_guarded(pending):
                    kept.append(pending)
                    continue
                self._files.doubt(pending.handle)
            pending.fail(unknown(pending, reason))
            failed.append(pending)
        self._backlog.replays.clear()
        self._backlog.replays.extend(kept)
        return failed

    def drop_closes(self) -> list[Pending]:
        """Take out each CLOSE of what is no file's: the next engine gives its number to another. Returns these."""
        dropped: list[Pending] = []
        for call in self._backlog.unsent():
            if isinstance(call, Call) and call.kind == MessageType.CLOSE and call.handle not in self._files:
                self._backlog.drop(call)
                call.result, call.done = (0, None), True
                dropped.append(call)
        return dropped

    def fail_lost(self) -> list[Pending]:
        """Fail what waits for files that the new engine could not open again."""
        failed: list[Pending] = []
        for pending in [*self._backlog.replays, *self._backlog.new]:
            error = self._files.why_lost(pending)
            if error is not None:
                state = UNKNOWN if pending.sent else NOT_SENT
                self._backlog.splits.discard(pending)
                self._backlog.drop(pending)
                pending.fail(type(error)(error.errno, f"{pending}: {state}: {error.strerror}"))
                failed.append(pending)
        return failed


def unknown(pending: Pending, reason: OSError) -> OSError:
    """The exception for a request that may have been done at the daemon that has gone for `reason`."""
    error = SessionLostError(errno.EIO, f"{pending}: {UNKNOWN}: {reason.strerror}")
    set_reason(error, Reason.UNKNOWN)
    return error
