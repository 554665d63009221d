"""Names that clients chose are shown as plain text: no escape sequences, no new lines."""

from __future__ import annotations

from aiod.util.printable import printable_body, printable_lines


def test_strings_are_escaped_at_every_depth() -> None:
    body = {"a\x1b[2J": ["b\nc", {"d": "\u202ee\x07"}], "n": 1, "none": None}
    assert printable_body(body) == {"a\\x1b[2J": ["b\\nc", {"d": "\\u202ee\\x07"}], "n": 1, "none": None}


def test_printable_lines_keep_line_feeds() -> None:
    assert printable_lines("one\ntwo\x1b[31m\u00e9") == "one\ntwo\\x1b[31m\u00e9"
