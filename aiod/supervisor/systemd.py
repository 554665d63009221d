"""What systemd is told: readiness, reloads, the watchdog, a line of status (sd_notify(3), by systemd-python).

Where systemd has not started this process, all of it does nothing.
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
"""Exit status under systemd when the configuration is wrong (EX_CONFIG): the unit does not try again."""


def started_by_systemd() -> bool:
    """Whether there is a service manager that waits for notifications."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


class Notifier:
    """The way to tell systemd. Main loop thread only."""

    def __init__(self) -> None:
        """Find out whether there is anybody to tell; logs a warning when systemd-python is missing then."""
        self._notify = _find_notify() if started_by_systemd() else None
        self._said = ""

    @property
    def active(self) -> bool:
        """Whether anybody listens."""
        return self._notify is not None

    @property
    def watchdog_s(self) -> float:
        """Within how many seconds `alive` has to be called again (WatchdogSec=); 0.0: there is no watchdog."""
        if self._notify is None or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return 0.0
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        return int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0

    def ready(self) -> None:
        """Every engine serves; after `reloading`: the reload is done."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, within_s: float) -> None:
        """The daemon stops within `within_s` seconds: systemd is to wait so long, even beyond TimeoutStopSec=."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    def alive(self) -> None:
        """The main loop runs, and looks after the engines."""
        self._tell("WATCHDOG=1")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows; sent when it has changed."""
        line = " ".join(text.split())[:_STATUS_CHARS_MAX]
        if line != self._said:
            self._said = line
            self._tell(f"STATUS={line}")

    def keep(self, name: str, kept: socket.socket) -> None:
        """Have systemd hold `kept` for the process that it starts after this one, if its unit says so."""
        if self._notify is not None:
            self._notify(f"FDSTORE=1\nFDNAME={name}", fds=[kept.fileno()])

    def forget(self, name: str) -> None:
        """Have what was kept as `name` closed."""
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def take(self, name: str) -> socket.socket | None:
        """What the process before this one has kept as `name`; None: nothing. It stays kept."""
        if self._notify is None:
            return None
        from systemd.daemon import listen_fds_with_names  # noqa: PLC0415 - there, since notify is

        found = None
        for fd, its_name in listen_fds_with_names().items():
            if its_name == name and found is None and stat.S_ISSOCK(os.fstat(fd).st_mode):
                found = socket.socket(fileno=fd)
            else:
                os.close(fd)
        return found

    def _tell(self, message: str) -> None:
        if self._notify is not None:
            self._notify(message)


def _find_notify() -> Callable[..., object] | None:
    try:
        from systemd.daemon import notify  # noqa: PLC0415 - an extra, and only systemd's services need it
    except ImportError:
        log.warning("systemd waits for a notification that cannot be sent: install systemd-python (aiod-io[systemd])")
        return None
    found: Callable[..., object] = notify
    return found
