"""Opening and closing files by the ring, for the blocking client: what the ring cannot do goes by message."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiod_client.blocking.export_names import by_message, names_of
from aiod_client.errors import timed_out
from aiod_client.ring.direct import is_lost
from aiod_client.ring.paths import OPENED_BYTES, failed_on_path, is_final, open_request, opened_file

if TYPE_CHECKING:
    from aiod_client.blocking.export_names import ClientOfLinks
    from aiod_client.blocking.link import Link
    from aiod_client.requests.pending import Call
    from aiod_client.ring.paths import RingPaths


def open_file(client: ClientOfLinks, call: Call, timeout_s: float) -> Link | None:
    """Carry out the OPEN `call` by the ring: the session, and the handle in the call's result. None: by message."""
    export, inside, flags, mode = call.arguments
    request = open_request(inside, flags, mode)
    if request is None:
        return None
    deadline_s = time.monotonic() + timeout_s
    link, paths, names = names_of(client, export, deadline_s)
    if link is None or paths is None or (export, request.op) in paths.opens_by_message or link.is_locked():
        return None
    _close_late(link, paths)
    opened: list[bytes] = []
    try:
        left_s = deadline_s - time.monotonic()
        found = paths.ring.on_path(request.op, 0, names, request.path, opened, OPENED_BYTES, left_s)
        if type(found) is bytes:
            handle, identity = opened_file(found)
            with link.lock:
                if link.add_opened(paths, handle, call.arguments, identity):
                    call.result = handle, None
                    return link
            return None  # the engine has gone, and the handle with it
    except BaseException:
        paths.late = True
        if opened and call.result is None and link.paths is paths:
            link.close_file_later(opened_file(opened[0])[0])
        raise
    if type(found) is not tuple or by_message(link, paths, export, names, found, may_repeat=request.may_repeat):
        return None
    path = call.filename or export
    if found[2] < 0:
        paths.late = True
        raise timed_out(f"open {path}", timeout_s, sent=True)
    if is_final(request.op, found) or is_lost(found):
        raise failed_on_path("open", path, found, timeout_s)
    paths.opens_no_more(export, request.op, found)
    return None


def _close_late(link: Link, paths: RingPaths) -> None:
    for handle in paths.take_late():
        link.close_file_later(handle)


def close_file(link: Link, handle: int, timeout_s: float, name: str) -> bool:
    """Close `handle` by the ring. False: it has to be closed by message."""
    ring = link.ring
    if ring is None or link.is_locked():
        return False
    with link.lock:
        may_close = link.may_close_by_ring(handle)
    if not may_close:
        return False
    found = ring.close_file(handle, timeout_s)
    if type(found) is tuple and found[2] < 0:
        link.close_file_later(handle)
        raise timed_out(f"close {name}", timeout_s, sent=True)
    if found != 0:
        return False
    with link.lock:
        link.closed_by_ring(handle)
    return True
