"""Requests that one caller submits to the native ring itself, past the session: reads and writes of File.

Such a request costs a third of one that goes through the session. The session does what the ring cannot do, and
repeats what the ring has ended because its engine has gone.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Protocol

from aiod_client.errors import (
    NOT_EXECUTED,
    UNKNOWN,
    AiodError,
    Failure,
    SessionLostError,
    timed_out,
)
from aiod_protocol.messages import failure_message
from aiod_protocol.reasons import Reason, parse_reason
from aiod_protocol.ring_wire import RingShutdownNotice

if TYPE_CHECKING:
    from aiod_client._ring import Failure as RingFailure
    from aiod_client._ring import Ring
    from aiod_client.requests.pending import Request

_NOT_EXECUTED: Final = frozenset({Reason.STOPPING, Reason.NOT_TAKEN})
"""Reasons of requests that have ended with the engine or the ring, and were not executed."""

LOST: Final = SessionLostError(errno.ECONNRESET, "the engine has closed the ring, or is gone")


class RingHolder(Protocol):
    """An object with the ring to use, or None at the moment."""

    ring: Ring | None


class _NoRing:
    """The holder of a closed file."""

    ring: Ring | None = None


NO_RING: Final = _NoRing()


def is_lost(failure: RingFailure) -> bool:
    """Whether `failure` says that the ring or the engine has gone, or is stopping."""
    result, _, reason = failure
    return reason in _NOT_EXECUTED or (reason == Reason.BY_KERNEL and result in {-errno.ECONNRESET, -errno.ESHUTDOWN})


def may_be_done(ring: Ring, failure: RingFailure) -> bool:
    """Whether a request that `ring` has ended with `failure`, as its engine was going, may have been executed."""
    return failure[2] not in _NOT_EXECUTED and not ring.shutdown_notice & RingShutdownNotice.DRAINED


def failed(
    failure: RingFailure, request: Request, name: str, timeout_s: float, ended: OSError | None, lost: OSError | None
) -> OSError:
    """The exception for the `failure` of `request` in the native ring (`request.sent`: it may have been executed).

    `ended` is why the session has ended, if it has; `lost` why a file of `request` could not be opened again.
    """
    result, written, reason = failure
    if reason < 0:
        return timed_out(f"{name}: {request}", timeout_s, sent=True)
    if is_lost(failure):
        why = ended or LOST
        return type(why)(why.errno, f"{request}: {UNKNOWN if request.sent else NOT_EXECUTED}: {why.strerror}")
    if result == -errno.EBADF and lost is not None:
        return type(lost)(lost.errno, f"{request}: {NOT_EXECUTED}: {lost.strerror}")
    message = failure_message(request.op, name, request.offset, request.length, -result, reason)
    return Failure(-result, message, written, parse_reason(reason)).error()


def memory_of(ring: Ring | None, nbytes: int) -> memoryview:
    """Writable memory of the ring's buffer pool; plain memory without a ring. Raises AiodError (ENOBUFS)."""
    if ring is None:
        return memoryview(bytearray(nbytes))
    memory = ring.buffer(nbytes)
    if memory is None:
        raise AiodError(errno.ENOBUFS, f"a buffer of {nbytes} bytes: the ring's buffer pool has no room for it now")
    return memoryview(memory)
