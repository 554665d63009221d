"""Requests on paths by a ring: whole files and stats of names, without a file being opened first (docs/ring.md).

Each needs the NAMES handle of its export, which belongs to one session with one engine. RingPaths has those of a ring,
and goes with it: at the next engine the handles are asked for anew. What a ring cannot do (an export with as_client, a
file that is larger than a request) goes by messages, as without a ring.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiod_client.errors import NOT_EXECUTED, UNKNOWN, Failure, SessionLostError, timed_out
from aiod_client.ring.direct import LOST, is_lost, may_be_done
from aiod_protocol.messages import errno_message, name_message, object_name
from aiod_protocol.operations import Op
from aiod_protocol.reasons import Reason, parse_reason
from aiod_protocol.wire import OPENED, STAT, OpenFlag

if TYPE_CHECKING:
    from aiod_client._ring import Failure as RingFailure
    from aiod_client._ring import Ring

STAT_BYTES: Final = STAT.size
"""Before the bytes of a file that was read; the whole result of STAT_NAME."""
_ROOM_FIRST: Final = 16 * 1024
_ROOM_LAST: Final = 256 * 1024
_PAGE: Final = 4096
_INFLIGHT_MAX: Final = 128
"""Requests on paths that tasks may have in flight at once: a ring has 256 entries."""
_WITHOUT: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
"""Errnos of an OPEN of names that the next one would end with as well. Not EMFILE: another task may have asked, too."""

NO_NAMES: Final = 0

WITH_STAT: Final = 1 << 16
"""A flag of on_path() alone: the result of READ_FILE begins with the record of STAT."""

OPENED_BYTES: Final = OPENED.size
_OPEN_FILE: Final = int(Op.OPEN_FILE)
_OPEN_WRITABLE: Final = int(Op.OPEN_WRITABLE)
_READ_ONLY: Final = int(OpenFlag.READ)
_WRITE: Final = int(OpenFlag.WRITE)
_BY_MESSAGE: Final = int(OpenFlag.DIRECT | OpenFlag.NAMES)
_ONCE: Final = int(OpenFlag.EXCLUSIVE | OpenFlag.TRUNCATE)
_RECORD: Final = struct.Struct("<II")
"""Of OPEN_WRITABLE, before the path: flags, and permission bits of a new file."""
_SAID_BY_OPEN: Final = frozenset({errno.EAGAIN, errno.EINVAL})
"""Errnos of an open that has changed nothing, whose causes the message OPEN explains."""


class RingPaths:
    """The NAMES handles of one ring, and the room for files that they are read into. Any thread."""

    __slots__ = (
        "area_share",
        "handles",
        "late",
        "names",
        "opens_by_message",
        "origins",
        "request_cost_min",
        "ring",
        "room",
    )

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.handles: dict[str, int] = {}
        """Export to handle; NO_NAMES: it can have none."""
        self.room = _ROOM_FIRST
        """What READ_FILE is asked for first: files of one program are mostly alike."""
        self.area_share = ring.request_bytes_max // 2
        """The part of the buffer area that tasks may use for requests on paths at once (bytes)."""
        self.request_cost_min = self.area_share // _INFLIGHT_MAX
        self.opens_by_message: set[tuple[str, int]] = set()
        """(export, operation): files of the export that the ring does not open by the operation."""
        self.names: bool | None = None
        """Whether the engine knows NAME by ring; None: it has not been asked."""
        self.origins: dict[str, bytes] = {}
        """Export to the origin of its files, which REOPEN hands back to another daemon."""
        self.late = False
        """Whether an OPEN_FILE was given up that may open a file nevertheless."""

    def note_refusal(self, export: str, error: OSError) -> None:
        """The engine gives no handle for `export`: ask no more, unless another answer may come."""
        if error.errno in _WITHOUT:
            self.handles[export] = NO_NAMES

    def note_origin(self, export: str, body: Any) -> None:
        """The reply to an OPEN of names has `body`."""
        origin = body.get("origin") if isinstance(body, dict) else None
        self.origins[export] = origin if isinstance(origin, bytes) else b""

    def forget(self, export: str, handle: int) -> bool:
        """The engine serves `handle` no more. Whether it has to be closed; at the next engine it is another file."""
        self.opens_by_message = {refused for refused in self.opens_by_message if refused[0] != export}
        known = self.handles.get(export) == handle and self.handles.pop(export, None) is not None
        return known and self.ring.ended == 0

    def note_name(self, failure: RingFailure | None) -> None:
        """A NAME has ended: an engine that refuses the first one as a bad entry is an older one."""
        if self.names is None:
            self.names = failure is None or failure[2] != Reason.BAD_ENTRY

    def take_late(self) -> list[int]:
        """The handles of files that were opened after their OPEN_FILE was given up: they have to be closed."""
        return self.ring.late_opened() if self.late else []

    def opens_no_more(self, export: str, op: int, failure: RingFailure) -> bool:
        """Whether `failure` of an open says that the next one fails, too: files of `export` go by message then."""
        result, _, reason = failure
        refused = result == -errno.EOPNOTSUPP or reason in {Reason.BAD_ENTRY, Reason.NOT_ALLOWED}
        if refused:
            self.opens_by_message.add((export, op))
        return refused

    def room_for(self, path: str, file_bytes: int) -> int | None:
        """The room for a file of `file_bytes`, in whole pages; None: a request cannot bring as much."""
        room = max(file_bytes + STAT_BYTES + 1, len(path) * 4)
        room += -room % _PAGE
        if room > self.ring.request_bytes_max:
            return None
        self.room = max(self.room, min(room, _ROOM_LAST))
        return room


def larger_room(failure: RingFailure, asked: int) -> int | None:
    """The size of the file that did not fit into `asked` bytes of room; None: the request failed for another cause."""
    size = _size_that_did_not_fit(failure)
    return 4 * asked if size == 0 else size  # a file of /proc does not say how long it is


def _size_that_did_not_fit(failure: RingFailure) -> int | None:
    result, size, reason = failure
    return size if result == -errno.EFBIG and reason == Reason.TOO_LONG else None


def handle_is_stale(failure: RingFailure) -> bool:
    """Whether the NAMES handle is not valid any more, or not for this: the file has to be opened."""
    return failure[0] == -errno.EBADF and failure[2] in {Reason.NO_HANDLE, Reason.NO_ACCESS}


def goes_by_message(ring: Ring, failure: RingFailure, *, may_repeat: bool) -> bool:
    """Whether the request that has failed with `failure` is to be done by messages instead.

    It was not executed, or it `may_repeat`: it may be executed twice.
    """
    if is_lost(failure):
        return may_repeat or not may_be_done(ring, failure)
    return handle_is_stale(failure)


class OpenRequest(NamedTuple):
    """An open by a ring."""

    op: int
    path: str | bytes
    """As Ring.on_path() has it."""
    may_repeat: bool


def open_request(inside: str, flags: int, mode: int) -> OpenRequest | None:
    """The request that opens the file `inside` an export by the ring; None: by message."""
    if "\0" in inside:
        return None
    if flags == _READ_ONLY:
        return OpenRequest(_OPEN_FILE, inside, may_repeat=True)
    if not flags & _WRITE or flags & _BY_MESSAGE:
        return None
    return OpenRequest(_OPEN_WRITABLE, _RECORD.pack(flags, mode) + inside.encode(), may_repeat=not flags & _ONCE)


def opened_file(record: bytes) -> tuple[int, tuple[int, int, int]]:
    """Handle, and device, inode and generation, of the file that OPEN_FILE has opened."""
    handle, _, *identity = OPENED.unpack(record)
    return handle, tuple(identity)


def is_final(op: int, failure: RingFailure) -> bool:
    """Whether the kernel has refused an open, so that the message OPEN would end alike.

    Of OPEN_FILE only that there is no such file. An open for writing may have changed something before it failed.
    """
    result, _, reason = failure
    if reason != Reason.BY_KERNEL or is_lost(failure):
        return False
    return result == -errno.ENOENT or (op == _OPEN_WRITABLE and -result not in _SAID_BY_OPEN)


def failed_on_path(verb: str, path: str, failure: RingFailure, timeout_s: float) -> OSError:
    """The exception for `verb` of `path` that the ring has ended with `failure`."""
    result, _, reason = failure
    if result == -errno.ENOENT and reason == 0:
        return _absent(verb, path)
    what = f"{verb} {path}"
    if reason < 0:
        return timed_out(what, timeout_s, sent=True)
    if is_lost(failure):
        return SessionLostError(errno.EIO, f"{what}: {UNKNOWN}: {LOST.strerror}")
    known = parse_reason(reason)
    if verb == "open":
        export, _, inside = path.partition("/")
        message = errno_message(f"open {object_name(export, inside)}", -result)
    elif known == Reason.OUTSIDE:
        message = name_message(what, -result, outside=True)
    elif known in {Reason.BY_KERNEL, Reason.TOO_LONG}:
        message = (
            name_message(what, -result) if verb == "stat" else errno_message(what, -result, _ADVICE.get(-result, ""))
        )
    else:
        message = f"{what}: {known.message if isinstance(known, Reason) else known} (errno {-result})"
    return Failure(-result, message, 0, known).error(path)


_ADVICE: Final = {
    errno.ENOENT: "there is no such file, or a directory of the path is missing",
    errno.EINVAL: "only regular files can be read and written as a whole",
    errno.EEXIST: "the name exists already",
}


_ABSENT: Final = {
    "stat": name_message("", errno.ENOENT),
    "read": errno_message("", errno.ENOENT, _ADVICE[errno.ENOENT]),
}
_ABSENT_OTHERWISE: Final = errno_message("", errno.ENOENT)


def _absent(verb: str, path: str) -> FileNotFoundError:
    """The same in a fifth of the time: many programs ask for names that are not there."""
    error = FileNotFoundError(errno.ENOENT, f"{verb} {path}{_ABSENT.get(verb, _ABSENT_OTHERWISE)}", path)
    error.written = 0  # type: ignore[attr-defined]
    error.reason = Reason.BY_KERNEL  # type: ignore[attr-defined]
    return error


def lost_on_path(*, may_be_done: bool) -> SessionLostError:
    """The error of a request whose ring has gone; its caller puts it into words."""
    error = SessionLostError(errno.ECONNRESET, UNKNOWN if may_be_done else NOT_EXECUTED)
    error.written = 0
    error.reason = Reason.BY_KERNEL if may_be_done else Reason.STOPPING
    return error
