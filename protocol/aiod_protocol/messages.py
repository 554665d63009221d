"""Messages for people: what failed, what the system calls it, and what to do about it.

The daemon sends them with failures; a client makes those of its ring's completions, which carry numbers only.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from aiod_protocol.operations import Op, op_name
from aiod_protocol.reasons import Reason, parse_reason

_ADVICE: Final = {
    errno.ENOSPC: "make room on the export's file system",
    errno.EDQUOT: "the quota of the daemon's user is used up",
    errno.EFBIG: "the file system or RLIMIT_FSIZE allows no larger file",
    errno.EIO: "the device or file system failed; the kernel's log says more",
    errno.ENOENT: "there is no such file; open it with CREATE to make one",
    errno.ENOTDIR: "a part of the path before the last is no directory",
    errno.EISDIR: "name a file, not a directory",
    errno.EACCES: "the daemon's user has no permission",
    errno.EPERM: "the daemon's user may not do this",
    errno.EEXIST: "the file is there already; open it without EXCLUSIVE",
    errno.EROFS: "the export's file system is mounted read-only",
    errno.ELOOP: "too many symbolic links",
    errno.ENAMETOOLONG: "a part of the path is longer than the file system allows",
    errno.ETXTBSY: "the file is being executed",
    errno.EMFILE: "close handles that are no longer needed",
    errno.ENFILE: "the engine holds as many files as it may; close handles",
    errno.EAGAIN: "try again later",
}

_OF_A_REQUEST: Final = {
    errno.ENOMEM: "not enough memory for its buffer",
    errno.EINVAL: "this kind of file, or a device's block size or end, does not allow it",
    errno.EOPNOTSUPP: "the file system or device cannot do this",
    errno.EPERM: "the file is immutable, append-only or sealed",
}


def errno_name(number: int) -> str:
    """The name, as "ENOSPC" for errno.ENOSPC; the number itself when it has no name."""
    return errno.errorcode.get(number, str(number))


def errno_message(what: str, number: int, advice: str = "") -> str:
    """`what`, the system's words for errno `number`, its name, and `advice` (else the usual one for that errno)."""
    said = f"{what}: {os.strerror(number)} ({errno_name(number)})"
    advice = advice or _ADVICE.get(number, "")
    return f"{said}: {advice}" if advice else said


def failure_message(op: int, name: str, offset: int, length: int, number: int, reason: int) -> str:
    """Why the request `op` of `length` bytes at `offset` on the file `name` ended with errno `number`."""
    what = describe_operation(op, name, offset, length)
    known = parse_reason(reason)
    if known == Reason.BY_KERNEL or not isinstance(known, Reason):
        return errno_message(what, number, _OF_A_REQUEST.get(number, ""))
    return f"{what}: {known.message} ({errno_name(number)})"


def describe_operation(op: int, name: str, offset: int, length: int) -> str:
    """The request itself: "write of 4096 bytes at 0 on disk/a"."""
    return f"{op_name(op)}{_extent(op, offset, length)} on {name}"


def _extent(op: int, offset: int, length: int) -> str:
    """Which part of the file it was about."""
    if op == Op.IOCTL:
        return f" {offset:#x}"
    if op == Op.TRUNCATE:
        return f" to {length} bytes"
    if op == Op.APPEND:
        return f" of {length} bytes"
    return f" of {length} bytes at {offset}" if length else ""
