"""A program: raises KeyboardInterrupt in the midst of callbacks of the asyncio client; the session has to continue.

A process of its own, because CPython 3.11 miscounts its recursion depth after such exceptions of tasks.

    python -m tests.client.interrupted_loop ENDPOINT TRANSPORT TIMEOUT
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Any

from aiod_client import aio

PLACES = ["add", "messages_to_send", "send", "receive", "_reply"]


class Interruption:
    """Makes one call of `owner.name()` raise KeyboardInterrupt, `after` its work or before."""

    def __init__(self, owner: Any, name: str, *, after: bool) -> None:
        self._owner, self._name, self._after = owner, name, after
        self._usual = getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *arguments: Any) -> Any:
        """Raise it; the next call is as usual."""
        setattr(self._owner, self._name, self._usual)
        if self._after:
            self._usual(*arguments)
        raise KeyboardInterrupt


async def use(file: aio.File) -> None:
    """A request by ring, if there is one, and one that goes by message in any case."""
    await asyncio.gather(file.pwrite(b"0123456789", 0), file.unlock())


def interrupt(loop: asyncio.AbstractEventLoop, client: aio.Client, file: aio.File, place: str, *, after: bool) -> None:
    """Interrupt a use at `place`, and use the client again."""
    link = file._link
    Interruption(link._dealer if place == "send" else link.session, place, after=after)
    pauses = client.counters.pauses
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(use(file))
    cancel_tasks(loop)
    loop.run_until_complete(use(file))
    assert loop.run_until_complete(file.pread(100, 0)) == b"0123456789"
    assert link.ended is None
    assert client._links_at[link.endpoint] is link
    assert client.counters.pauses == pauses + 1


def cancel_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """End the tasks that were left, as asyncio.run() does. Each that awaits the interrupted one is interrupted, too."""
    while tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        with contextlib.suppress(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait(tasks))


def main(endpoint: str, transport: Any, timeout_s: float) -> None:
    """Interrupt at every place."""
    logging.getLogger("asyncio").disabled = True  # tasks whose exception nobody asks for
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[aio.Client, aio.File]:
        client = await aio.connect(endpoint, transport=transport, timeout=timeout_s, reconnect_timeout=timeout_s)
        return client, await client.open("scratch/file", "w+")

    client, file = loop.run_until_complete(begin())
    for place in PLACES:
        for after in (False, True):
            interrupt(loop, client, file, place, after=after)
    loop.run_until_complete(client.close())
    loop.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
