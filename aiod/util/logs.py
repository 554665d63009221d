"""Logging of the daemon: lines of text or JSON on stderr, or records with fields in systemd's journal.

The rate of similar records is bounded, so that a flood of them does not fill a disk.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any, Final

from aiod.util.log_forms import JsonFormatter, PrintableFormatter, TextFormatter
from aiod.util.printable import printable_lines

_HELD_BACK: Final = "held back %d log lines like: %s"
LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")


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
    """Log `level` and above, or as AIOD_LOG says. Returns the filter, whose `report` is called before the process ends.

    `fields` are added to every record of this process: see `about`.
    """
    alike = AlikeFilter()
    as_json = os.environ.get("AIOD_LOG_FORMAT") == "json"
    handler = _journal(fields) if _stderr_is_the_journal() and not as_json else None
    if handler is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter(fields) if as_json else TextFormatter(fields))
    handler.addFilter(alike)
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)
    return alike


def set_level(level: str) -> None:
    """Log `level` and above from now on; levels in AIOD_LOG come first."""
    everywhere, of_loggers = parse_levels(os.environ.get("AIOD_LOG", ""))
    logging.getLogger().setLevel(everywhere or level.upper())
    for name, its_level in of_loggers.items():
        logging.getLogger(name).setLevel(its_level)


def parse_levels(text: str) -> tuple[str, dict[str, str]]:
    """AIOD_LOG: "debug", "aiod.net=debug", or several, with commas between them.

    Returns the level of all loggers ("": not given), and those of single ones. Raises ValueError.
    """
    everywhere = ""
    of_loggers: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, level = part.rpartition("=")
        if level.lower() not in LEVELS:
            raise ValueError(
                f"AIOD_LOG: {part!r}: write {', '.join(LEVELS)}, or LOGGER=LEVEL, with commas between them"
            )
        if name:
            of_loggers[name] = level.upper()
        else:
            everywhere = level.upper()
    return everywhere, of_loggers


def about(
    *, engine: str | None = None, client: str | None = None, export: str | None = None, error: OSError | None = None
) -> dict[str, Any]:
    """The subject of a record, as its `extra`: the journal's fields ENGINE=, CLIENT=, EXPORT= and ERRNO=.

    A line on stderr has them as key=value after the sentence.
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
