"""The client's exceptions.

The kernel's or the daemon's error of one request is an OSError of the errno's own class, so that
`except FileNotFoundError` works. An error of the protocol, the connection or the client itself is an AiodError, which
is an OSError, too.
"""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

from aiod_protocol.reasons import Reason

NOT_SENT: Final = "not sent"
NOT_EXECUTED: Final = "not executed"
UNKNOWN: Final = "unknown whether done"

_REFUSALS: Final = frozenset(
    {
        errno.EACCES,
        errno.EAGAIN,
        errno.EBADF,
        errno.ECANCELED,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EINVAL,
        errno.EMSGSIZE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EROFS,
        errno.ESHUTDOWN,
        errno.ETXTBSY,
    }
)

_ERRNO_MAX: Final = 4095
"""The largest errno of the kernel (MAX_ERRNO, linux/err.h)."""


class AiodError(OSError):
    """An error of the protocol, the connection or the client itself, with an errno and a message."""

    written = 0
    """Bytes of the request, from its beginning on, that are known to be done."""
    reason: int = Reason.BY_KERNEL
    """The reason, where the errno alone does not say it (aiod_protocol.reasons); BY_KERNEL: the errno says all."""


class DaemonUnreachableError(AiodError, ConnectionRefusedError):
    """No daemon listens at the endpoint (ECONNREFUSED). Nothing was sent."""


class SessionLostError(AiodError, ConnectionResetError):
    """The session ended with requests in flight (ECONNRESET); the message says whether the request had been sent."""


class SpoiltSessionError(AiodError):
    """Attaching a ring has failed when the engine may have attached it: the session ends with the ring's socket."""


class ProtocolError(AiodError):
    """The daemon broke the protocol (EPROTO), or supports no version that this client does (EPROTONOSUPPORT)."""


class LockLostError(AiodError):
    """A lock of the file was lost with an engine or a host, and others may have had it since (EIO).

    Until the lock is released, or taken anew, everything but a flush fails with this error.
    """

    reason = Reason.LOCK_LOST
    ranges: tuple[tuple[int, int], ...] = ()
    """Offset and length (0: to the end) of each lost lock, where the error says that a file was opened again."""


class Failure(NamedTuple):
    """The daemon's answer about a request that failed, wholly or in part."""

    number: int
    """The errno, positive."""
    message: str | None
    written: int = 0
    """Bytes known to be done, from the beginning on."""
    reason: int = Reason.BY_KERNEL

    def error(self, filename: str | None = None) -> OSError:
        """The exception, of the errno's own class, with `written` and `reason` as attributes.

        A number that is no errno of any system is a ProtocolError.
        """
        if self.number > _ERRNO_MAX:
            return ProtocolError(errno.EPROTO, f"the daemon broke the protocol: {self.number} is no errno")
        text = self.message or os.strerror(self.number)
        if self.reason == Reason.LOCK_LOST:
            return LockLostError(self.number, text)
        error = OSError(self.number, text) if filename is None else OSError(self.number, text, filename)
        set_written(error, self.written)
        set_reason(error, self.reason)
        return error


def set_written(error: BaseException, written: int) -> None:
    """Set the `written` of a request's `error`: bytes, from the request's beginning on, known to be done."""
    if isinstance(error, OSError):
        error.written = written  # type: ignore[attr-defined]


def set_reason(error: OSError, reason: int) -> None:
    """Set the `reason` of `error`: a number of aiod_protocol.reasons."""
    error.reason = reason  # type: ignore[attr-defined]


def is_refusal(error: OSError) -> bool:
    """Whether a request that failed with `error` is known not to be done, but for the bytes that `written` counts.

    This is not known after EIO and the like: a device or a server may have done what it then failed to report.
    """
    return error.errno in _REFUSALS and not isinstance(error, AiodError)


def append_in_doubt(name: str, cause: str) -> AiodError:
    """The exception for a write after an append that failed with `cause`, and that may or may not have been done."""
    return AiodError(
        errno.EIO,
        f"{name}: {UNKNOWN}: an earlier append ({cause}): this file object appends nothing more; "
        "check the file, and open it again to continue",
    )


def mark_not_sent(error: OSError) -> OSError:
    """Mark `error` as raised by the client's own check of a request, not by a signal handler; returns it."""
    error.not_sent = True  # type: ignore[attr-defined]
    return error


