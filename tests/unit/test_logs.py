"""Log records contain names that clients chose: such a name must not move the cursor, or look like a record."""

from __future__ import annotations

import logging
import sys

from aiod.util.logs import PrintableFormatter

FORMATTER = PrintableFormatter("%(levelname)s %(message)s")


def record_of(name: str, *, with_traceback: bool = False) -> logging.LogRecord:
    error = None
    if with_traceback:
        try:
            raise OSError(name)  # noqa: TRY301 - the traceback is the subject
        except OSError:
            error = sys.exc_info()
    return logging.LogRecord("aiod", logging.WARNING, __file__, 1, "open %s: refused", (name,), error)


def test_control_characters_are_escaped() -> None:
    assert FORMATTER.format(record_of("a\x1b[2J\r\x00")) == "WARNING open a\\x1b[2J\\r\\x00: refused"


def test_a_line_feed_in_a_name_starts_no_record() -> None:
    assert FORMATTER.format(record_of("a\nERROR b")) == "WARNING open a\n    ERROR b: refused"


def test_a_traceback_keeps_its_lines_and_escapes_the_name() -> None:
    first, *others = FORMATTER.format(record_of("a\x1b\nb", with_traceback=True)).split("\n")
    assert first == "WARNING open a\\x1b"
    assert all(line.startswith("    ") for line in others)
    assert "    OSError: a\\x1b" in others
