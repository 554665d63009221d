"""What the client raises.

What the kernel or the daemon says about one request is an OSError of the errno's own class, so that
`except FileNotFoundError` works. The protocol's own troubles are AiodError, an OSError too.
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
"""What the kernel itself takes for an errno (MAX_ERRNO, linux/err.h)."""


class AiodError(OSError):
    """Trouble of the protocol, the connection or the client itself, with errno and a sentence."""

    written = 0
    """Of a request: bytes, from its beginning on, that are known to be done."""
    reason: int = Reason.BY_KERNEL
    """Why, where the errno alone does not say; BY_KERNEL where nobody has said more."""


class DaemonUnreachableError(AiodError, ConnectionError):
    """Nothing answers at the endpoint (errno ECONNREFUSED). Nothing was sent."""


class SessionLostError(AiodError, ConnectionError):
    """The session ended under its handles and requests (errno ECONNRESET); the text says what had been sent."""


class SpoiltSessionError(AiodError):
    """An attempt to attach a ring has failed when the engine may have attached it: with its socket the session ends."""


class ProtocolError(AiodError):
    """The daemon broke docs/protocol.md (EPROTO), or speaks no version that we do (EPROTONOSUPPORT)."""


class Failure(NamedTuple):
    """What a daemon has said of a request that it has not done, or not done as a whole."""

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
        error = OSError(self.number, text) if filename is None else OSError(self.number, text, filename)
        set_written(error, self.written)
        set_reason(error, self.reason)
        return error


def set_written(error: BaseException, written: int) -> None:
    """Have a request's `error` say how many bytes, from the request's beginning on, are known to be done."""
    if isinstance(error, OSError):
        error.written = written  # type: ignore[attr-defined]


def set_reason(error: OSError, reason: int) -> None:
    """Have `error` say why, as a number of aiod_protocol.reasons."""
    error.reason = reason  # type: ignore[attr-defined]


def is_refusal(error: OSError) -> bool:
    """Whether what a daemon has answered with `error` is known to be undone, but for what `written` counts.

    Not so of EIO and the like: a device or a server may have done what it then failed to report.
    """
    return error.errno in _REFUSALS and not isinstance(error, AiodError)


def append_in_doubt(name: str, cause: str) -> AiodError:
    """The exception for writing on where nobody knows whether an append was done that has ended with `cause`."""
    return AiodError(
        errno.EIO,
        f"{name}: {UNKNOWN}: an earlier append ({cause}): nothing more is appended by this file object; "
        "look at the file, and open it anew to go on",
    )


def mark_not_sent(error: OSError) -> OSError:
    """`error`, known to come from the client's own look at a request, not from the handler of a signal."""
    error.not_sent = True  # type: ignore[attr-defined]
    return error


def refused(code: int, sentence: str | None, reason: int) -> AiodError:
    """The exception for a REFUSAL."""
    if code > _ERRNO_MAX:
        return ProtocolError(errno.EPROTO, f"the daemon broke the protocol: {code} is no errno")
    kind = ProtocolError if code in (errno.EPROTO, errno.EPROTONOSUPPORT) else AiodError
    error = kind(code, sentence or os.strerror(code))
    error.reason = reason
    return error


def closed(what: str) -> AiodError:
    """The exception for using `what` ("client", "file scratch/x") after its close()."""
    return AiodError(errno.EBADF, f"{what} is closed")


def forked(what: str) -> AiodError:
    """The exception for using `what` in a child of the process that made it."""
    return AiodError(errno.EBADF, f"{what} was made before fork(): connect anew in the child process")


def reentered(what: str) -> AiodError:
    """The exception for waiting for `what` in the midst of the same thread's use of the same session or engine."""
    return AiodError(
        errno.EDEADLK,
        f"{what}: {NOT_SENT}: a finalizer or signal handler cannot wait for the client whose work it has interrupted: "
        "leave it to another thread, or use submit()",
    )


def gone(endpoint: str) -> DaemonUnreachableError:
    """The exception for a connection that ended in the midst of a handshake."""
    return DaemonUnreachableError(
        errno.ECONNREFUSED, f"{endpoint} ended the connection: is the daemon stopping, or not there?"
    )


def key_unknown(endpoint: str) -> AiodError:
    """The exception for a daemon that does not know this client's key."""
    return AiodError(
        errno.EACCES,
        f"{endpoint} does not know this key: put its public half into a [keys.NAME] section there, and reload",
    )


def no_handshake(endpoint: str, *, with_keys: bool) -> AiodError:
    """The exception for a daemon with which no handshake was possible."""
    if with_keys:
        what = "is server_key its public key? (insecure_tcp = true would want none)"
    else:
        what = "it wants keys: give key and server_key (AIOD_KEY, AIOD_SERVER_KEY)"
    return AiodError(errno.EACCES, f"{endpoint} ended the handshake: {what}")


def cancelled(what: str) -> OSError:
    """The exception for a request that was cancelled before it was sent."""
    return OSError(errno.ECANCELED, f"{what}: cancelled ({NOT_SENT})")


def other_session(source: str) -> OSError:
    """The exception for a copy_range between files of two sessions."""
    return OSError(errno.EXDEV, f"copy_range from {source}: another client's file, or served by another engine")


def other_export(path: str, new_path: str) -> OSError:
    """The exception for a rename between exports."""
    return OSError(errno.EXDEV, f"rename {path} to {new_path}: two exports: copy it instead")


def deadline_passed(what: str, *, sent: bool) -> TimeoutError:
    """The exception for a request that its own deadline has ended."""
    return TimeoutError(errno.ETIMEDOUT, f"{what}: its deadline has passed ({UNKNOWN if sent else NOT_SENT})")


def too_long(what: str, bytes_max: int) -> OSError:
    """The exception for a request that is too long, and cannot be split."""
    return OSError(errno.EMSGSIZE, f"{what}: at most {bytes_max} bytes at once, as it cannot be split")


def timed_out(what: str, timeout_s: float, *, sent: bool, written: int = 0) -> TimeoutError:
    """The exception for `what` having had no answer for `timeout_s` seconds."""
    state = UNKNOWN if sent else NOT_SENT
    error = TimeoutError(errno.ETIMEDOUT, f"{what}: no answer within {timeout_s:g} s ({state})")
    set_written(error, written)
    return error
