"""Reaps completions when the completion eventfd is readable, and sends them. Never blocks.

The completions that workers finish during one turn of the loop are reaped together, and make one message per session. A
worker that goes on with the next short write of a file does not ring the eventfd for each of them (core/pool/worker.c).
Should that next write hang, a timer reaps what is done.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiod_protocol import wire
from aiod_protocol.messages import errno_name, failure_message
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiod._core import AttachResult, Completions, Control, Core, DirectoryResult, Failure
    from aiod.engine.session import Session

# Looked up once: in Python 3.11 the lookup of an IntEnum's member costs as much as a call.
_COMPLETE: Final = int(MessageType.COMPLETE)
_LOOK_MIN_S: Final = 0.002
_LOOK_MAX_S: Final = 0.064
_MESSAGES_BYTES_MAX: Final = wire.HEADER_BYTES_MAX - 1024


class Completion:
    """Main loop thread only."""

    def __init__(
        self,
        core: Core,
        send_to: Callable[[Session, Sequence[Any], Sequence[Any]], None],
        control_finished: Callable[[Control], None],
        directory_request_finished: Callable[[DirectoryResult], None],
        end_session: Callable[[Session, str], None],
        ring_finished: Callable[[AttachResult], None],
        close_for_ring: Callable[[Session, int], None],
        reaped: Callable[[], None],
    ) -> None:
        """`send_to` sends a message to a session. The other functions get results of each kind.

        `control_finished` gets opens and closes, `directory_request_finished` NAMEs, `end_session` sessions whose
        client broke a rule of the ring, `ring_finished` rings whose memory is made, or cannot be made, `close_for_ring`
        handles that clients close by their rings. `reaped()` follows each reap.
        """
        self._core = core
        self._send_to = send_to
        self._control_finished = control_finished
        self._directory_request_finished = directory_request_finished
        self._end_session = end_session
        self._ring_finished = ring_finished
        self._close_for_ring = close_for_ring
        self._reaped = reaped
        self._look_timer: asyncio.TimerHandle | None = None
        self._look_s = 0.0

    def start(self) -> None:
        """Watch the completion eventfd."""
        asyncio.get_running_loop().add_reader(self._core.completion_fd, self.reap)

    def stop(self) -> None:
        """Stop watching the completion eventfd."""
        asyncio.get_running_loop().remove_reader(self._core.completion_fd)
        if self._look_timer is not None:
            self._look_timer.cancel()

    def look_soon(self) -> None:
        """Several requests are in flight: look in a moment whether some are done that nobody has announced."""
        if self._look_timer is None or self._look_s > _LOOK_MIN_S:
            self._look_in(_LOOK_MIN_S)

    def _look_in(self, delay_s: float) -> None:
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._look_s = delay_s
        self._look_timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        self._look_timer = None
        self.reap()
        if self._core.inflight:
            self._look_in(min(2 * self._look_s, _LOOK_MAX_S))

    def reap(self) -> None:
        """Take everything that has completed, and hand it on."""
        replies, controls, directory_results, broken, attached, to_close = self._core.reap()
        for core_session, handle in to_close:
            # Closing a file answers the requests that wait for its locks, and that may end the session.
            if core_session.tag is not None:
                self._close_for_ring(core_session.tag, handle)
        for core_session, completions in replies:
            session = core_session.tag
            if session is not None:
                self.send(session, completions)
        for control in controls:
            self._control_finished(control)
        for done in directory_results:
            self._directory_request_finished(done)
        for core_session, why in broken:
            if core_session.tag is not None:
                self._end_session(core_session.tag, why)
        for result in attached:
            self._ring_finished(result)
        self._reaped()

    def send(self, session: Session, completions: Completions) -> None:
        """Send COMPLETE to `session`."""
        records, frames, failures = completions
        messages = _explain_all(session, failures, _MESSAGES_BYTES_MAX - len(records)) if failures else {}
        self._send_to(session, [_COMPLETE, records, messages], frames)


def _explain_all(session: Session, failures: Sequence[Failure], bytes_max: int) -> dict[int, str]:
    """Index of a record -> its error message; only the errno's name if the messages do not fit the header."""
    messages = {failure[0]: _explain(session, failure) for failure in failures}
    if sum(map(len, messages.values())) * 4 > bytes_max:
        return {failure[0]: errno_name(failure[5]) for failure in failures}
    return messages


def _explain(session: Session, failure: Failure) -> str:
    """The error message of one failed record."""
    _, op, handle, offset, length, number, reason = failure
    return failure_message(op, session.names.get(handle, f"handle {handle}"), offset, length, number, reason)
