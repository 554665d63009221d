"""The handles by which the blocking client's requests on paths name files of an export (ring/paths.py)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from aiod_client.requests.pending import Call
from aiod_client.ring.paths import NO_NAMES, goes_by_message, handle_is_stale
from aiod_protocol.wire import MessageType, OpenFlag

if TYPE_CHECKING:
    from aiod_client.blocking.link import Link
    from aiod_client.ring.paths import RingPaths

_NAMES: Final = int(OpenFlag.NAMES)


class ClientOfLinks(Protocol):
    """The part of Client that is used here."""

    def _link(self, export: str, deadline_s: float) -> Link:
        """The session where `export` is served."""


def names_of(client: ClientOfLinks, export: str, deadline_s: float) -> tuple[Link | None, RingPaths | None, int]:
    """The session that serves `export`, its ring's paths, and the handle there; paths None: by messages."""
    link = client._link(export, deadline_s)  # noqa: SLF001 - a part of the client
    paths = link.paths
    if paths is None:
        return link, None, NO_NAMES
    handle = paths.handles.get(export)
    if handle is None:
        handle = _ask_for_names(link, paths, export, deadline_s)
    return link, (paths if handle != NO_NAMES else None), handle


def _ask_for_names(link: Link, paths: RingPaths, export: str, deadline_s: float) -> int:
    call = Call(MessageType.OPEN, export, "", _NAMES, 0, filename=export)
    try:
        link.perform(call, max(0.0, deadline_s - time.monotonic()), export)
    except TimeoutError:
        raise
    except OSError as error:
        paths.note_refusal(export, error)
        return NO_NAMES
    handle: int = call.result[0]
    paths.note_origin(export, call.result[1])
    if link.paths is not paths or paths.handles.setdefault(export, handle) != handle:
        link.close_file_later(handle)  # of another engine; or another thread has asked, too
    return paths.handles.get(export, NO_NAMES) if link.paths is paths else NO_NAMES


def by_message(
    link: Link | None,
    paths: RingPaths,
    export: str,
    handle: int,
    found: tuple[int, int, int],
    *,
    may_repeat: bool = True,
) -> bool:
    """Whether the request goes by messages; a handle that is not served any more is closed."""
    if not goes_by_message(paths.ring, found, may_repeat=may_repeat):
        return False
    if paths.forget(export, handle) and link is not None and handle_is_stale(found):
        link.close_file_later(handle)
    return True
