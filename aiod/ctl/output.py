"""Where aiodctl's answers go: the format, the width, the colours and the encoding of its standard output.

Text in an answer may come from a client: control characters are escaped here, in one place, and nothing in it is
markup. A character that the locale cannot show gets a fallback, so an ASCII terminal works.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiod.ctl.report import Table, as_text, plain_value
from aiod.util.printable import printable_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FORMATS: Final = ("table", "json", "csv")
_COLUMNS_MIN: Final = 20
_FALLBACKS: Final = str.maketrans({"µ": "u", "…": "~", "█": "#", "▓": "=", "▒": "-", "░": ".", "·": "."})


class OutputError(Exception):
    """Standard output cannot be written."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Output:
    """How to print answers."""

    form: str = "table"
    """One of FORMATS."""
    headers: bool = True
    """Whether tables have titles and column heads."""

    def answer(self, body: dict[str, Any], show: Callable[[dict[str, Any]], Iterator[Any]]) -> None:
        """Print `body`: as JSON unchanged, else as `show` presents it. Raises OutputError."""
        if self.form == "json":
            write(json.dumps(body, indent=2) + "\n")
            return
        parts = show(printable_body(body))
        write(self._csv(parts) if self.form == "csv" else self._text(parts))

    def _text(self, parts: Iterable[Any]) -> str:
        columns, bold = columns_of_output(), wants_colour()
        lines: list[str] = []
        for index, part in enumerate(parts):
            if isinstance(part, Table):
                if index and self.headers and lines:
                    lines.append("")
                lines += as_text(part.form("text"), columns, headers=self.headers, bold=bold)
            else:
                lines.append(str(part))
        return "".join(f"{line}\n" for line in lines)

    def _csv(self, parts: Iterable[Any]) -> str:
        """The tables one after the other, with an empty line between them; sentences are left out."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for index, table in enumerate(part.form("csv") for part in parts if isinstance(part, Table)):
            if index:
                text.write("\n")
            if self.headers:
                writer.writerow([column.key for column in table.columns])
            writer.writerows(map(plain_value, table.columns, row) for row in table.rows)
        return text.getvalue()


def columns_of_output() -> int | None:
    """The width that tables have to fit: COLUMNS, else the terminal's; None: no limit (a file, a pipe)."""
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named) > 0:
        return max(_COLUMNS_MIN, int(named))
    if not is_terminal():
        return None
    try:
        return max(_COLUMNS_MIN, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):
        return 80


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    try:
        return sys.stdout is not None and sys.stdout.isatty()
    except ValueError:
        return False


def wants_colour() -> bool:
    """Whether a terminal reads the output, and the user has not refused colours (https://no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def write(text: str) -> None:
    """Write and flush `text`. Raises OutputError."""
    if sys.stdout is None:
        raise OutputError(OSError(errno.EBADF, "standard output is closed"))
    try:
        sys.stdout.write(encodable(text, sys.stdout.encoding or "ascii"))
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(error) from error


def encodable(text: str, encoding: str) -> str:
    """`text` with fallbacks for the characters that `encoding` lacks."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        simple = text.translate(_FALLBACKS)
        return simple.encode(encoding, "backslashreplace").decode(encoding)
    return text
