"""NAME by ring: the records of aiod_ring.h, and the sentences about failures, which a ring does not carry.

Pure data: no sockets, no state. A test compares the layouts and the numbers with the header's and the engine's.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from aiod_protocol.messages import name_message

VERBS: Final = (
    "list",
    "stat",
    "remove",
    "rmdir",
    "rename",
    "mkdir",
    "sync",
    "lstat",
    "readlink",
    "symlink",
    "link",
    "utime",
    "chmod",
    "getxattr",
    "setxattr",
    "listxattr",
    "removexattr",
    "rmtree",
)
"""The place of each is its number."""
ASKS: Final = frozenset({"list", "stat", "sync", "lstat", "readlink", "getxattr", "listxattr"})
"""Those that change nothing, and may be repeated."""

NAME: Final = struct.Struct("<HHIIIIIqqq")
"""Verb, flags, mode, bytes of path, `to` and value, flags of setxattr, cursor, times of access and change (ns)."""
REPLACE: Final = 1
NO_FOLLOW: Final = 2
NOW: Final = 4

PAGE: Final = struct.Struct("<qIIII")
"""Next cursor, whether there is one, entries, bytes of names, reserved."""
PAGE_BYTES_MAX: Final = 65536
ATTRIBUTE_BYTES_MAX: Final = 56 * 1024

_ATTRIBUTE_VERBS: Final = ("getxattr", "setxattr", "listxattr", "removexattr")
_ADVICE: Final = {
    ("remove", errno.EISDIR): "it is a directory: use rmdir",
    ("list", errno.EINVAL): "no page of this directory returned this cursor; start with 0",
    ("rename", errno.EEXIST): "the new name exists already; ask to replace it, or choose another",
    ("rename", errno.EISDIR): "the new name is a directory; remove it, or choose another",
    ("rename", errno.ENOTDIR): "a part of the path or the export is not a directory, or the new name is a file",
    ("rename", errno.EINVAL): "a directory cannot be moved into itself",
    ("rename", errno.EXDEV): "the names are on different file systems; copy the file, and remove the old one",
    ("rename", errno.EOPNOTSUPP): "the file system cannot rename without replacing; ask to replace",
    ("readlink", errno.EINVAL): "it is not a symbolic link",
    ("link", errno.EXDEV): "the names are on different file systems; copy the file",
    ("link", errno.EPERM): "only files have further names, and the kernel allows them for own files only",
    ("chmod", errno.EOPNOTSUPP): "symbolic links have no permission bits of their own",
    ("setxattr", errno.EEXIST): "the attribute exists already",
    ("rmtree", errno.ENOTDIR): "it is not a directory, or a symbolic link to one: use remove",
    **{(verb, errno.ENODATA): "there is no such attribute" for verb in _ATTRIBUTE_VERBS},
    **{(verb, errno.EOPNOTSUPP): "the file system has no such attributes" for verb in _ATTRIBUTE_VERBS},
    **{(verb, errno.E2BIG): f"aiod carries {ATTRIBUTE_BYTES_MAX} bytes at most" for verb in _ATTRIBUTE_VERBS},
}


def verb_message(verb: str, what: str, number: int, *, outside: bool = False) -> str:
    """Why `what`, a request of `verb`, ended with errno `number`; `outside`: a path of it leaves the export."""
    return name_message(what, number, _ADVICE.get((verb, number), ""), outside=outside)