def refused_here(number: int, message: str, *filename: str) -> OSError:
    """The exception for what the client itself refuses: nothing was sent."""
    return Failure(number, message).error(*filename)


def written(error: OSError) -> int:
    """The bytes of the failed request, from its beginning on, that are known to be done.

    0 for an error that is not one of a request.
    """
    count: int = getattr(error, "written", 0)
    return count


def refused(code: int, message: str | None, reason: int) -> AiodError:
    """The exception for a REFUSAL."""
    if code > _ERRNO_MAX:
        return ProtocolError(errno.EPROTO, f"the daemon broke the protocol: {code} is no errno")
    kind = ProtocolError if code in (errno.EPROTO, errno.EPROTONOSUPPORT) else AiodError
    error = kind(code, message or os.strerror(code))
    error.reason = reason
    return error


def lock_lost(name: str, ranges: tuple[tuple[int, int], ...] = ()) -> LockLostError:
    """The exception for a file of which the locks of `ranges` are lost."""
    error = LockLostError(errno.EIO, f"{name}: {Reason.LOCK_LOST.message}")
    error.ranges = ranges
    return error


def closed(what: str) -> AiodError:
    """The exception for using `what` ("client", "file scratch/x") after its close()."""
    return AiodError(errno.EBADF, f"{what} is closed")


def forked(what: str) -> AiodError:
    """The exception for using `what` in a child of the process that made it."""
    return AiodError(errno.EBADF, f"{what} was made before fork(): connect again in the child process")


def reentered(what: str) -> AiodError:
    """The exception for waiting for `what` in a finalizer or handler that has interrupted the client in this thread."""
    return AiodError(
        errno.EDEADLK,
        f"{what}: {NOT_SENT}: a finalizer or signal handler cannot wait for the client that it has interrupted: "
        "use another thread, or submit()",
    )


def gone(endpoint: str) -> DaemonUnreachableError:
    """The exception for a connection that ended during a handshake."""
    return DaemonUnreachableError(
        errno.ECONNREFUSED, f"{endpoint} closed the connection: the daemon is stopping, or not running"
    )


def key_unknown(endpoint: str) -> AiodError:
    """The exception for a daemon that does not know this client's key."""
    return AiodError(
        errno.EACCES,
        f"{endpoint} does not know this key: add the public key to a [keys.NAME] section there, and reload",
    )


def no_handshake(endpoint: str, *, with_keys: bool) -> AiodError:
    """The exception for a failed CURVE handshake."""
    if with_keys:
        what = "check that server_key is its public key (with insecure_tcp = true it needs no keys)"
    else:
        what = "it requires keys: give key and server_key (AIOD_KEY, AIOD_SERVER_KEY)"
    return AiodError(errno.EACCES, f"{endpoint} ended the handshake: {what}")


def cancelled(what: str) -> OSError:
    """The exception for a request that was cancelled before it was sent."""
    return refused_here(errno.ECANCELED, f"{what}: cancelled ({NOT_SENT})")


def other_session(source: str) -> OSError:
    """The exception for a copy_range between files of two sessions."""
    return refused_here(
        errno.EXDEV, f"copy_range from {source}: the file is of another client, or another engine serves it"
    )


def other_export(path: str, new_path: str, verb: str = "rename") -> OSError:
    """The exception for a rename or link between exports."""
    return refused_here(errno.EXDEV, f"{verb} {path} to {new_path}: these are two exports; copy the file instead")


def deadline_passed(what: str, *, sent: bool) -> TimeoutError:
    """The exception for a request whose deadline has passed."""
    error = TimeoutError(errno.ETIMEDOUT, f"{what}: its deadline has passed ({UNKNOWN if sent else NOT_SENT})")
    set_written(error, 0)
    return error


def too_long(what: str, bytes_max: int) -> OSError:
    """The exception for a request that is too long and cannot be split."""
    return refused_here(errno.EMSGSIZE, f"{what}: at most {bytes_max} bytes are allowed, as it cannot be split")


def timed_out(what: str, timeout_s: float, *, sent: bool, written: int = 0) -> TimeoutError:
    """The exception for `what`, which had no answer within `timeout_s` seconds."""
    state = UNKNOWN if sent else NOT_SENT
    error = TimeoutError(errno.ETIMEDOUT, f"{what}: no answer within {timeout_s:g} s ({state})")
    set_written(error, written)
    return error
