"""Opening and closing files by the ring, for the asyncio client: what the ring cannot do goes by message."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aiod_client.aio.export_names import by_message, names_of, on_path
from aiod_client.aio.link import perform
from aiod_client.errors import timed_out
from aiod_client.requests.pending import Request
from aiod_client.ring.paths import OPENED_BYTES, READ_ONLY, failed_on_path, is_missing, opened_file
from aiod_protocol.operations import Op

if TYPE_CHECKING:
    from aiod_client.aio.export_names import ClientOfLinks
    from aiod_client.aio.link import Link

_OPEN_FILE: Final = int(Op.OPEN_FILE)
_CLOSE_FILE: Final = int(Op.CLOSE_FILE)


async def open_file(
    client: ClientOfLinks, path: str, arguments: tuple[str, str, int, int], timeout_s: float
) -> tuple[Link, int] | None:
    """Carry out an OPEN with `arguments` by the ring: the session and the handle. None: by message."""
    export, inside, flags, _ = arguments
    if flags != READ_ONLY:
        return None
    deadline_s = time.monotonic() + timeout_s
    link, paths, names = await names_of(client, export, deadline_s)
    if paths is None or export in paths.opens_by_message:
        return None
    for late in paths.take_late():
        link.close_handle(late)
    try:
        found = await on_path(link, paths, (_OPEN_FILE, 0, names, inside, None, OPENED_BYTES), path, deadline_s)
    except BaseException:
        paths.late = True
        raise
    if type(found) is bytes:
        handle, identity = opened_file(found)
        return (link, handle) if link.add_opened(paths, handle, arguments, identity) else None
    if type(found) is not tuple or by_message(link, paths, export, names, _OPEN_FILE, found):
        return None
    if found[2] < 0:
        paths.late = True
        raise timed_out(f"open {path}", timeout_s, sent=True)
    if is_missing(found):
        raise failed_on_path("open", path, found, timeout_s)
    paths.opens_no_more(export, found)
    return None


async def close_file(link: Link, handle: int, timeout_s: float, name: str) -> bool:
    """Close `handle` by the ring. False: it has to be closed by message."""
    ring = link.ring
    if ring is None or not link.may_close_by_ring(handle):
        return False
    found = ring.close_file(handle, timeout_s, soon=True)
    if found is not None and type(found) not in (int, tuple):
        try:
            found = await perform(link, Request(_CLOSE_FILE, handle, 0, 0, None, 0), timeout_s, name, found)  # type: ignore[arg-type]
        except TimeoutError:
            raise
        except OSError:
            return False
    if found != 0:
        return False
    link.closed_by_ring(handle)
    return True
