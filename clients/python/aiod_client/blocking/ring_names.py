"""Directory operations by the ring, for the blocking client: what the ring cannot do goes by message."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from aiod_client.blocking.export_names import names_of
from aiod_client.ring.names import NameRequest, failed_name, name_goes_by_message, pack_name, parse_answer
from aiod_client.ring.paths import handle_is_stale
from aiod_protocol.operations import Op

if TYPE_CHECKING:
    from aiod_client.blocking.export_names import ClientOfLinks

_NAME: Final = int(Op.NAME)


def carry_out(client: ClientOfLinks, request: NameRequest, path: str, timeout_s: float) -> tuple[int, Any] | None:
    """Carry out `request`, on `path`, by the ring: result and body of its answer. None: by message."""
    deadline_s = time.monotonic() + timeout_s
    link, paths, names = names_of(client, request.export, deadline_s)
    packed = pack_name(request) if paths is not None and paths.names is not False else None
    if link is None or paths is None or packed is None:
        return None
    found = paths.ring.on_path(_NAME, 0, names, packed, None, request.room, max(0.0, deadline_s - time.monotonic()))
    if type(found) is bytes:
        paths.note_name(None)
        return parse_answer(request.verb, found)
    if type(found) is not tuple:
        return None
    if name_goes_by_message(request, paths, found):
        if handle_is_stale(found) and paths.forget(request.export, names):
            link.close_file_later(names)
        return None
    raise failed_name(request, path, found, timeout_s)
