"""Logging of the daemon: lines on stderr, or records with fields in systemd's journal.

The rate of similar records is bounded, so that a flood of them does not fill a disk.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any, Final

from aiod.util.printable import printable_lines

_HELD_BACK: Final = "held back %d log lines like: %s"
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"


class PrintableFormatter(logging.Formatter):
    """Escapes control characters, since records contain names that clients chose.

    Lines after the first (of a traceback, or after a line feed in a name) are indented, so none looks like a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The text of `record`. Thread-safe."""
        return printable_lines(super().format(record)).replace("\n", "\n    ")


class AlikeFilter(logging.Filter):
    """Passes at most `burst` records with the same format string per `interval_s`; the others are only counted.

    Any thread may use it; a count may be off by one then.
    """

    def __init__(self, burst: int = 20, interval_s: float = 5.0) -> None:
        super().__init__()
        self._burst = burst
        self._interval_s = interval_s
        self._seen: dict[tuple[str, str], int] = {}
        self._since_s = time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` may be written."""
        if record.levelno >= logging.CRITICAL or record.msg == _HELD_BACK or not isinstance(record.msg, str):
            return True
        if time.monotonic() - self._since_s > self._interval_s:
            self.report()
        key = (record.name, record.msg)
        self._seen[key] = seen = self._seen.get(key, 0) + 1
        return seen <= self._burst

    def report(self) -> None:
        """Start a new interval, and log the number of records of the last one that were held back."""
        held_back = {key: seen - self._burst for key, seen in self._seen.items() if seen > self._burst}
        self._seen.clear()
        self._since_s = time.monotonic()
        for (name, text), count in held_back.items():
            logging.getLogger(name).warning(_HELD_BACK, count, text)


def configure(level: str, **fields: str) -> AlikeFilter:
    """Log `level` and above. Returns the filter, whose `report` is to be called before the process ends.

    `fields` are added to every record of this process in the journal: see `about`.
    """
    alike = AlikeFilter()
    handler = _journal(fields) if _stderr_is_the_journal() else None
    if handler is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(PrintableFormatter(_FORMAT))
    handler.addFilter(alike)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    return alike


def set_level(level: str) -> None:
    """Log `level` and above from now on."""
    logging.getLogger().setLevel(level.upper())


def about(
    *, engine: str | None = None, client: str | None = None, export: str | None = None, error: OSError | None = None
) -> dict[str, Any]:
    """The subject of a record, as its `extra`: the journal's fields ENGINE=, CLIENT=, EXPORT= and ERRNO=.

    The message must name it too, since a line on stderr has no fields.
    """
    number = error.errno if error is not None else None
    fields = {"ENGINE": engine, "CLIENT": client, "EXPORT": export, "ERRNO": number}
    return {name: value for name, value in fields.items() if value is not None}


def _stderr_is_the_journal() -> bool:
    """Whether systemd has connected stderr to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    stream = os.environ.get("JOURNAL_STREAM")
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _journal(fields: dict[str, str]) -> logging.Handler | None:
    """A handler for the journal's own protocol; None: systemd-python is missing, and stderr is used."""
    try:
        # An extra, and only systemd's services need it.
        from systemd.journal import JournalHandler, send  # noqa: PLC0415
    except ImportError:
        return None

    def send_known(*message: str, **record: Any) -> None:
        """Send a record without its arguments: the message has what matters of them, and they may contain secrets.

        Fields (CLIENT=, EXPORT=, a traceback's text) are escaped as the message is.
        """
        record.pop("CODE_ARGS", None)
        send(*message, **{name: printable_lines(v) if isinstance(v, str) else v for name, v in record.items()})

    handler: logging.Handler = JournalHandler(sender_function=send_known, SYSLOG_IDENTIFIER="aiod", **fields)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    return handler
