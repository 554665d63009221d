"""One timer for all deadlines: each entry expires at its own time, unless it is done, and is dropped then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiod_client.aio.expiry import Expiries
from aiod_client.operations import read_request
from tests.patience import scaled

if TYPE_CHECKING:
    from aiod_client.requests.pending import Call, Request

PATIENCE_S = scaled(60.0)


def test_each_entry_expires_at_its_time_unless_it_is_done() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        expired: list[tuple[str, float]] = []
        last = loop.create_future()

        def expire(_: Request | Call, timeout_s: float, what: str) -> None:
            expired.append((what, timeout_s))
            if what == "last":
                last.set_result(None)

        expiries = Expiries(loop, expire)
        done = read_request(1, 1, 0)
        expiries.add(read_request(1, 1, 0), 0.06, "last")
        expiries.add(read_request(1, 1, 0), 0.02, "first")
        expiries.add(done, 0.03, "done")
        expiries.add(read_request(1, 1, 0), 0.04, "second")
        done.done = True
        began_s = loop.time()
        await asyncio.wait_for(last, PATIENCE_S)
        assert loop.time() - began_s >= 0.05
        assert expired == [("first", 0.02), ("second", 0.04), ("last", 0.06)]

    asyncio.run(main())


def test_entries_that_are_done_are_dropped() -> None:
    async def main() -> None:
        expiries = Expiries(asyncio.get_running_loop(), lambda *_: None)
        waiting = [read_request(1, 1, 0) for _ in range(100)]
        for request in waiting:
            expiries.add(request, 1000, "")
        for _ in range(10_000):
            request = read_request(1, 1, 0)
            expiries.add(request, 1000, "")
            request.done = True
        assert len(expiries._heap) <= 2 * len(waiting) + 1
        assert {id(entry[2]) for entry in expiries._heap} >= {id(request) for request in waiting}
        expiries.stop()
        assert not expiries._heap

    asyncio.run(main())
