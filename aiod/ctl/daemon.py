"""Asking the daemon: one verb, one answer."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from typing import Any, Final

import aiod_client

RETRY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Address:
    """How the daemon is reached: the arguments of aiod_client.connect(), None being what that makes of it."""

    endpoint: str | None = None
    key: str | None = None
    server_key: str | None = None


def ask(address: Address, verb: str, timeout_s: float, **arguments: Any) -> Any:
    """The body of the daemon's answer.

    Raises DaemonUnreachableError or TimeoutError when no daemon answers, another OSError with what it said against it.
    """
    with aiod_client.connect(
        address.endpoint, key=address.key, server_key=address.server_key, timeout=timeout_s
    ) as client:
        return client.control(verb, arguments)


def drain(address: Address, timeout_s: float) -> Any:
    """Have the daemon finish what is in flight and end; returns when nothing answers there, or another daemon does.

    Raises as `ask`, and TimeoutError when it is there still after its own time and `timeout_s`.
    """
    told = ask(address, "drain", timeout_s)
    deadline_s = time.monotonic() + told["drain_timeout_s"] + timeout_s
    while time.monotonic() < deadline_s:
        try:
            if ask(address, "ping", timeout_s)["pid"] != told["pid"]:
                return told
        except OSError:
            return told
        time.sleep(RETRY_S)
    raise TimeoutError(errno.ETIMEDOUT, f"the daemon (pid {told['pid']}) was told to drain, and is still there")


def ask_until(address: Address, verb: str, wait_s: float, timeout_s: float) -> Any:
    """As `ask`, trying again for `wait_s` seconds while no daemon answers; without, once for `timeout_s`."""
    deadline_s = time.monotonic() + wait_s
    while True:
        # One that accepts and does not answer (stopped, say) must not make the wait longer than asked for.
        left_s = max(deadline_s - time.monotonic(), RETRY_S) if wait_s else timeout_s
        try:
            return ask(address, verb, min(timeout_s, left_s))
        except (ConnectionError, TimeoutError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(RETRY_S)
