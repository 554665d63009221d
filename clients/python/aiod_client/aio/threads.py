"""Calls that block, each in a thread of its own.

Not in the loop's default executor, whose threads may be busy with a program's own calls for long: open() and close()
would wait for these. Such calls are rare: a ring is attached, a session ends, a request in the ring is cancelled.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from aiod_client.connection.dealer import LINGER_MS
from aiod_client.errors import AiodError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aiod_client.connection.dealer import Dealer

T = TypeVar("T")


def in_thread(loop: asyncio.AbstractEventLoop, call: Callable[[], T], *, daemon: bool = True) -> asyncio.Future[T]:
    """A future of `call()`, which runs in a new thread. Raises AiodError (EAGAIN) if there can be no more threads.

    Without `daemon` the program ends only after the call.
    """
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as raised:  # noqa: BLE001 - the future's
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_settle, future, result, error)

    try:
        threading.Thread(target=run, name="aiod-call", daemon=daemon).start()
    except RuntimeError as error:
        raise AiodError(errno.EAGAIN, f"cannot start a thread: {error}") from error
    return future


def close_in_thread(loop: asyncio.AbstractEventLoop, dealer: Dealer) -> asyncio.Future[None] | None:
    """Close `dealer` in a thread, as that waits for a daemon that does not read; None: there was no thread for it."""
    try:
        return in_thread(loop, lambda: dealer.close(LINGER_MS), daemon=False)
    except AiodError:
        dealer.close(LINGER_MS)
        return None


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # its await was cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
