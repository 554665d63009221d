"""The progress display: a bar, and a table of the current cell; in the last round each table stays on screen."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final, Self

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.matrix.peers import AIOD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from benchmarks.matrix.cells import Cell
    from benchmarks.ring.turns import Contender, Measured, Turns

_COLUMNS: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("rate", "IOPS", lambda rate: f"{rate:,.0f}"),
    ("bytes_rate", "MiB/s", lambda rate: f"{rate / 2**20:,.0f}"),
    ("p50_us", "p50 µs", lambda us: f"{us:,.1f}"),
    ("p99_us", "p99", lambda us: f"{us:,.0f}"),
    ("p999_us", "p99.9", lambda us: f"{us:,.0f}"),
    ("client_cpu_us", "client CPU µs", lambda us: f"{us:,.1f}"),
    ("server_cpu_us", "server", lambda us: f"{us:,.1f}"),
    ("client_switches", "client switches", lambda number: f"{number:.2f}"),
    ("server_switches", "server", lambda number: f"{number:.2f}"),
)


class Watch:
    """Shows the progress of a run, from the events of its turns."""

    def __init__(self, console: Console, cells: Sequence[Cell], rounds: int) -> None:
        self._console = console
        self._rounds = rounds
        self._keys = [cell.key for cell in cells]
        self._turns: Turns | None = None
        self._order: list[Contender] = []
        self._at = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("starting", total=None)
        self._live = Live(get_renderable=self._render, console=console, transient=True, refresh_per_second=2)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._turns is not None and self._at:
            self._console.print(self._table(self._at))
        self._live.stop()

    def begin(self, turns: Turns) -> Callable[[str], None]:
        """Begin a run of these turns. Returns the callback for each event."""
        self._turns = turns
        self._order = list(turns.contenders) * self._rounds
        self._progress.update(self._task, total=len(self._order))
        return self._say

    def _say(self, what: str) -> None:
        """Show an event: `what` begins with "round N of M: ", and names cell and contender."""
        begun, _, who = what.partition(": ")
        key = next(key for key in sorted(self._keys, key=len, reverse=True) if who.startswith(f"{key}, "))
        number = int(begun.split()[1])
        if key != self._at:
            if self._at and number == self._rounds:
                self._console.print(self._table(self._at))
            self._at = key
        contenders = self._turns.contenders if self._turns else []
        place = next(
            index for index, contender in enumerate(contenders) if f"{contender.scenario}, {contender.name}" == who
        )
        done = (number - 1) * len(contenders) + place
        self._progress.update(self._task, completed=done, description=begun)

    def _render(self) -> Group:
        return Group(self._table(self._at), self._progress) if self._at else Group(self._progress)

    def _table(self, key: str) -> Table:
        table = Table("", title=key)
        for _, title, _ in _COLUMNS:
            table.add_column(title, justify="right")
        table.add_column("spread", justify="right")
        table.add_column("of aiod's", justify="right")
        turns = self._turns
        if turns is None:
            return table
        aiod = _median(turns.measured.get((key, AIOD), []), "rate")
        for contender in turns.contenders:
            if contender.scenario == key:
                why = turns.not_available.get((key, contender.name))
                rounds = turns.measured.get((key, contender.name), [])
                table.add_row(contender.name, *([f"[red]{escape(why)}[/]"] if why else _row(rounds, aiod)))
        return table


def _row(rounds: list[Measured], aiod: float | None) -> list[str]:
    medians = [(_median(rounds, field), shown) for field, _, shown in _COLUMNS]
    rates = [measured.rate for measured in rounds if measured.rate]
    cells = ["" if median is None else shown(median) for median, shown in medians]
    if not rates:
        return cells
    median = statistics.median(rates)
    return [*cells, f"{(max(rates) - min(rates)) / median:.0%}", f"{median / aiod:.2f}" if aiod else ""]


def _median(rounds: list[Measured], field: str) -> float | None:
    values = [value for value in (getattr(measured, field) for measured in rounds) if value is not None]
    return statistics.median(values) if values else None


def failures(result: dict[str, Any]) -> list[str]:
    """A line for each contender that did not finish its turns in a cell."""
    return [
        f"{cell['key']}: {name}: {figures['not_available']}"
        for cell in result["cells"]
        for name, figures in cell["contenders"].items()
        if "not_available" in figures
    ]
