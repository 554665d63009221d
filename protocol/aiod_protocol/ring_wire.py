"""The messages on a ring's socket (clients/c/include/aiod_ring.h): one packed structure each, little-endian.

Pure data: no sockets, no state. A test compares the layouts with the header's.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

VERSION: Final = 1
TICKET_BYTES: Final = 16
ENTRIES_MAX: Final = 4096
MESSAGE_BYTES_MAX: Final = 8192
"""No message is longer."""
ERROR_MESSAGE_BYTES_MAX: Final = 1024


class RingMessage(enum.IntEnum):
    """First number of every message."""

    ATTACH = 1
    ATTACHED = 2
    OPEN = 3
    CLOSE = 4
    REPLY = 5
    GOODBYE = 6
    REOPEN = 16
    REPEATED = 17
    GO = 18
    LOCK = 19
    UNLOCK = 20


class AttachFlag(enum.IntFlag):
    """Bits of ATTACH's `flags`."""

    RESUMABLE = 1
    RESUMES = 2


class SessionFlag(enum.IntFlag):
    """Bits of SESSION's `flags`."""

    GRACE = 1


class RingFeature(enum.IntFlag):
    """Bits of ATTACHED's `features`."""

    LOCKS = 1


class RingShutdownNotice(enum.IntFlag):
    """Bits that an engine that stops in order writes into the ring's memory."""

    DRAINED = 1
    FLUSHED = 2


HEAD: Final = struct.Struct("<II")
"""Type; in ATTACH the version."""
ATTACH: Final = struct.Struct("<II16sIIQ64s")
"""type, version, ticket, entries, flags, area_bytes, software."""
ATTACHED: Final = struct.Struct("<IIQQII")
"""type, version, memory_bytes, request_bytes_max, entries, features; SESSION follows, of a resumable session."""
SESSION: Final = struct.Struct("<16sII")
"""token, flags, reserved."""
OPEN: Final = struct.Struct("<IIQII")
"""type, flags, cookie, mode, reserved; the path follows."""
CLOSE: Final = struct.Struct("<IIQ")
"""type, handle, cookie."""
LOCK: Final = struct.Struct("<IIQQQQII")
"""type, handle, cookie, offset, length, number, flags, wait_ms."""
UNLOCK: Final = struct.Struct("<IIQQQ")
"""type, handle, cookie, offset, length."""
GOODBYE: Final = struct.Struct("<II")
"""type, reserved."""
REOPEN: Final = struct.Struct("<IIQIIQQQ")
"""type, flags, cookie, handle, changed, device, inode, generation; the path follows."""
PLAIN: Final = struct.Struct("<II")
"""type, reserved: REPEATED and GO."""
REPLY: Final = struct.Struct("<IIQq")
"""type, reason, cookie, result; the message follows, or FILE."""
FILE: Final = struct.Struct("<QQQ")
"""The identity of a file that was opened: device, inode, generation."""
