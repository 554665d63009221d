"""Asking the daemon: one verb, one answer."""

from __future__ import annotations

import time
from typing import Any, Final

import aiod_client

RETRY_S: Final = 0.05


def ask(endpoint: str | None, verb: str, timeout_s: float) -> Any:
    """The body of the daemon's answer.

    Raises DaemonUnreachableError or TimeoutError when no daemon answers, another OSError with what it said against it.
    """
    with aiod_client.connect(endpoint, timeout=timeout_s) as client:
        return client.control(verb)


def ask_until(endpoint: str | None, verb: str, wait_s: float, timeout_s: float) -> Any:
    """As `ask`, trying again for `wait_s` seconds while no daemon answers."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return ask(endpoint, verb, timeout_s)
        except (ConnectionError, TimeoutError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(RETRY_S)
