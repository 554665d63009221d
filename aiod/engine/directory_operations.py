"""A session's names: NAME on its way through a worker (docs/operations.md, Directory operations).

What touches a directory blocks, so workers do it; the core confines the path. Here stands only who waits for which.
"""

from __future__ import annotations

import errno
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod import _core
from aiod.engine.errors import refused
from aiod_client.sentences import sentence
from aiod_protocol.reasons import Reason, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod._core import Core, DirectoryResult, Rate
    from aiod.engine.file_requests import Naming, Reply
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings

_OUTSIDE: Final = "the path leaves the export (.., an absolute path or a symbolic link out)"
_ADVICE: Final = {
    errno.ENOENT: "there is no such name, or no such directory on the way to it",
    errno.EEXIST: "the name is there already",
    errno.ENOTDIR: "it, or a part of the path before it, or the export itself is no directory",
    errno.EINVAL: "the export itself stays; a name is given without a last . or ..",
    errno.EBUSY: "the export itself stays, and so does what is mounted or in use by the kernel",
    errno.ENOTEMPTY: "remove what is in it first",
}
_ADVICE_FOR_VERB: Final = {
    (_core.VERB_REMOVE, errno.EISDIR): "it is a directory: use rmdir",
    (_core.VERB_LIST, errno.EINVAL): "the cursor is none that a page of this directory gave; start with 0",
    (_core.VERB_RENAME, errno.EEXIST): "the new name is there already; ask to replace it, or choose another",
    (_core.VERB_RENAME, errno.EISDIR): "the new name is a directory's; remove that, or choose another",
    (_core.VERB_RENAME, errno.ENOTDIR): "a part of the path or the export is no directory, or a file is in the way",
    (_core.VERB_RENAME, errno.EINVAL): "a directory cannot be moved into itself",
    (_core.VERB_RENAME, errno.EXDEV): "the two are on different file systems; copy it, and remove the old one",
    (_core.VERB_RENAME, errno.EOPNOTSUPP): "its file system cannot rename without replacing; ask to replace",
}


class AdmitName(Protocol):
    """Says what may be done to names."""

    def __call__(self, session: Session, verb: str, export: str, path: str, arguments: dict[str, Any]) -> Naming:
        """What to try, or OSError."""


@dataclass(slots=True)
class _Waiting:
    session: Session
    cookie: int
    naming: Naming
    asked_s: float
    answered: bool = False
    """It hangs, and its client has been told."""


class Names:
    """NAMEs in flight. Main loop thread only."""

    def __init__(
        self,
        settings: EngineSettings,
        core: Core,
        admit_name: AdmitName,
        reply: Reply,
        rate_of: Callable[[str], Rate],
    ) -> None:
        """`admit_name` says what may be done, `reply` answers, `rate_of` has the rate of an export."""
        self._rate_of = rate_of
        self._settings = settings
        self._core = core
        self._admit_name = admit_name
        self._reply = reply
        self._tags = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}

    def apply(self, settings: EngineSettings) -> None:
        """Use another timeout from now on."""
        self._settings = settings

    def describe(self, tag: int) -> tuple[str, str]:
        """Whose `tag` is, and what is done."""
        waiting = self._waiting[tag]
        return waiting.session.short_id, waiting.naming.what

    def request(
        self, session: Session, cookie: int, verb: str, export: str, path: str, arguments: dict[str, Any]
    ) -> None:
        """NAME: let a worker try it, or refuse."""
        try:
            naming = self._admit_name(session, verb, export, path, arguments)
        except OSError as error:
            self._reply_error(session, cookie, error)
            return
        tag = next(self._tags)
        self._waiting[tag] = _Waiting(session, cookie, naming, time.monotonic())
        session.namings_inflight += 1
        self._core.directory_operation(
            tag,
            self._rate_of(naming.export_name),
            naming.verb,
            naming.root,
            naming.path,
            to=naming.to,
            cursor=naming.cursor,
            mode=naming.mode,
            replace=naming.replace,
            links=naming.links,
            as_client=naming.as_client,
            timeout_ms=self._settings.open_timeout_ms,
        )

    def give_up(self, older_than_s: float) -> None:
        """Answer those asked for before `older_than_s` (of time.monotonic()) that hang."""
        for waiting in self._waiting.values():
            if not waiting.answered and waiting.asked_s <= older_than_s:
                waiting.answered = True
                self._timed_out(waiting, "it hangs, unknown whether done", Reason.HANGS)

    def _timed_out(self, waiting: _Waiting, why: str, reason: Reason) -> None:
        if not waiting.session.ended:
            error = refused(errno.ETIMEDOUT, f"{waiting.naming.what}: {why}", reason)
            self._reply_error(waiting.session, waiting.cookie, error)

    def _reply_error(self, session: Session, cookie: int, error: OSError) -> None:
        number, text = -(error.errno or errno.EIO), error.strerror or str(error)
        self._reply(session, cookie, number, text, reason=reason_of(error))

    def finished(self, done: DirectoryResult) -> None:
        """What a worker has done."""
        tag, result, reason, outside, found = done
        waiting = self._waiting.pop(tag)
        session, cookie = waiting.session, waiting.cookie
        session.namings_inflight -= 1
        if session.ended or waiting.answered:
            return
        if reason == Reason.DEADLINE:
            self._timed_out(waiting, "no worker was free for it in time; it was not executed", Reason.DEADLINE)
        elif result < 0:
            number, text = _explain(waiting.naming, -result, outside=outside)
            self._reply(session, cookie, -number, text, reason=Reason.OUTSIDE if outside else reason)
        else:
            self._reply(session, cookie, result, None, _body(found))


def _explain(naming: Naming, number: int, *, outside: bool) -> tuple[int, str]:
    """The errno for the client, and the sentence."""
    if outside:
        return errno.EACCES, sentence(naming.what, errno.EACCES, _OUTSIDE)
    advice = _ADVICE_FOR_VERB.get((naming.verb, number)) or _ADVICE.get(number, "")
    return number, sentence(naming.what, number, advice)


def _body(found: tuple[list[Any], int | None] | bytes | None) -> dict[str, Any] | None:
    """REPLY's body."""
    if found is None:
        return None
    if isinstance(found, bytes):
        return {"stat": found}
    entries, following = found
    return {"entries": entries, "next": following}
