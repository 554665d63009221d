"""A program: what a reap releases drops the native requests that were reaped with it.

A process of its own, because a fault here is one of memory.

    python -m tests.client.dropped_while_reaped ENDPOINT TIMEOUT
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

from aiod_client import aio
from aiod_protocol.operations import Op

if TYPE_CHECKING:
    from aiod_client._ring import Ring

REQUESTS: Final = 8


class Destination(bytearray):
    """Its last reference is that of a read into it."""

    def __init__(self, requests: list[Any]) -> None:
        super().__init__(16)
        self._requests = requests

    def __del__(self) -> None:
        """Drop all of them."""
        self._requests.clear()


def reaped(ring: Ring, handle: int, timeout_s: float) -> list[Any]:
    """Reap reads, the first of which drops the others."""
    requests: list[Any] = []
    seen = ring.done_count
    for number in range(REQUESTS):
        into = Destination(requests)
        requests.append(ring.start(Op.READ, 0, handle, 0, 16, 0, 0, timeout_s, into, (number, 0, 16)))
        del into
    assert None not in requests
    while (count := ring.done_count) < seen + REQUESTS:
        assert ring.wait(count, timeout_s)
    return ring.reap()


async def main(endpoint: str, timeout_s: float) -> None:
    """Do so with the ring of a client whose event loop is not running meanwhile."""
    client = await aio.connect(endpoint, transport="ring", timeout=timeout_s)
    async with client, await client.open("scratch/reaped", "w+") as file:
        await file.pwrite(b"0123456789abcdef", 0)
        transport = file._link.transport
        assert transport is not None
        for _ in range(20):
            done = reaped(transport.ring, file._handle, timeout_s)
            assert [each[1] for each in done] == [16], done
        assert await file.pread(16, 0) == b"0123456789abcdef"


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
