"""Checks the arguments of lock() and unlock(), and makes their calls: for both clients."""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiod_client.errors import lock_lost, refused_here
from aiod_client.requests.pending import Call
from aiod_client.requests.timeouts import seconds
from aiod_protocol.wire import LOCK_EXCLUSIVE, LOCK_LAST, MessageType

if TYPE_CHECKING:
    from aiod_client.errors import LockLostError

_WAIT_MAX_MS: Final = 86_400_000
"""The daemon's limit: a day."""


@dataclass(slots=True)
class LockState:
    """A lock of a file that the daemon has granted."""

    exclusive: bool
    number: int
    """The result of its LOCK, by which the next engine knows whether others have had it since; 0: it cannot."""
    lost: bool = False


def lock_call(handle: int, name: str, *, exclusive: bool, offset: int, length: int | None, wait_s: float) -> Call:
    """The LOCK of `handle`. Raises ValueError for a range or a time that there is none of."""
    size = _checked(offset, length)
    wait_s = seconds(wait_s)
    wait_ms = _WAIT_MAX_MS if wait_s == math.inf else max(0, min(math.ceil(wait_s * 1000), _WAIT_MAX_MS))
    flags = LOCK_EXCLUSIVE if exclusive else 0
    return Call(MessageType.LOCK, handle, flags, offset, size, wait_ms, handle=handle, filename=name)


def unlock_call(handle: int, name: str, offset: int, length: int | None) -> Call:
    """The UNLOCK of `handle`."""
    return Call(MessageType.UNLOCK, handle, offset, _checked(offset, length), handle=handle, filename=name)


def no_locks(name: str) -> OSError:
    """The exception for a daemon that is older than locks."""
    return refused_here(errno.EOPNOTSUPP, f"lock {name}: the daemon is too old for locks", name)


def check_held(state: LockState | None, name: str, *, ended: bool) -> LockLostError | None:
    """The exception for a lock that is not held any more, though it was not released; None: it is held."""
    if ended or (state is not None and state.lost):
        return lock_lost(name)
    return None


def _checked(offset: int, length: int | None) -> int:
    """The length on the wire, where 0 reaches to the end."""
    size = 0 if length is None else length
    if offset < 0 or offset > LOCK_LAST or (length is not None and length < 1) or offset + size - 1 > LOCK_LAST:
        raise ValueError(f"no range to lock: {length} bytes from {offset}")
    return size
