"""Tables of aiodctl, and their layout for a width.

A table that fits has one line a row. One that does not fit becomes one block a row: the first cell as its heading, and
below it "head: value" pairs, as many a line as fit. No value is cut or left out in either form; a value that is longer
than a line (a path) continues in the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len, chop_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_GAP: Final = "  "
_INDENT: Final = "  "
_CONTINUED: Final = "    "
_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    key: str
    """Its name in CSV, with the unit."""
    head: str
    """Its short name above the column."""
    show: Callable[[Any], str] = str
    """Makes the cell's text; CSV has the value itself."""
    left: bool = False
    """Aligned to the left: names and sentences."""
    only: str = ""
    """"csv" or "text" for a column of that form alone."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values, with their presentation."""

    title: str
    columns: Sequence[Column]
    rows: list[Sequence[Any]] = field(default_factory=list)

    def form(self, name: str) -> Table:
        """The table in the form `name`, "csv" or "text": with its columns only."""
        kept = [index for index, column in enumerate(self.columns) if column.only in {"", name}]
        columns = [self.columns[index] for index in kept]
        return Table(self.title, columns, [[row[index] for index in kept] for row in self.rows])

    def add(self, *values: Any) -> None:
        """Add a row. None: nothing is known, and the cell is empty."""
        self.rows.append(values)


def plain_value(column: Column, value: Any) -> Any:
    """A value for CSV: full precision, no unit; nothing for None."""
    if isinstance(value, list):
        return column.show(value)
    return "" if value is None else value


def as_text(table: Table, columns_max: int | None, *, headers: bool = True, bold: bool = False) -> Iterator[str]:
    """The lines of `table` for at most `columns_max` terminal columns (None: no limit)."""
    rows = [[_show(column, value) for column, value in zip(table.columns, row, strict=True)] for row in table.rows]
    heads = [column.head for column in table.columns]
    widths = [
        max(map(cell_len, cells), default=0)
        for cells in zip(heads if headers else [""] * len(heads), *rows, strict=True)
    ]
    if headers and table.title:
        yield from _folded(table.title, columns_max, bold=bold)
    if not rows:
        yield from ["none"] if headers else []
        return
    if columns_max is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > columns_max:
        for row in rows:
            yield from _block(heads, row, columns_max, bold=bold and headers)
        return
    if headers:
        yield _strong(_line(table.columns, heads, widths), bold=bold)
    for row in rows:
        yield _line(table.columns, row, widths)


def _show(column: Column, value: Any) -> str:
    return "" if value is None else column.show(value)


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        space = " " * (width - cell_len(cell))
        padded.append(cell + space if column.left else space + cell)
    return _GAP.join(padded).rstrip()


def _block(heads: Sequence[str], cells: Sequence[str], columns_max: int, *, bold: bool) -> Iterator[str]:
    """One row as a heading and its pairs; an empty cell has no pair."""
    yield from _folded(cells[0], columns_max, bold=bold)
    line = ""
    for head, cell in zip(heads[1:], cells[1:], strict=True):
        if not cell:
            continue
        pair = f"{head}: {cell}"
        if line and cell_len(_INDENT + line + _GAP + pair) > columns_max:
            yield from _folded(_INDENT + line, columns_max)
            line = ""
        line = line + _GAP + pair if line else pair
    if line:
        yield from _folded(_INDENT + line, columns_max)


def _folded(text: str, columns_max: int | None, *, bold: bool = False) -> Iterator[str]:
    """`text` in lines of the width: a long one (a path) continues in an indented line, complete."""
    if columns_max is None or cell_len(text) <= columns_max:
        yield _strong(text, bold=bold)
        return
    first, *others = chop_cells(text, columns_max - len(_CONTINUED))
    yield _strong(first, bold=bold)
    for other in others:
        yield _strong(_CONTINUED + other, bold=bold)


def _strong(text: str, *, bold: bool) -> str:
    return f"{_BOLD}{text}{_PLAIN}" if bold else text
