"""Sentences for people: what failed, what the system calls it, and what to do about it.

The daemon says them of what comes by message, a client of its own ring's completions, which have numbers only.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from aiod_client.wire import Op

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

BY_KERNEL: Final = 0
"""The reason (clients/c/include/aiod_ring.h, enum aiod_ring_reason) of what a system call said."""

STOPPING: Final = 10
"""The reason of what a daemon that is stopping has refused."""

_BY_REASON: Final = {
    1: "the handle is unknown in this session, or closed; open the file again",
    2: "the handle was not opened for this operation; open the file with the right mode",
    3: "an unknown operation, flags that it has not, or an offset or a length out of range",
    4: "longer than request_bytes_max, or than 1 GiB; split it",
    5: "over the session's credit; wait for completions before submitting more",
    6: "cancelled before it was started; it was not executed",
    7: "its deadline passed while it was queued; it was not executed",
    8: "no worker thread could be created (TasksMax, RLIMIT_NPROC); try again later",
    9: "an earlier flush of this file failed, so data may be lost; close all its handles first",
    10: "the daemon is stopping; it was not executed",
    11: "the export does not list this number with this size of its argument under `ioctls`",
    12: "the file would be larger than the export's max_file_bytes",
    13: "sent again to another engine, too late: unknown whether done",
    14: "the daemon was started again, and what was written before may be lost; write it once more, then flush",
}

_OPS: Final = {int(op): op.name.lower() for op in Op}


def errno_name(number: int) -> str:
    """The name, as "ENOSPC" for errno.ENOSPC; the number itself when it has no name."""
    return errno.errorcode.get(number, str(number))


def sentence(what: str, number: int, advice: str = "") -> str:
    """`what`, the system's words for errno `number`, its name, and `advice` (else the usual one for that errno)."""
    said = f"{what}: {os.strerror(number)} ({errno_name(number)})"
    advice = advice or _ADVICE.get(number, "")
    return f"{said}: {advice}" if advice else said


def is_refused_by_stop(number: int, sentence: str | None) -> bool:
    """Whether what ended with errno `number` was not executed since the daemon is stopping.

    By message a reason comes as its words only; a device may say ESHUTDOWN as well.
    """
    return number == errno.ESHUTDOWN and sentence is not None and "the daemon is stopping" in sentence


def explain(op: int, name: str, offset: int, length: int, number: int, reason: int) -> str:
    """Why the request `op` of `length` bytes at `offset` on the file `name` ended with errno `number`."""
    what = what_is_asked(op, name, offset, length)
    if reason == BY_KERNEL or reason not in _BY_REASON:
        return sentence(what, number, _OF_A_REQUEST.get(number, ""))
    return f"{what}: {_BY_REASON[reason]} ({errno_name(number)})"


def what_is_asked(op: int, name: str, offset: int, length: int) -> str:
    """The request itself: "write of 4096 bytes at 0 on disk/a"."""
    return f"{_OPS.get(op, 'unknown operation')}{_extent(op, offset, length)} on {name}"


def _extent(op: int, offset: int, length: int) -> str:
    """Which part of the file it was about."""
    if op == Op.IOCTL:
        return f" {offset:#x}"
    if op == Op.TRUNCATE:
        return f" to {length} bytes"
    if op == Op.APPEND:
        return f" of {length} bytes"
    return f" of {length} bytes at {offset}" if length else ""
