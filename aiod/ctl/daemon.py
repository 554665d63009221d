"""Asks the daemon: one verb, one answer."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from typing import Any, Final

import aiod_client

RETRY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Address:
    """How to reach the daemon: arguments of aiod_client.connect(), with its defaults for None."""

    endpoint: str | None = None
    key: str | None = None
    server_key: str | None = None


def ask(address: Address, verb: str, timeout_s: float, **arguments: Any) -> Any:
    """The body of the daemon's answer.

    Raises DaemonUnreachableError or TimeoutError when no daemon answers, another OSError with the daemon's refusal.
    """
    # One question needs no reconnection, and so no valid AIOD_RECONNECT_TIMEOUT.
    with aiod_client.connect(
        address.endpoint, key=address.key, server_key=address.server_key, timeout=timeout_s, reconnect_timeout=0
    ) as client:
        return client.control(verb, arguments)


def drain(address: Address, timeout_s: float) -> Any:
    """Drain and stop the daemon; returns when no daemon answers any more, or another one does.

    Raises as `ask`, and TimeoutError when it still answers after its drain timeout and `timeout_s`.
    """
    answer = ask(address, "drain", timeout_s)
    deadline_s = time.monotonic() + answer["drain_timeout_s"] + timeout_s
    while time.monotonic() < deadline_s:
        try:
            if ask(address, "ping", timeout_s)["pid"] != answer["pid"]:
                return answer
        except OSError:
            return answer
        time.sleep(RETRY_S)
    raise TimeoutError(errno.ETIMEDOUT, f"the daemon (pid {answer['pid']}) is draining, and has not stopped in time")


def ask_until(address: Address, verb: str, wait_s: float, timeout_s: float) -> Any:
    """As `ask`, but retry for `wait_s` seconds while no daemon answers; with 0, ask once."""
    deadline_s = time.monotonic() + wait_s
    while True:
        # A daemon that accepts the connection and does not answer (SIGSTOP) must not make the wait longer.
        left_s = max(deadline_s - time.monotonic(), RETRY_S) if wait_s else timeout_s
        try:
            return ask(address, verb, min(timeout_s, left_s))
        except (ConnectionError, TimeoutError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(RETRY_S)
