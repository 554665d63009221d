"""Arguments of directory operations, checked before anything is sent, and what is read from their answers."""

from __future__ import annotations

import errno
import math
import operator
import os
import struct
from typing import Any, Final

from aiod_client.errors import ProtocolError

_TIMES: Final = struct.Struct("<qq")
_SECOND_NS: Final = 1_000_000_000


def pack_times(times: tuple[float, float] | None, ns: tuple[int, int] | None) -> bytes:
    """The argument `times` of utime, from os.utime()'s: seconds, or nanoseconds, of access and change; neither: now.

    Raises ValueError for both, TypeError for what is no pair of numbers, OverflowError.
    """
    if times is not None and ns is not None:
        raise ValueError("utime: either times or ns may be given, not both")
    if times is not None:
        access_s, change_s = times
        ns = _nanoseconds(access_s), _nanoseconds(change_s)
    if ns is None:
        return b""
    access_ns, change_ns = ns
    try:
        return _TIMES.pack(operator.index(access_ns), operator.index(change_ns))
    except struct.error as error:
        raise OverflowError(f"utime: {ns} ns are not within 2**63") from error


def _nanoseconds(seconds: float) -> int:
    """Split before it is multiplied, as os.utime() does: a float of 10^18 is not exact."""
    whole = math.floor(seconds)
    return whole * _SECOND_NS + int((seconds - whole) * _SECOND_NS)


def attribute_bytes(value: Any) -> bytes:
    """The value of an extended attribute as bytes. Raises TypeError, BufferError."""
    return value if type(value) is bytes else memoryview(value).tobytes()


def bytes_in(verb: str, body: Any, key: str) -> bytes:
    """The bytes that the answer to `verb` has under `key`. Raises ProtocolError."""
    found = body.get(key) if type(body) is dict else None
    if type(found) is not bytes:
        raise ProtocolError(errno.EPROTO, f"the daemon broke the protocol: its answer to {verb} has no {key}")
    return found


def names_in(verb: str, body: Any) -> list[str]:
    """The names in the answer to `verb`, each of which ends with a zero byte. Raises ProtocolError."""
    return [os.fsdecode(name) for name in bytes_in(verb, body, "names").split(b"\0")[:-1]]
