"""The wire protocol, version 1: message types, record layouts and limits.

`docs/protocol.md` is the definition; `clients/vectors/` has the golden frames. Functions and constants without
sockets or state, safe from any thread.
"""

from __future__ import annotations

import enum
import struct
from typing import Any, Final

import msgpack

VERSIONS: Final = (1,)
FEATURES: Final[tuple[str, ...]] = ()

HEADER_BYTES_MAX: Final = 64 * 1024
"""Largest msgpack header that either end accepts (bytes), except a REPLY to CONTROL."""

CONTROL_REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
"""Largest REPLY to CONTROL (bytes): it may list thousands of sessions."""

SHARED_PAYLOAD_MAX: Final = 64 * 1024
"""Payloads below this size (bytes) share one frame of a batch; larger ones get a frame of their own."""


SHARED_FRAME_MAX: Final = 1024 * 1024
"""Largest shared frame (bytes) that either end makes; a frame of one payload may be larger."""


class MessageType(enum.IntEnum):
    """First element of every header."""

    HELLO = 1
    WELCOME = 2
    REFUSAL = 3
    LOCATE = 4
    OPEN = 6
    REPLY = 7
    CLOSE = 8
    SUBMIT = 9
    COMPLETE = 10
    CANCEL = 11
    HEARTBEAT = 12
    GOODBYE = 13
    CONTROL = 14
    NAME = 15
    REOPEN = 16
    REPEATED = 17
    GO = 18
    LOCK = 19
    UNLOCK = 20


class OpenFlag(enum.IntFlag):
    """Bits of OPEN's flags."""

    READ = 1
    WRITE = 2
    CREATE = 4
    EXCLUSIVE = 8
    TRUNCATE = 16
    APPEND = 32
    DIRECT = 64
    NAMES = 128
    """No file: a handle by which a ring's requests name files of the export. No other flag goes with it."""


LOCK_EXCLUSIVE: Final = 1
"""The flag of LOCK; without it the lock is shared."""
LOCK_CLAIM: Final = 2
"""Of a LOCK on a ring's socket: the client had it at an earlier engine."""
LOCK_LAST: Final = (1 << 63) - 2
"""The last byte that LOCK can lock."""

SUBMISSION: Final = struct.Struct("<QHHIQQIIII")
"""cookie, op, flags, handle, offset, length, deadline_ms, frame, frame_offset, reserved.

COPY_RANGE: the last three are the source's handle, and its offset's low and high half.
"""

COMPLETION: Final = struct.Struct("<QqIIII")
"""cookie, result, frame, frame_offset, written, reason."""

STAT: Final = struct.Struct("<QQQQqqqIIIIII")
"""size, allocated, device, inode, atime_ns, mtime_ns, ctime_ns, mode, links, uid, gid, block_size, io_size."""

OPENED: Final = struct.Struct("<QQQQQ40x")
"""The result of OPEN_FILE: handle, size, device, inode, generation (struct aiod_ring_opened)."""

EXTENT: Final = struct.Struct("<QQ")
"""length (bytes), flags: EXTENT_HOLE."""

EXTENT_HOLE: Final = 1
EXTENTS_MAX: Final = 1024
"""Most extents in one completion."""

RANGE_BYTES_MAX: Final = 1 << 30
"""Longest WRITE_ZEROES and COPY_RANGE (bytes)."""

FRAMES_MAX: Final = 1024
"""Most payload frames of one message."""


# One for all: packb() makes one, with a buffer of 256 KiB, at every call. Its pack() holds the interpreter's lock.
_PACKER: Final = msgpack.Packer(use_bin_type=True)


class WireError(ValueError):
    """A message does not have the form that docs/protocol.md defines."""


def pack(*elements: Any) -> bytes:
    """A header: the msgpack array of `elements`."""
    packed: bytes = _PACKER.pack(elements)
    return packed


def unpack(header: bytes | memoryview, bytes_max: int = HEADER_BYTES_MAX) -> list[Any]:
    """The elements of `header`.

    Raises WireError unless it is one msgpack array, at most `bytes_max` long, that starts with an integer.
    """
    if len(header) > bytes_max:
        raise WireError(f"header of {len(header)} bytes: at most {bytes_max} are accepted")
    try:
        message = msgpack.unpackb(header, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, TypeError) as error:
        raise WireError(f"header is not msgpack: {error}") from error
    if not isinstance(message, list) or not message or type(message[0]) is not int:
        raise WireError("header is not an array that starts with a message type")
    return message


def refusal(number: int, message: str, reason: int, **details: Any) -> list[Any]:
    """The elements of a REFUSAL with errno `number`."""
    return [MessageType.REFUSAL, number, message, {"versions": list(VERSIONS), "reason": int(reason), **details}]


def reply(cookie: int, result: int, message: str | None, body: Any, reason: int = 0) -> list[Any]:
    """The elements of a REPLY; reason 0 is left out, as peers without reasons do."""
    elements: list[Any] = [MessageType.REPLY, cookie, result, message, body]
    return [*elements, int(reason)] if reason else elements


def negotiate(offered: Any) -> int | None:
    """The highest protocol version of the list `offered` that this end speaks, or None."""
    if not isinstance(offered, list):
        return None
    common = [version for version in VERSIONS if version in offered]
    return max(common, default=None)
