"""Handshakes over a socket, for tasks: the conversations of session/handshake.py, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
from typing import TYPE_CHECKING, TypeVar

from aiod_client import endpoint as endpoints
from aiod_client.connection.converse import RETRY_S
from aiod_client.connection.dealer import Dealer
from aiod_client.errors import NOT_SENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiod_client.keys import Keys
    from aiod_client.session.handshake import Conversation, Message

T = TypeVar("T")


@contextlib.asynccontextmanager
async def within(timeout_s: float, what: str) -> AsyncIterator[None]:
    """Raise a TimeoutError that names `what` if the block takes longer than `timeout_s`."""
    try:
        async with asyncio.timeout(None if timeout_s == math.inf else timeout_s):
            yield
    except TimeoutError as error:
        if error.errno is not None:
            raise
        raise TimeoutError(
            errno.ETIMEDOUT, f"{what}: no answer within {timeout_s:g} s ({NOT_SENT}): is the daemon stopped?"
        ) from error


async def converse(endpoint: str, keys: Keys | None, conversation: Conversation[T]) -> tuple[Dealer, T]:
    """Have `conversation` with `endpoint`, by CURVE with `keys`; returns the open connection and the result."""
    message = next(conversation)
    dealer, answer = await _first_answer(endpoint, keys, message)
    try:
        while True:
            message = conversation.send(answer)
            if message:
                dealer.send(message)
            answer = await _answer_or_gone(dealer)
    except StopIteration as stop:
        return dealer, stop.value
    except BaseException:
        dealer.close()
        raise


async def _first_answer(endpoint: str, keys: Keys | None, message: Message) -> tuple[Dealer, list[memoryview]]:
    while True:
        endpoints.probe(endpoint)
        dealer = Dealer(endpoint, keys)
        try:
            dealer.send(message)
            answer = await _answer(dealer)
        except BaseException:
            dealer.close()
            raise
        if answer is not None:
            return dealer, answer
        dealer.close()
        if not endpoint.startswith("ipc:"):
            raise dealer.why_ended()
        # probe() has succeeded: the listen backlog is full, or the daemon is stopping. HELLO may be sent twice.
        await asyncio.sleep(RETRY_S)


async def _answer_or_gone(dealer: Dealer) -> list[memoryview]:
    answer = await _answer(dealer)
    if answer is None:
        raise dealer.why_ended()
    return answer


async def _answer(dealer: Dealer) -> list[memoryview] | None:
    """The next message; None: the connection has ended."""
    while True:
        ended = dealer.has_ended()
        answer = dealer.receive()
        if answer is not None or ended:
            return answer
        await _readable(dealer.fd, dealer.monitor_fd)


async def _readable(*fds: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    for fd in fds:
        loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        for fd in fds:
            loop.remove_reader(fd)
