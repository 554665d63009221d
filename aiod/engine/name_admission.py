"""Checks of the arguments of a NAME. No system calls."""

from __future__ import annotations

import errno
import struct
from typing import Any, Final

from aiod import _core
from aiod.engine.errors import refused
from aiod_protocol.reasons import Reason

PATH_BYTES_MAX: Final = 4096
_PERMISSIONS: Final = 0o777
_NUMBER_MAX: Final = 2**63 - 1
_TIMES: Final = struct.Struct("<qq")
_ATTRIBUTE_BYTES_MAX: Final = 255
_ATTRIBUTE_FLAGS: Final = (0, 1, 2)
"""None, XATTR_CREATE, XATTR_REPLACE."""


def check_path(what: str, path: str) -> None:
    """Raise OSError for a path that no system call takes."""
    if "\0" in path:
        raise refused(errno.EINVAL, f"{what!r}: a path must not contain zero bytes", Reason.BAD_ENTRY)
    if len(path.encode("utf-8", "surrogatepass")) >= PATH_BYTES_MAX:
        raise refused(errno.ENAMETOOLONG, f"{what}: a path is at most {PATH_BYTES_MAX - 1} bytes", Reason.TOO_LONG)


def check_cursor(what: str, cursor: int) -> int:
    """`cursor`, if a page can have returned it. Raises OSError."""
    if cursor > _NUMBER_MAX:
        raise refused(errno.EINVAL, f"{what}: no page returned the cursor {cursor}; start with 0", Reason.BAD_ENTRY)
    return cursor


def check_permissions(what: str, mode: int) -> int:
    """`mode`, if it has permission bits only. Raises OSError."""
    if mode & ~_PERMISSIONS:
        raise refused(
            errno.EINVAL,
            f"{what}: the mode {mode:#o} has more than permission bits ({_PERMISSIONS:#o})",
            Reason.BAD_ENTRY,
        )
    return mode


def parse_times(what: str, times: bytes) -> tuple[int, int] | None:
    """The times of access and change (ns), None for now. Raises OSError."""
    if not times:
        return None
    if len(times) != _TIMES.size:
        raise refused(errno.EINVAL, f"{what}: {len(times)} bytes of times, not {_TIMES.size} or none", Reason.BAD_ENTRY)
    access_ns, change_ns = _TIMES.unpack(times)
    return access_ns, change_ns


def check_attribute(what: str, arguments: dict[str, Any]) -> str:
    """The name of an extended attribute, "" without one. Raises OSError for one, or a value, that is not allowed."""
    name: str = arguments.get("name", "")
    if "name" in arguments:
        if not name.startswith("user.") or "\0" in name:
            text = f"{what}: {name[:64]!r} is no attribute for clients: their names begin with user."
            raise refused(errno.EPERM, text, Reason.NOT_ALLOWED)
        if len(name.encode("utf-8", "surrogatepass")) > _ATTRIBUTE_BYTES_MAX:
            text = f"{what}: an attribute's name is at most {_ATTRIBUTE_BYTES_MAX} bytes"
            raise refused(errno.ENAMETOOLONG, text, Reason.TOO_LONG)
    if arguments.get("flags", 0) not in _ATTRIBUTE_FLAGS:
        raise refused(errno.EINVAL, f"{what}: unknown flags {arguments['flags']:#x}", Reason.BAD_ENTRY)
    if len(arguments.get("value", b"")) > _core.XATTR_BYTES_MAX:
        text = f"{what}: the value of an attribute is at most {_core.XATTR_BYTES_MAX} bytes"
        raise refused(errno.E2BIG, text, Reason.TOO_LONG)
    return name
