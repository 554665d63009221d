"""Clients that connect when they are first used: one for each configuration, in each process and event loop.

What may be pickled, forked or made at import time (an fsspec file system, a Zarr store, a data set) keeps Settings, and
asks here for its client. A child process finds no client, and connects anew. The clients that are left at the end of
the process are closed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from aiod_client import aio
from aiod_client.base_client import TIMEOUT_S, check_transport
from aiod_client.blocking.client import Client
from aiod_client.endpoint import default_endpoint, split

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from aiod_client.ring.attach import Transport

T = TypeVar("T")

_CLOSE_S: Final = 5.0
"""How long the end of the process waits for a loop of another thread to close its client."""


class Settings(NamedTuple):
    """The arguments of connect(). Endpoints and keys are names: a process connects to what they mean there.

    `prefer` is split at its commas, so that settings that mean the same share a client.
    """

    endpoint: str
    key: str | None = None
    server_key: str | None = None
    transport: Transport = "auto"
    timeout: float | None = TIMEOUT_S
    reconnect_timeout: float | None = None
    prefer: tuple[str, ...] | None = None
    host_timeout: float | None = None


def settings(
    endpoint: str | None,
    key: str | os.PathLike[str] | None,
    server_key: str | os.PathLike[str] | None,
    transport: Transport,
    timeout: float | None = TIMEOUT_S,
    reconnect_timeout: float | None = None,
    prefer: str | Iterable[str] | None = None,
    host_timeout: float | None = None,
) -> Settings:
    """The Settings of connect()'s arguments. Raises ValueError for an unknown transport.

    Whether `prefer` names endpoints of the list is checked when a client connects.
    """
    check_transport(transport)
    key = None if key is None else os.fspath(key)
    server_key = None if server_key is None else os.fspath(server_key)
    if prefer is not None:
        prefer = tuple(split(prefer)) if isinstance(prefer, str) and prefer else tuple(prefer)
    endpoint = endpoint or default_endpoint()
    return Settings(endpoint, key, server_key, transport, timeout, reconnect_timeout, prefer, host_timeout)


class _Clients:
    """The clients of this process."""

    def __init__(self) -> None:
        self.blocking: dict[Settings, Client] = {}
        self.awaited: dict[asyncio.AbstractEventLoop, dict[Settings, asyncio.Task[aio.Client]]] = {}
        self.closing: set[asyncio.Task[None]] = set()
        self.lock = threading.Lock()
        """Of `awaited` and `loop`; held for moments."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """Of in_background()."""
        self.turns: dict[Settings, threading.Lock] = {}
        """Each held while the blocking client of these settings connects."""

    def turn(self, wanted: Settings) -> threading.Lock:
        """The lock for connecting with these settings."""
        return self.turns.setdefault(wanted, threading.Lock())


_clients = _Clients()


def _forget_parent() -> None:
    """In a forked child: the clients are the parent's, and so may be locks that another thread of it held."""
    global _clients  # noqa: PLW0603 - one a process
    _clients = _Clients()


os.register_at_fork(after_in_child=_forget_parent)


def blocking_client(wanted: Settings) -> Client:
    """The process's blocking client of these settings. Any thread."""
    client = _clients.blocking.get(wanted)
    if client is not None and not client.closed:
        return client
    with _clients.turn(wanted):
        client = _clients.blocking.get(wanted)
        if client is None or client.closed:
            client = _clients.blocking[wanted] = Client(**wanted._asdict())
        return client


async def awaited_client(wanted: Settings) -> aio.Client:
    """The running loop's client of these settings."""
    loop = asyncio.get_running_loop()
    found = _clients.awaited.get(loop)
    task = None if found is None else found.get(wanted)
    if task is not None and task.done() and not _has_failed(task) and not task.result().closed:
        return task.result()
    if task is None or task.done():
        # A task of its own: the one that asks first may be cancelled, and others wait for the same client.
        task = loop.create_task(_connect(wanted))
        with _clients.lock:
            orphans = _take_orphans()
            _clients.awaited.setdefault(loop, {})[wanted] = task
        for client in orphans:
            with contextlib.suppress(OSError):
                await client.close()
    return await asyncio.shield(task)


def in_background(awaited: Coroutine[Any, Any, T]) -> T:
    """Await in the process's own event loop, in another thread, and return the result."""
    loop = _clients.loop
    if loop is None:
        with _clients.lock:
            loop = _clients.loop
            if loop is None:
                loop = _clients.loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="aiod-loop", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(awaited, loop).result()


def _has_failed(task: asyncio.Task[aio.Client]) -> bool:
    return task.cancelled() or task.exception() is not None


async def _connect(wanted: Settings) -> aio.Client:
    return await aio.connect(**wanted._asdict())


def _take_orphans() -> list[aio.Client]:
    """Take the clients of loops that have been closed: any other loop may close them."""
    loops = [loop for loop in _clients.awaited if loop.is_closed()]
    tasks = [task for loop in loops for task in _clients.awaited.pop(loop).values()]
    return [task.result() for task in tasks if task.done() and not _has_failed(task)]


def close(wanted: Settings) -> None:
    """Close this process's clients of these settings; that of the running loop soon. The next use connects again."""
    client = _clients.blocking.pop(wanted, None)
    if client is not None:
        client.close()
    with _clients.lock:
        tasks = [found.pop(wanted) for found in _clients.awaited.values() if wanted in found]
    for task in tasks:
        if task.done() and not _has_failed(task):
            _close_awaited(task.result(), task.get_loop())


def _close_awaited(client: aio.Client, loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(TimeoutError, OSError):
        if loop is asyncio._get_running_loop():  # noqa: SLF001 - documented, and raises nothing
            closing = loop.create_task(client.close())
            _clients.closing.add(closing)
            closing.add_done_callback(_clients.closing.discard)
        elif loop.is_running():
            asyncio.run_coroutine_threadsafe(client.close(), loop).result(_CLOSE_S)
        else:
            _in_other_thread(client.close)


def _in_other_thread(close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Await close() in a thread, since this one may have a running loop."""
    thread = threading.Thread(target=lambda: asyncio.run(close()), name="aiod-close", daemon=True)
    thread.start()
    thread.join()


def _close_all() -> None:
    for wanted in {*_clients.blocking, *(each for found in _clients.awaited.values() for each in found)}:
        with contextlib.suppress(OSError, RuntimeError):  # no thread can be started any more
            close(wanted)


atexit.register(_close_all)
