"""The tables of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape
from rich.table import Table

from benchmarks.ring.scenarios import SCENARIOS, TARGETS, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

_COLUMNS: Final[dict[str, tuple[str, Callable[[float], str]]]] = {
    "rate": ("operations/s", lambda rate: f"{rate:,.0f}"),
    "bytes_rate": ("MiB/s", lambda rate: f"{rate / 2**20:,.0f}"),
    "p50_us": ("p50 µs", lambda us: f"{us:,.1f}"),
    "p99_us": ("p99 µs", lambda us: f"{us:,.1f}"),
    "p999_us": ("p99.9 µs", lambda us: f"{us:,.1f}"),
    "cpu_share": ("share of a core", lambda share: f"{share:.2%}"),
}
_VERDICTS: Final = {True: "reached", False: "[bold red]NOT REACHED[/]", None: ""}


def show(console: Console, result: dict[str, Any]) -> None:
    """One table for each scenario, best first, and the ratios; both include missing contenders."""
    for key, contenders in result["scenarios"].items():
        title = SCENARIOS[key].title + (f" ({result['settings']['loop']})" if key == "python-asyncio" else "")
        console.print(_scenario(title, SCENARIOS[key], contenders))
    console.print(_ratios(result["ratios"]))
    for who, turns in result["thrown_away"].items():
        console.print(f"{who}: {turns} turns were discarded and repeated: the page cache was not in the required state")


def _scenario(title: str, scenario: Scenario, contenders: dict[str, dict[str, Any]]) -> Table:
    table = Table("contender", title=title)
    shown = [field for field in _COLUMNS if any(field in figures for figures in contenders.values())]
    for field in shown:
        table.add_column(_COLUMNS[field][0], justify="right")
    table.add_column("spread", justify="right")
    table.add_column("")

    def order(item: tuple[str, dict[str, Any]]) -> tuple[bool, float]:
        figure = item[1].get(scenario.figure)
        return figure is None, (figure or 0.0) * (1 if scenario.falling else -1)

    for name, figures in sorted(contenders.items(), key=order):
        if "not_available" in figures:
            why = f"not available: {figures['not_available']}"
            table.add_row(f"[bold red]{name}[/]", *[""] * len(shown), "", f"[bold red]{escape(why)}[/]")
            continue
        cells = [_COLUMNS[field][1](figures[field]) if field in figures else "" for field in shown]
        table.add_row(name, *cells, f"{figures['spread'][scenario.figure]:.0%}", "")
    return table


def _ratios(ratios: list[dict[str, Any]]) -> Table:
    table = Table("scenario", "ratio", title="aiod beside the others")
    table.add_column("measured", justify="right")
    table.add_column("goal", justify="right")
    table.add_column("")
    for ratio in ratios:
        measured = "[bold red]not available[/]" if ratio["measured"] is None else f"{ratio['measured']:.4g}"
        table.add_row(
            ratio["scenario"], ratio["sentence"], measured, ratio["to_reach"] or "", _VERDICTS[ratio["reached"]]
        )
    return table


def ratios(scenarios: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The measured value of each goal whose scenario was run, and whether it is reached."""
    found = []
    for target in TARGETS:
        if target.scenario in scenarios:
            measured = target.measured(scenarios[target.scenario])
            found.append(
                {
                    "scenario": target.scenario,
                    "sentence": target.sentence,
                    "measured": measured,
                    "to_reach": f"{target.comparison} {target.bound:.3g}" if target.comparison else None,
                    "reached": target.reached(measured),
                }
            )
    return found
