"""Why a request or a message failed, where its errno alone does not say: the numbers that every wire carries.

The list is protocol/reasons.def; a test holds this one equal to it.
"""

from __future__ import annotations

import enum
from typing import Any, Final, Self


class Reason(enum.IntEnum):
    """A number keeps its meaning for ever. The message is for people: no program may look at its words."""

    message: str

    def __new__(cls, number: int, message: str) -> Self:
        """`number` is the value, `message` an attribute."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.message = message
        return member

    BY_KERNEL = 0, "the system call failed in the daemon"
    """Also where a peer gave no reason."""
    NO_HANDLE = 1, "the handle is unknown in this session, or closed; open the file again"
    NO_ACCESS = 2, "the handle was not opened for this operation; open the file with the right mode"
    BAD_ENTRY = 3, "an unknown operation, flags that it does not have, or an argument out of range"
    TOO_LONG = 4, "longer than request_bytes_max, or than 1 GiB; split it"
    OVER_CREDIT = 5, "over the session's credit; wait for completions before submitting more"
    CANCELLED = 6, "cancelled before it was started; it was not executed"
    DEADLINE = 7, "its deadline passed while it was queued; it was not executed"
    NO_THREADS = 8, "no worker thread could be created (TasksMax, RLIMIT_NPROC); try again later"
    POISONED = 9, "an earlier flush of this file failed, so data may be lost; close all its handles first"
    STOPPING = 10, "the daemon is stopping; it was not executed"
    NO_IOCTL = 11, "the export does not list this number with this size of its argument under `ioctls`"
    TOO_LARGE = 12, "the file would be larger than the export's max_file_bytes"
    LATE = 13, "sent again to another engine, too late: unknown whether done"
    RESTARTED = (
        14,
        "the daemon was started again, or took over: earlier data may be lost; write it once more, then flush",
    )
    # Of messages. The daemon sends a message that says more.
    MALFORMED = 15, "the message does not have the form that the protocol defines"
    NO_SESSION = 16, "the session is unknown to the engine, or has ended; connect again"
    NO_VERSION = 17, "client and daemon have no protocol version in common; use a matching client"
    KICKED = 18, "an administrator has ended the session"
    LIMIT = 19, "a limit of the daemon or of the user is reached; give something back, or try again later"
    GRACE = 20, "the engine was started again, and serves its earlier clients first; try again later"
    NO_EXPORT = 21, "the daemon has no such export"
    NOT_ALLOWED = 22, "the daemon's configuration does not allow it"
    OUTSIDE = 23, "the path leaves the export"
    NOT_SERVING = 24, "the engine of the export is not serving; try again later"
    OTHER_FILE = 25, "another file has the name now, or nothing tells whether it is the same file"
    HANGS = 26, "it has not ended in time: unknown whether done"
    LOCK_LOST = (
        27,
        "a lock of this handle was lost, and others may have had it: release it, and lock again",
    )
    # Of clients: no daemon sends them.
    UNKNOWN = 100, "the engine has gone: unknown whether done"
    NOT_REOPENED = 101, "the file could not be opened again at the next engine"
    NOT_TAKEN = 102, "the session ended before the engine took the request; it was not executed"


_BY_NUMBER: Final[dict[int, int]] = {int(reason): reason for reason in Reason}


def reason_of(error: BaseException) -> int:
    """The reason that `error` carries as its attribute `reason`; BY_KERNEL where it has none."""
    reason = getattr(error, "reason", Reason.BY_KERNEL)
    return reason if isinstance(reason, int) else Reason.BY_KERNEL


def parse_reason(sent: Any) -> int:
    """What a peer has sent as a reason.

    A number that only a later version knows stays a number; what is no number at all is BY_KERNEL.
    """
    if not isinstance(sent, int) or isinstance(sent, bool) or sent < 0:
        return Reason.BY_KERNEL
    return _BY_NUMBER.get(sent, sent)
