"""Names that clients chose are shown as plain text: no markup, no escape sequences, no new lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.table import Table

from aiod.ctl import __main__ as ctl
from aiod.ctl.daemon import Address
from aiod.util.printable import printable_body, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_strings_are_escaped_at_every_depth() -> None:
    body = {"a\x1b[2J": ["b\nc", {"d": "\u202ee\x07"}], "n": 1, "none": None}
    assert printable_body(body) == {"a\\x1b[2J": ["b\\nc", {"d": "\\u202ee\\x07"}], "n": 1, "none": None}


def test_printable_lines_keep_line_feeds() -> None:
    assert printable_lines("one\ntwo\x1b[31m\u00e9") == "one\ntwo\\x1b[31m\u00e9"


@pytest.mark.parametrize("name", ["[/bold]", "[red]x", ":smile:", "\x1b]0;title\x07", "a\nb"])
def test_aiodctl_shows_a_hostile_name_escaped_and_without_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    def show(body: dict[str, str]) -> Iterator[object]:
        table = Table("client")
        table.add_row(body["name"])
        yield table
        yield f"client {body['name']}."

    options = ctl.Options(Address(), as_json=False, timeout_s=1.0)
    ctl._answer(options, False, show, lambda: {"name": name})  # noqa: FBT003
    shown = capsys.readouterr().out
    escaped = name.encode("unicode_escape").decode()
    assert shown.count(escaped) == 2
    assert "\x1b" not in shown
