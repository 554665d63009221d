"""Log records contain names that clients chose: such a name must not move the cursor, or look like a record."""

from __future__ import annotations

import errno
import json
import logging
import sys

import pytest

from aiod.util import logs
from aiod.util.log_forms import JsonFormatter, TextFormatter

FORMATTER = TextFormatter({}, "%(levelname)s %(message)s")


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
    assert FORMATTER.format(record_of("a\nERROR b")) == "WARNING open a\\nERROR b: refused"


def test_a_traceback_keeps_its_lines_and_escapes_the_name() -> None:
    first, *others = FORMATTER.format(record_of("a\x1b\nb", with_traceback=True)).split("\n")
    assert first == "WARNING open a\\x1b\\nb: refused"
    assert all(line.startswith("    ") for line in others)
    assert "    OSError: a\\x1b" in others


def with_subject(**subject: object) -> logging.LogRecord:
    record = record_of("a")
    record.__dict__.update(subject)
    return record


def test_the_subject_follows_the_sentence() -> None:
    formatter = TextFormatter({"ENGINE": "main"}, "%(message)s")
    record = with_subject(CLIENT="1f2e", EXPORT='a "b" c', ERRNO=errno.EIO)
    shown = formatter.format(record)
    assert shown == 'open a: refused engine=main client=1f2e export="a \\"b\\" c" errno=EIO'
    assert formatter.format(with_subject(ENGINE="b")) == "open a: refused engine=b"
    assert "\n" not in formatter.format(with_subject(CLIENT="x\ny=z\x1b"))


def test_json_is_one_line_with_the_same_subject() -> None:
    line = JsonFormatter({"ENGINE": "main"}).format(record_of("a\x1b\n\u202e", with_traceback=True))
    assert line.isascii()
    assert line.isprintable()
    document = json.loads(line)
    assert document["message"] == "open a\x1b\n\u202e: refused"
    assert (document["level"], document["engine"], document["logger"]) == ("warning", "main", "aiod")
    assert "OSError" in document["traceback"]
    assert document["time"].endswith("+00:00")


def test_levels_of_single_loggers() -> None:
    assert logs.parse_levels("") == ("", {})
    assert logs.parse_levels("Warning, aiod.net=debug,") == ("WARNING", {"aiod.net": "DEBUG"})
    for wrong in ("loud", "aiod.net=", "aiod.net=loud"):
        with pytest.raises(ValueError, match="LOGGER=LEVEL"):
            logs.parse_levels(wrong)


def test_aiod_log_comes_before_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    root, one = logging.getLogger(), logging.getLogger("aiod.test_logs")
    before = root.level
    try:
        logs.set_level("error")
        assert root.level == logging.ERROR
        monkeypatch.setenv("AIOD_LOG", "warning,aiod.test_logs=debug")
        logs.set_level("error")
        assert (root.level, one.level) == (logging.WARNING, logging.DEBUG)
    finally:
        root.setLevel(before)
        one.setLevel(logging.NOTSET)
