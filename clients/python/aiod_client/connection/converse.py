"""Handshakes over a socket, for threads: drives the conversations of session/handshake.py, and waits."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final, TypeVar

from aiod_client import endpoint as endpoints
from aiod_client.connection.dealer import Dealer
from aiod_client.connection.polling import milliseconds, poll_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod_client.keys import Keys
    from aiod_client.session.handshake import Conversation, Message

T = TypeVar("T")

RETRY_S: Final = 0.02
CHECK_S: Final = 0.1
"""How soon a handshake notices that another thread has closed its client."""


def converse(
    endpoint: str,
    keys: Keys | None,
    conversation: Conversation[T],
    deadline_s: float,
    check: Callable[[], None],
    patience_s: float | None = None,
) -> tuple[Dealer, T]:
    """Have `conversation` with `endpoint`, by CURVE with `keys`; returns the open connection and the result.

    `check` raises if the client has been closed meanwhile. Each answer has to come by `deadline_s`, and within
    `patience_s`. Raises DaemonUnreachableError, TimeoutError, and what the conversation raises.
    """

    def until_s() -> float:
        return deadline_s if patience_s is None else min(deadline_s, time.monotonic() + patience_s)

    message = next(conversation)
    dealer, answer = _first_answer(endpoint, keys, message, until_s(), check)
    try:
        while True:
            message = conversation.send(answer)
            if message:
                dealer.send(message)
            answer = _answer_or_gone(dealer, until_s(), check)
    except StopIteration as stop:
        return dealer, stop.value
    except BaseException:
        dealer.close()
        raise


def _first_answer(
    endpoint: str, keys: Keys | None, message: Message, deadline_s: float, check: Callable[[], None]
) -> tuple[Dealer, list[memoryview]]:
    while True:
        endpoints.probe(endpoint)
        dealer = Dealer(endpoint, keys)
        try:
            dealer.send(message)
            answer = _answer(dealer, deadline_s, check)
        except BaseException:
            dealer.close()
            raise
        if answer is not None:
            return dealer, answer
        dealer.close()
        if not endpoint.startswith("ipc:"):
            raise dealer.why_ended()
        # probe() has succeeded: the listen backlog is full, or the daemon is stopping. HELLO may be sent twice.
        time.sleep(RETRY_S)


def _answer_or_gone(dealer: Dealer, deadline_s: float, check: Callable[[], None]) -> list[memoryview]:
    answer = _answer(dealer, deadline_s, check)
    if answer is None:
        raise dealer.why_ended()
    return answer


def _answer(dealer: Dealer, deadline_s: float, check: Callable[[], None]) -> list[memoryview] | None:
    """The next message; None: the connection has ended."""
    poll = poll_of(dealer.fd, dealer.monitor_fd)
    while True:
        ended = dealer.has_ended()
        answer = dealer.receive()
        if answer is not None or ended:
            return answer
        check()
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError(errno.ETIMEDOUT, f"{dealer.endpoint} does not answer: is the daemon stopped?")
        poll.poll(milliseconds(min(remaining_s, CHECK_S)))
