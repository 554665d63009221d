"""Logging of the daemon: lines on stderr, and a bound on how many alike a second, so that no flood fills a disk."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"


class AlikeFilter(logging.Filter):
    """Passes `burst` records with one format string per `interval_s`; the others are counted and told later.

    Safe from any thread in so far as a count may be off by one.
    """

    def __init__(self, burst: int = 20, interval_s: float = 5.0) -> None:
        """Nothing has been seen yet."""
        super().__init__()
        self._burst = burst
        self._interval_s = interval_s
        self._seen: dict[tuple[str, str], int] = {}
        self._since_s = time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` may be written."""
        if record.levelno >= logging.CRITICAL or not isinstance(record.msg, str):
            return True
        if time.monotonic() - self._since_s > self._interval_s:
            self.report()
        key = (record.name, record.msg)
        self._seen[key] = seen = self._seen.get(key, 0) + 1
        return seen <= self._burst

    def report(self) -> None:
        """Start a new interval, and log how many records of the last one were held back."""
        held_back = {key: seen - self._burst for key, seen in self._seen.items() if seen > self._burst}
        self._seen.clear()
        self._since_s = time.monotonic()
        for (name, text), count in held_back.items():
            logging.getLogger(name).critical("held back %d log lines like: %s", count, text)


def configure(level: str) -> AlikeFilter:
    """Log `level` and above to stderr. Returns the filter, whose `report` is to be called now and then."""
    alike = AlikeFilter()
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(alike)
    logging.basicConfig(level=level.upper(), handlers=[handler], format=_FORMAT, force=True)
    return alike
