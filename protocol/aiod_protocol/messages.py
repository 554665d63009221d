"""Error messages: what failed, the system's text for the errno, and advice.

The daemon sends them with failures. For completions of a ring, which carry numbers only, the client makes them.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from aiod_protocol.operations import Op, op_name
from aiod_protocol.reasons import Reason, parse_reason

_INT_MAX: Final = 2**31 - 1
"""The largest number that strerror() takes."""

_ADVICE: Final = {
    errno.ENOSPC: "make room on the export's file system",
    errno.EDQUOT: "the quota of the daemon's user is used up",
    errno.EFBIG: "the file system or RLIMIT_FSIZE allows no larger file",
    errno.EIO: "the device or file system failed; the kernel's log says more",
    errno.ENOENT: "there is no such file; open it with CREATE to make one",
    errno.ENOTDIR: "a part of the path before the last is not a directory",
    errno.EISDIR: "name a file, not a directory",
    errno.EACCES: "the daemon's user has no permission",
    errno.EPERM: "the daemon's user is not allowed to do this",
    errno.EEXIST: "the file exists; open it without EXCLUSIVE",
    errno.EROFS: "the export's file system is mounted read-only",
    errno.ELOOP: "too many symbolic links",
    errno.ENAMETOOLONG: "a part of the path is longer than the file system allows",
    errno.ETXTBSY: "the file is being executed",
    errno.EMFILE: "close handles that are no longer needed",
    errno.ENFILE: "the engine has reached its limit of open files; close handles",
    errno.EAGAIN: "try again later",
    errno.EBADFD: "the file system's server has given up this open file; the daemon opens it again, if it is there",
}

_OF_A_REQUEST: Final = {
    errno.ENOMEM: "not enough memory for its buffer",
    errno.EINVAL: "this kind of file, or a device's block size or end, does not allow it",
    errno.EOPNOTSUPP: "the file system or device cannot do this",
    errno.EPERM: "the file is immutable, append-only or sealed",
    errno.ENOTCONN: "the file system reaches too few of its servers, or its mount has died; the file stays open",
}

_OUTSIDE: Final = "the path leaves the export (.., an absolute path or a symbolic link out)"
_OF_A_NAME: Final = {
    errno.ENOENT: "there is no such name, or a directory of the path is missing",
    errno.EEXIST: "the name exists already",
    errno.ENOTDIR: "the name, a part of the path before it, or the export is not a directory",
    errno.EINVAL: "the export itself cannot be changed; a name must not end with . or ..",
    errno.EBUSY: "the export itself, mount points, and what the kernel uses cannot be changed",
    errno.ENOTEMPTY: "remove its entries first",
}


def object_name(export: str, path: str, chars_max: int = 120) -> str:
    """`export`/`path` for messages; its middle is left out when it is longer than `chars_max`."""
    name = f"{export}/{path}" if path else export
    if len(name) <= chars_max:
        return name
    half = (chars_max - 3) // 2
    return f"{name[:half]}...{name[-half:]}"


def errno_name(number: int) -> str:
    """The name, as "ENOSPC" for errno.ENOSPC; the number itself when it has no name."""
    return errno.errorcode.get(number, str(number))


def errno_message(what: str, number: int, advice: str = "") -> str:
    """`what`, the system's text for errno `number`, the errno's name, and `advice` (default: the usual one)."""
    text = os.strerror(number) if number <= _INT_MAX else "unknown error"  # a peer may send any number
    said = f"{what}: {text} ({errno_name(number)})"
    advice = advice or _ADVICE.get(number, "")
    return f"{said}: {advice}" if advice else said


def name_message(what: str, number: int, advice: str = "", *, outside: bool = False) -> str:
    """Why `what`, about a name, ended with errno `number`; `outside`: its path leaves the export."""
    return errno_message(what, number, _OUTSIDE if outside else advice or _OF_A_NAME.get(number, ""))


def failure_message(op: int, name: str, offset: int, length: int, number: int, reason: int) -> str:
    """Why the request `op` of `length` bytes at `offset` on the file `name` ended with errno `number`."""
    what = describe_operation(op, name, offset, length)
    known = parse_reason(reason)
    if known == Reason.BY_KERNEL or not isinstance(known, Reason):
        return errno_message(what, number, _OF_A_REQUEST.get(number, ""))
    return f"{what}: {known.message} ({errno_name(number)})"


def describe_operation(op: int, name: str, offset: int, length: int) -> str:
    """The request as text: "write of 4096 bytes at 0 on disk/a"."""
    return f"{op_name(op)}{_extent(op, offset, length)} on {name}"


def _extent(op: int, offset: int, length: int) -> str:
    """The part of the file that the request concerns, as text."""
    if op == Op.IOCTL:
        return f" {offset:#x}"
    if op == Op.TRUNCATE:
        return f" to {length} bytes"
    if op == Op.APPEND:
        return f" of {length} bytes"
    return f" of {length} bytes at {offset}" if length else ""
