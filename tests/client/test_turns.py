"""Whether the asyncio client can tell that several tasks have requests on paths."""

from __future__ import annotations

import asyncio

from aiod_client.aio.turns import Turns

_MOST = 8


async def _done_at_once(turns: Turns, requests: int) -> bool:
    """Whether it was seen that there are several tasks."""
    seen = False
    for _ in range(requests):
        assert turns.take_now(1, _MOST)
        if turns.is_pause_due():
            await turns.pause(1)
        seen = seen or turns.several
        turns.give(1, _MOST)
    return seen


def test_one_task_whose_requests_are_done_at_once_is_alone() -> None:
    turns = Turns()
    assert not asyncio.run(_done_at_once(turns, 200))


def test_tasks_whose_requests_are_done_at_once_see_each_other_pause() -> None:
    turns = Turns()

    async def main() -> tuple[bool, bool]:
        return await asyncio.gather(_done_at_once(turns, 200), _done_at_once(turns, 200))

    assert any(asyncio.run(main()))
    asyncio.run(_done_at_once(turns, 64))
    assert not turns.several  # the others have ended


def test_a_request_that_is_waited_for_beside_another_one_is_not_alone() -> None:
    turns = Turns()
    assert turns.take_now(1, _MOST)
    assert turns.take_now(1, _MOST)
    assert turns.several
    turns.has_waited(1)
    assert turns.several
    turns.give(1, _MOST)
    turns.has_waited(1)
    assert not turns.several


def test_a_request_without_room_waits_until_there_is_some() -> None:
    turns = Turns()
    assert turns.take_now(_MOST, _MOST)

    async def main() -> None:
        assert not turns.take_now(1, _MOST)
        waiting = asyncio.ensure_future(turns.take(1, _MOST))
        await asyncio.sleep(0)
        assert not waiting.done()
        turns.give(_MOST, _MOST)
        await waiting

    asyncio.run(main())
