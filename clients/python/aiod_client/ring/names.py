"""Directory operations by a ring: NAME's record, its answer, and the error of one that has failed (docs/ring.md)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiod_client.errors import Failure, ProtocolError
from aiod_client.ring.direct import is_lost, may_be_done
from aiod_client.ring.paths import failed_on_path, handle_is_stale
from aiod_protocol.messages import object_name
from aiod_protocol.names import (
    ASKS,
    ATTRIBUTE_BYTES_MAX,
    NAME,
    NO_FOLLOW,
    NOW,
    PAGE,
    PAGE_BYTES_MAX,
    REPLACE,
    VERBS,
    verb_message,
)
from aiod_protocol.reasons import Reason, parse_reason
from aiod_protocol.wire import STAT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiod_client._ring import Failure as RingFailure
    from aiod_client.ring.paths import RingPaths

_NUMBERS: Final = {verb: number for number, verb in enumerate(VERBS)}
_ROOMS: Final = {
    "list": PAGE_BYTES_MAX,
    "stat": STAT.size,
    "lstat": STAT.size,
    "readlink": 4096,
    "getxattr": ATTRIBUTE_BYTES_MAX,
    "listxattr": ATTRIBUTE_BYTES_MAX,
    "rmtree": 1,
}
"""The longest answers."""
_BODIES: Final = {
    "stat": "stat",
    "lstat": "stat",
    "readlink": "target",
    "getxattr": "value",
    "listxattr": "names",
}
"""The keys of answers in the body of a REPLY."""
_TIMES_BYTES: Final = 16
_MODE_MAX: Final = 2**32 - 1

_SAID_BY_MESSAGE: Final = frozenset({Reason.NOT_ALLOWED, Reason.BAD_ENTRY})
"""What is refused with these is refused by message, too, in a sentence."""


class NameRequest(NamedTuple):
    """A directory operation."""

    verb: str
    export: str
    path: str
    arguments: Mapping[str, Any]

    @property
    def room(self) -> int:
        """The bytes of its longest answer."""
        return _ROOMS.get(self.verb, 0)

    def __str__(self) -> str:
        """As the daemon calls it in messages."""
        what = f"{self.verb} {object_name(self.export, self.path)}"
        to = self.arguments.get("to", "")
        return f"{what} to {object_name(self.export, to)}" if to else what


def pack_name(request: NameRequest) -> bytes | None:
    """What the request brings along; None: its arguments are not right, which a message gets the answer to."""
    verb, _, path, arguments = request
    flags = 0
    times = arguments.get("times", b"")
    access = change = b"\0" * (_TIMES_BYTES // 2)
    if arguments.get("replace", False):
        flags |= REPLACE
    if not arguments.get("follow", True):
        flags |= NO_FOLLOW
    if verb == "utime":
        if not times:
            flags |= NOW
        else:
            access, change = times[: _TIMES_BYTES // 2], times[_TIMES_BYTES // 2 :]
    to = arguments.get("to", "") or arguments.get("target", "") or arguments.get("name", "")
    value = arguments.get("value", b"")
    mode, xattr_flags, cursor = arguments.get("mode", 0), arguments.get("flags", 0), arguments.get("cursor", 0)
    if "\0" in path or "\0" in to:
        return None
    if not 0 <= mode <= _MODE_MAX or not 0 <= xattr_flags <= _MODE_MAX or not 0 <= cursor < 2**63:
        return None
    try:
        path_bytes, to_bytes = path.encode(), to.encode()
    except UnicodeEncodeError:
        return None
    head = NAME.pack(
        _NUMBERS[verb],
        flags,
        mode,
        len(path_bytes),
        len(to_bytes),
        len(value),
        xattr_flags,
        cursor,
        int.from_bytes(access, "little", signed=True),
        int.from_bytes(change, "little", signed=True),
    )
    return b"".join((head, path_bytes, to_bytes, value))


def parse_answer(verb: str, answer: bytes) -> tuple[int, dict[str, Any] | None]:
    """Result and body of a REPLY, which a message would have got. Raises ProtocolError."""
    if verb == "list":
        return 0, _parse_page(answer)
    if verb == "rmtree":
        return len(answer), None
    key = _BODIES.get(verb)
    return 0, {key: answer} if key is not None else None


def _parse_page(answer: bytes) -> dict[str, Any]:
    if len(answer) < PAGE.size:
        raise ProtocolError(errno.EPROTO, "the daemon broke the protocol: a page has no record")
    following, more, entries, name_bytes, _ = PAGE.unpack_from(answer)
    names_at = PAGE.size + entries * STAT.size
    if len(answer) != names_at + name_bytes:
        raise ProtocolError(errno.EPROTO, "the daemon broke the protocol: a page is cut short")
    return {
        "stats": answer[PAGE.size : names_at],
        "names": answer[names_at:],
        "next": following if more else None,
    }


def name_goes_by_message(request: NameRequest, paths: RingPaths, failure: RingFailure) -> bool:
    """Whether the request that has failed is to be done by message: it was not executed, or may be repeated."""
    if is_lost(failure):
        return request.verb in ASKS or not may_be_done(paths.ring, failure)
    paths.note_name(failure)
    return handle_is_stale(failure) or failure[2] in _SAID_BY_MESSAGE


def failed_name(request: NameRequest, path: str, failure: RingFailure, timeout_s: float) -> OSError:
    """The exception for the request on `path` that the ring has ended with `failure`."""
    result, _, reason = failure
    if reason < 0 or is_lost(failure):
        return failed_on_path(request.verb, path, failure, timeout_s)
    known = parse_reason(reason)
    if known in {Reason.BY_KERNEL, Reason.OUTSIDE}:
        message = verb_message(request.verb, str(request), -result, outside=known == Reason.OUTSIDE)
    else:
        message = f"{request}: {known.message if isinstance(known, Reason) else known} (errno {-result})"
    return Failure(-result, message, 0, known).error(path)
