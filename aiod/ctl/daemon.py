"""Asking the daemon: one verb, one answer."""

from __future__ import annotations

import time
from typing import Any, Final

import aiod_client

RETRY_S: Final = 0.05


def ask(endpoint: str | None, verb: str, timeout_s: float, **arguments: Any) -> Any:
    """The body of the daemon's answer.

    Raises DaemonUnreachableError or TimeoutError when no daemon answers, another OSError with what it said against it.
    """
    with aiod_client.connect(endpoint, timeout=timeout_s) as client:
        return client.control(verb, arguments)


def ask_until(endpoint: str | None, verb: str, wait_s: float, timeout_s: float) -> Any:
    """As `ask`, trying again for `wait_s` seconds while no daemon answers; without, once for `timeout_s`."""
    deadline_s = time.monotonic() + wait_s
    while True:
        # One that accepts and does not answer (stopped, say) must not make the wait longer than asked for.
        left_s = max(deadline_s - time.monotonic(), RETRY_S) if wait_s else timeout_s
        try:
            return ask(endpoint, verb, min(timeout_s, left_s))
        except (ConnectionError, TimeoutError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(RETRY_S)
