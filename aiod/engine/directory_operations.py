"""NAME requests in flight (docs/operations.md, Directory operations).

Directory operations block, so workers carry them out, and the core confines the path. This module keeps which session
waits for which operation.
"""

from __future__ import annotations

import errno
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aiod.engine.errors import refused
from aiod_protocol.listings import page_entries
from aiod_protocol.names import VERBS, verb_message
from aiod_protocol.reasons import Reason, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod._core import Core, DirectoryResult, Listing, Rate
    from aiod.engine.file_requests import DirectoryRequest, Reply
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings


class AdmitDirectoryRequest(Protocol):
    """Checks a NAME (admission.py)."""

    def __call__(
        self, session: Session, verb: str, export: str, path: str, arguments: dict[str, Any]
    ) -> DirectoryRequest:
        """The checked request. Raises OSError."""


@dataclass(slots=True)
class _Waiting:
    session: Session
    cookie: int
    request: DirectoryRequest
    asked_s: float
    answered: bool = False
    """It hangs, and the client has got an error."""


class DirectoryOperations:
    """Main loop thread only."""

    def __init__(
        self,
        settings: EngineSettings,
        core: Core,
        admit_directory_request: AdmitDirectoryRequest,
        reply: Reply,
        rate_of: Callable[[str], Rate],
    ) -> None:
        """`admit_directory_request` checks a NAME, `reply` answers it, `rate_of` returns the rate of an export."""
        self._rate_of = rate_of
        self._settings = settings
        self._core = core
        self._admit = admit_directory_request
        self._reply = reply
        self._tags = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}

    def apply(self, settings: EngineSettings) -> None:
        """Use another timeout from now on."""
        self._settings = settings

    def describe(self, tag: int) -> tuple[str, str]:
        """Client and request of `tag`."""
        waiting = self._waiting[tag]
        return waiting.session.short_id, waiting.request.what

    def request(
        self, session: Session, cookie: int, verb: str, export: str, path: str, arguments: dict[str, Any]
    ) -> None:
        """Give a NAME to a worker, or refuse it."""
        try:
            request = self._admit(session, verb, export, path, arguments)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        tag = next(self._tags)
        self._waiting[tag] = _Waiting(session, cookie, request, time.monotonic())
        session.directory_requests_inflight += 1
        self._core.directory_operation(
            tag,
            session.peer.transport_name,
            self._rate_of(request.export_name),
            request.verb.number,
            request.root,
            request.path,
            to=request.to,
            cursor=request.cursor,
            mode=request.mode,
            replace=request.replace,
            links=request.links,
            times=request.times,
            value=request.value,
            xattr_flags=request.xattr_flags,
            follow=request.follow,
            as_client=request.as_client,
            timeout_ms=self._settings.open_timeout_ms,
        )

    def time_out(self, older_than_s: float) -> None:
        """Fail the requests that came before `older_than_s` (of time.monotonic()) and hang."""
        for waiting in self._waiting.values():
            if not waiting.answered and waiting.asked_s <= older_than_s:
                waiting.answered = True
                self._timed_out(waiting, "it hangs, unknown whether done", Reason.HANGS)

    def _timed_out(self, waiting: _Waiting, why: str, reason: Reason) -> None:
        if not waiting.session.ended:
            error = refused(errno.ETIMEDOUT, f"{waiting.request.what}: {why}", reason)
            self._reply_error(waiting.session, waiting.cookie, error)

    def _reply_error(self, session: Session, cookie: int, error: OSError) -> None:
        number, text = -(error.errno or errno.EIO), error.strerror or str(error)
        self._reply(session, cookie, number, text, reason=reason_of(error))

    def finished(self, done: DirectoryResult) -> None:
        """Answer a request that has completed."""
        tag, result, reason, outside, found = done
        waiting = self._waiting.pop(tag)
        session, cookie = waiting.session, waiting.cookie
        session.directory_requests_inflight -= 1
        if session.ended or waiting.answered:
            return
        if reason == Reason.DEADLINE:
            self._timed_out(waiting, "no worker was free for it in time; it was not executed", Reason.DEADLINE)
        elif result < 0:
            number, text = _explain(waiting.request, -result, outside=outside)
            self._reply(session, cookie, -number, text, reason=Reason.OUTSIDE if outside else reason)
        else:
            self._reply(session, cookie, result, None, _body(waiting.request, found))


def _explain(request: DirectoryRequest, number: int, *, outside: bool) -> tuple[int, str]:
    """The errno for the client, and the error message."""
    number = errno.EACCES if outside else number
    return number, verb_message(VERBS[request.verb.number], request.what, number, outside=outside)


def _body(request: DirectoryRequest, found: Listing | bytes | None) -> dict[str, Any] | None:
    """The body of REPLY."""
    if found is None:
        return None
    if isinstance(found, bytes):
        return {request.verb.body: found}
    names, stats, following = found
    if request.with_stats:
        return {"names": names, "stats": stats, "next": following}
    return {"entries": page_entries(names, stats), "next": following}
