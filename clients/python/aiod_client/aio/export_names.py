"""Requests on paths of the asyncio client: one by the ring, and the handles that they name files by (ring/paths.py)."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod_client.aio.link import perform
from aiod_client.errors import AiodError, SessionLostError
from aiod_client.requests.pending import Call, Request
from aiod_client.ring.paths import NO_NAMES, WITH_STAT, goes_by_message, handle_is_stale
from aiod_protocol.operations import Op
from aiod_protocol.wire import MessageType, OpenFlag

if TYPE_CHECKING:
    from aiod_client._ring import Pending as RingPending
    from aiod_client.aio.link import Link
    from aiod_client.ring.paths import RingPaths
    from aiod_protocol.key_files import StrPath

_NAMES: Final = int(OpenFlag.NAMES)
_OPENS: Final = frozenset({int(Op.OPEN_FILE), int(Op.OPEN_WRITABLE)})

Found = bytes | int | tuple[int, int, int] | None
"""As Ring.on_path()."""


class ClientOfLinks(Protocol):
    """The part of Client that is used here."""

    async def _link(self, export: str, timeout_s: float) -> Link:
        """The session where `export` is served."""


async def on_path(
    link: Link,
    paths: RingPaths,
    request: tuple[int, int, int, str | bytes, Any, int],
    path: StrPath,
    deadline_s: float,
) -> Found:
    """Carry out (op, flags, handle, path in the export, data, length) by the ring; as Ring.on_path()."""
    most = paths.area_share
    cost = min(most, max(request[5] + len(request[3]), paths.request_cost_min))
    turns = link.turns
    if not turns.take_now(cost, most):
        await turns.take(cost, most)
    try:
        if link.paths is not paths:
            return None  # the engine has gone meanwhile
        timeout_s = max(0.0, deadline_s - time.monotonic())
        found = paths.ring.on_path_soon(*request, timeout_s, not turns.several)
        if found is None or type(found) in (bytes, int, tuple):
            if turns.is_pause_due():
                await turns.pause(cost)
            return found  # type: ignore[return-value]
        try:
            result = await _awaited(link, request, found, timeout_s, path)  # type: ignore[arg-type]
            turns.has_waited(cost)
            return result  # noqa: TRY300 - its errors are those of the request
        except SessionLostError as error:
            return -(error.errno or 0), 0, error.reason
        except (AiodError, TimeoutError):
            raise
        except OSError as error:
            if getattr(error, "reason", None) is None:
                raise
            return -(error.errno or 0), error.written, error.reason  # type: ignore[attr-defined]
    finally:
        turns.give(cost, most)


async def _awaited(
    link: Link,
    request: tuple[int, int, int, str | bytes, Any, int],
    found: RingPending | asyncio.Future[bytes],
    timeout_s: float,
    path: StrPath,
) -> Found:
    """The result of the request, which was submitted as `found`."""
    if asyncio.isfuture(found):
        try:
            return await found
        except asyncio.CancelledError:
            link.abandon_awaited(found)
            raise
    op, flags, handle, _, data, length = request
    # An open notes its result in `data`, a list; the bytes of other requests are in the ring already.
    buffer = data if op in _OPENS else None
    pending = Request(op, handle, 0, length, buffer, 0, flags & ~WITH_STAT)
    result: Found = await perform(link, pending, timeout_s, os.fspath(path), found)
    return result


async def names_of(client: ClientOfLinks, export: str, deadline_s: float) -> tuple[Link, RingPaths | None, int]:
    """The session that serves `export`, its ring's paths, and the handle there; paths None: by messages."""
    link = await client._link(export, max(0.0, deadline_s - time.monotonic()))  # noqa: SLF001 - a part of the client
    paths = link.paths
    if paths is None:
        return link, None, NO_NAMES
    handle = paths.handles.get(export)
    if handle is None:
        handle = await _ask_for_names(link, paths, export, deadline_s)
    return link, (paths if handle != NO_NAMES else None), handle


async def _ask_for_names(link: Link, paths: RingPaths, export: str, deadline_s: float) -> int:
    call = Call(MessageType.OPEN, export, "", _NAMES, 0, filename=export)
    try:
        handle, body = await perform(link, call, max(0.0, deadline_s - time.monotonic()), export)
    except TimeoutError:
        raise
    except OSError as error:
        paths.note_refusal(export, error)
        return NO_NAMES
    except BaseException:  # cancelled, or a signal's handler has raised
        if call.error is None and call.result is not None:
            link.close_handle(call.result[0])
        raise
    paths.note_origin(export, body)
    link.name_handle(handle, export)
    if link.paths is not paths or paths.handles.setdefault(export, handle) != handle:
        link.close_handle(handle)  # of another engine; or another task has asked, too
    return paths.handles.get(export, NO_NAMES) if link.paths is paths else NO_NAMES


def by_message(
    link: Link, paths: RingPaths, export: str, handle: int, found: tuple[int, int, int], *, may_repeat: bool = True
) -> bool:
    """Whether the request goes by messages; a handle that is not served any more is closed."""
    if not goes_by_message(paths.ring, found, may_repeat=may_repeat):
        return False
    if paths.forget(export, handle) and link.paths is paths and handle_is_stale(found):
        link.close_handle(handle)
    return True
