"""Notifications to systemd: readiness, reloads, the watchdog, the status line (sd_notify(3), by systemd-python).

If systemd has not started this process, they do nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_STATUS_CHARS_MAX: Final = 400
EXIT_CONFIG: Final = 78
"""Exit status under systemd when the configuration is wrong (EX_CONFIG): the unit does not restart then."""


def started_by_systemd() -> bool:
    """Whether a service manager waits for notifications."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


class Notifier:
    """Main loop thread only."""

    def __init__(self) -> None:
        """Logs a warning when systemd waits for notifications, but systemd-python is missing."""
        self._notify = _find_notify() if started_by_systemd() else None
        self._last_status = ""

    @property
    def active(self) -> bool:
        """Whether systemd listens."""
        return self._notify is not None

    @property
    def watchdog_s(self) -> float:
        """Longest interval between calls of `alive` (WatchdogSec=); 0.0: there is no watchdog."""
        if self._notify is None or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return 0.0
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        return int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0

    def ready(self) -> None:
        """Report that every engine serves or, after `reloading`, that the reload is done."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that a reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, within_s: float) -> None:
        """Report that the daemon stops; systemd waits up to `within_s` seconds, even beyond TimeoutStopSec=."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    def alive(self) -> None:
        """Notify the watchdog: the main loop runs, and checks the engines."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows; it is sent only when it has changed."""
        line = " ".join(text.split())[:_STATUS_CHARS_MAX]
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    def store(self, name: str, stored: socket.socket) -> None:
        """Put a socket into systemd's descriptor store, for the next process of the unit."""
        if self._notify is not None:
            self._notify(f"FDSTORE=1\nFDNAME={name}", fds=[stored.fileno()])

    def remove(self, name: str) -> None:
        """Remove the socket `name` from systemd's descriptor store."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def take(self, name: str) -> socket.socket | None:
        """The socket that the previous process has stored as `name`; None: there is none. It stays in the store."""
        if self._notify is None:
            return None
        from systemd.daemon import listen_fds_with_names  # noqa: PLC0415 - installed, since notify is

        found = None
        for fd, its_name in listen_fds_with_names().items():
            if its_name == name and found is None and stat.S_ISSOCK(os.fstat(fd).st_mode):
                found = socket.socket(fileno=fd)
            else:
                os.close(fd)
        return found

    def _send(self, message: str) -> None:
        if self._notify is not None:
            self._notify(message)


def _find_notify() -> Callable[..., object] | None:
    try:
        from systemd.daemon import notify  # noqa: PLC0415 - an extra, and only systemd's services need it
    except ImportError:
        log.warning("cannot notify systemd, which waits for it: install systemd-python (aiod-io[systemd])")
        return None
    found: Callable[..., object] = notify
    return found
