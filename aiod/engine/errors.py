"""Sentences for people: what failed, what the system calls it, and what to do about it."""

from __future__ import annotations

import errno
import os
from typing import Final

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


def errno_name(number: int) -> str:
    """The name, as "ENOSPC" for errno.ENOSPC; the number itself when it has no name."""
    return errno.errorcode.get(number, str(number))


def sentence(what: str, number: int, advice: str = "") -> str:
    """`what`, the system's words for errno `number`, its name, and `advice` (else the usual one for that errno)."""
    said = f"{what}: {os.strerror(number)} ({errno_name(number)})"
    advice = advice or _ADVICE.get(number, "")
    return f"{said}: {advice}" if advice else said


def refused(number: int, what: str) -> OSError:
    """An OSError (of the subclass that `number` asks for) whose strerror is `what` and the errno's name."""
    return OSError(number, f"{what} ({errno_name(number)})")
