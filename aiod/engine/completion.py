"""The completion eventfd: reap, make replies, send them. Never blocks.

Completions that workers finish while a turn of the loop runs are one reap, and per session one message.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any, Final

from aiod import _core
from aiod.engine.errors import errno_name, sentence
from aiod_client import wire
from aiod_client.wire import MessageType, Op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiod._core import Completions, Control, Core, Failure, NamingResult
    from aiod.engine.model import Session

_ADVICE: Final = {
    _core.REASON_HANDLE: "the handle is unknown in this session, or closed; open the file again",
    _core.REASON_ACCESS: "the handle was not opened for this operation; open the file with the right mode",
    _core.REASON_RECORD: "an unknown operation, flags that it has not, or an offset or a length out of range",
    _core.REASON_LENGTH: "longer than request_bytes_max, or than 1 GiB; split it",
    _core.REASON_CREDIT: "over the session's credit; wait for completions before submitting more",
    _core.REASON_CANCELLED: "cancelled before it was started; it was not executed",
    _core.REASON_DEADLINE: "its deadline passed while it was queued; it was not executed",
    _core.REASON_NO_THREADS: "no worker thread could be created (TasksMax, RLIMIT_NPROC); try again later",
    _core.REASON_POISONED: "an earlier flush of this file failed, so data may be lost; close all its handles first",
    _core.REASON_STOPPING: "the daemon is stopping; it was not executed",
    _core.REASON_IOCTL: "the export does not list this number with this size of its argument under `ioctls`",
}

_KERNEL_ADVICE: Final = {
    errno.ENOMEM: "not enough memory for its buffer",
    errno.EINVAL: "this kind of file, or a device's block size or end, does not allow it",
    errno.EOPNOTSUPP: "the file system or device cannot do this",
    errno.EPERM: "the file is immutable, append-only or sealed",
}

# Looked up once: in Python 3.11 a look at an IntEnum's member costs as much as a call.
_COMPLETE: Final = int(MessageType.COMPLETE)
_SENTENCES_BYTES_MAX: Final = wire.HEADER_BYTES_MAX - 1024
_OPS: Final = {int(op): op.name.lower() for op in Op}


class Completion:
    """Reaps and replies. Main loop thread only."""

    def __init__(
        self,
        core: Core,
        send_to: Callable[[Session, Sequence[Any], Sequence[Any]], None],
        control_finished: Callable[[Control], None],
        naming_finished: Callable[[NamingResult], None],
        end_session: Callable[[Session, str], None],
        reaped: Callable[[], None],
    ) -> None:
        """`send_to` sends to a session, the next two get opens and closes, and names; `reaped` follows each reap.

        `end_session` gets those that broke a rule by their ring.
        """
        self._core = core
        self._send_to = send_to
        self._control_finished = control_finished
        self._naming_finished = naming_finished
        self._end_session = end_session
        self._reaped = reaped

    def start(self) -> None:
        """Watch the completion eventfd."""
        asyncio.get_running_loop().add_reader(self._core.completion_fd, self.reap)

    def stop(self) -> None:
        """Watch it no more."""
        asyncio.get_running_loop().remove_reader(self._core.completion_fd)

    def reap(self) -> None:
        """Take what has completed, and send it off."""
        replies, controls, namings, broken = self._core.reap()
        for core_session, completions in replies:
            session = core_session.tag
            if session is not None:
                self.send(session, completions)
        for control in controls:
            self._control_finished(control)
        for naming in namings:
            self._naming_finished(naming)
        for core_session, why in broken:
            if core_session.tag is not None:
                self._end_session(core_session.tag, why)
        self._reaped()

    def send(self, session: Session, completions: Completions) -> None:
        """COMPLETE for `session`."""
        records, frames, failures = completions
        sentences = _explain_all(session, failures, _SENTENCES_BYTES_MAX - len(records)) if failures else {}
        self._send_to(session, [_COMPLETE, records, sentences], frames)


def _explain_all(session: Session, failures: Sequence[Failure], bytes_max: int) -> dict[int, str]:
    """Index of a record -> its sentence; the errno's name alone where sentences would not fit the header."""
    sentences = {failure[0]: _explain(session, failure) for failure in failures}
    if sum(map(len, sentences.values())) * 4 > bytes_max:
        return {failure[0]: errno_name(failure[5]) for failure in failures}
    return sentences


def _explain(session: Session, failure: Failure) -> str:
    """The sentence for one failed record."""
    _, op, handle, offset, length, number, reason = failure
    name = session.names.get(handle, f"handle {handle}")
    what = f"{_OPS.get(op, 'unknown operation')}{_extent(op, offset, length)} on {name}"
    if reason == _core.REASON_KERNEL:
        return sentence(what, number, _KERNEL_ADVICE.get(number, ""))
    return f"{what}: {_ADVICE[reason]} ({errno_name(number)})"


def _extent(op: int, offset: int, length: int) -> str:
    """Which part of the file it was about."""
    if op == Op.IOCTL:
        return f" {offset:#x}"
    if op == Op.TRUNCATE:
        return f" to {length} bytes"
    if op == Op.APPEND:
        return f" of {length} bytes"
    return f" of {length} bytes at {offset}" if length else ""
