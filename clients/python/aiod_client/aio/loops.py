"""Which event loop a client belongs to, and the error for its use on another one."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Final

from aiod_client.errors import AiodError

if TYPE_CHECKING:
    from collections.abc import Callable

running_loop: Final[Callable[[], asyncio.AbstractEventLoop | None]] = asyncio._get_running_loop  # noqa: SLF001
"""The loop that runs in this thread, or None; asyncio.get_running_loop() would raise RuntimeError."""


def check_loop(loop: asyncio.AbstractEventLoop, what: str) -> None:
    """Raise AiodError (EBADF) unless `what`, which belongs to `loop`, may be used here.

    Without a running loop it may be, between two runs of `loop`: for calls that are not awaited.
    """
    running = running_loop()
    if running is loop or (running is None and not loop.is_closed()):
        return
    state = "has ended" if loop.is_closed() else "is another one"
    raise AiodError(errno.EBADF, f"{what} belongs to an event loop that {state}: connect again on this one")
