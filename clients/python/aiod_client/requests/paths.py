"""Paths, modes and permission bits of files, checked before anything is sent."""

from __future__ import annotations

import errno
import operator
import os
from typing import Final

from aiod_client.errors import refused_here
from aiod_protocol.wire import OpenFlag

PATH_BYTES_MAX: Final = 4096
PERMISSION_BITS: Final = 0o777

_CREATE: Final = OpenFlag.WRITE | OpenFlag.CREATE
_MODES: Final = {
    "r": OpenFlag.READ,
    "r+": OpenFlag.READ | OpenFlag.WRITE,
    "w": _CREATE | OpenFlag.TRUNCATE,
    "w+": _CREATE | OpenFlag.TRUNCATE | OpenFlag.READ,
    "x": _CREATE | OpenFlag.EXCLUSIVE,
    "x+": _CREATE | OpenFlag.EXCLUSIVE | OpenFlag.READ,
    "a": _CREATE | OpenFlag.APPEND,
    "a+": _CREATE | OpenFlag.APPEND | OpenFlag.READ,
}


def parse_path(path: str | os.PathLike[str]) -> tuple[str, str]:
    """(export, path in it) of "EXPORT/PATH". Raises TypeError, or OSError (EINVAL, ENAMETOOLONG)."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"path must be str, not {type(text).__name__}")
    try:
        length = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise refused_here(errno.EINVAL, "the path is not valid Unicode; paths of aiod are UTF-8", text) from error
    if length > PATH_BYTES_MAX:
        raise refused_here(
            errno.ENAMETOOLONG, f"the path has {length} bytes; at most {PATH_BYTES_MAX} are allowed", text
        )
    export, _, inside = text.partition("/")
    return export, inside


def parse_mode(mode: str, *, direct: bool = False) -> OpenFlag:
    """OPEN's flags of `mode`: r, r+, w, w+, x, x+, a, a+; a "b" anywhere is allowed. Raises ValueError."""
    flags = _MODES.get(mode.replace("b", "", 1))
    if flags is None:
        raise ValueError(f"invalid mode {mode!r}: one of {', '.join(_MODES)}")
    return flags | OpenFlag.DIRECT if direct else flags


def check_permissions(perm: int) -> int:
    """`perm`, if it has permission bits only; raises ValueError."""
    bits = operator.index(perm)
    if not 0 <= bits <= PERMISSION_BITS:
        raise ValueError(f"perm {bits:#o}: only permission bits from 0 to {PERMISSION_BITS:#o} can be set")
    return bits
