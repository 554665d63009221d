"""The screen of aiodctl top: lines for a width and a height, made from the figures of an interval. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len, set_cell_size

from aiod.ctl.figures import duration, latency
from aiod.ctl.report import Column, Table, as_text
from aiod.util.printable import printable_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VIEWS: Final = ("operations", "exports", "clients")
SORTS: Final[dict[str, str]] = {"rate": "requests_per_second", "MiB/s": "mib_per_second", "p99": "p99"}
KEYS: Final = "q quit  p pause  s sort  e engine  o operations  x exports  c clients"
_METER_WIDTH: Final = 10


@dataclass(slots=True)
class View:
    """What the user has chosen."""

    name: str = VIEWS[0]
    sort: str = "rate"
    engine: str = ""
    """Only this engine; "": all."""
    chosen: str = ""
    """The export or client whose operations are shown; "": all of them, without their operations."""
    paused: bool = False


def lines(figures: dict[str, Any], clients: list[dict[str, Any]] | None, view: View, columns: int | None) -> list[str]:
    """The whole content; the caller cuts it to the height of the screen. `clients`: None where not asked for."""
    figures, clients = printable_body(figures), printable_body(clients)
    engines = [engine for engine in figures["engines"] if view.engine in {"", engine["name"]}]
    result = [_headline(figures, engines, view)]
    result += as_text(_engines(engines), columns)
    result.append(f"{view.name.removesuffix('s')} {view.chosen}" if view.chosen else "")
    for table in _tables(engines, clients or [], view):
        result += as_text(table, columns)
    return result


def choices(figures: dict[str, Any], clients: list[dict[str, Any]] | None, view: View) -> list[str]:
    """What the view's key goes through: "" (all), and the name of each export or client."""
    if view.name == "exports":
        return ["", *(name for engine in figures["engines"] for name in engine["exports"] if name)]
    return ["", *(client["id"] for client in clients or [])]


def _tables(engines: list[dict[str, Any]], clients: list[dict[str, Any]], view: View) -> Iterator[Table]:
    if view.name == "exports":
        exports = [(name, export) for engine in engines for name, export in engine["exports"].items()]
        shown = [(name, export) for name, export in exports if view.chosen in {"", name}]
        yield _exports(shown, view)
        if view.chosen:
            yield _counts([row for _, export in shown for row in export["ops"].items()], view)
    elif view.name == "clients":
        found = [client for client in clients if view.engine in {"", client["engine"]}]
        found = [client for client in found if view.chosen in {"", client["id"]}]
        yield _clients(found, view)
        if view.chosen:
            yield _operations(({"name": client["engine"], "ops": client["ops"]} for client in found), view)
    else:
        yield _operations(engines, view)


def fitted(content: list[str], columns: int, rows: int) -> list[str]:
    """`content` cut to the screen; the last row shows the keys. A cut line ends with an ellipsis."""
    shown = [line if cell_len(line) <= columns else set_cell_size(line, columns - 1) + "…" for line in content]
    shown = shown[: rows - 1]
    return [*shown, *[""] * (rows - 1 - len(shown)), set_cell_size(KEYS, columns).rstrip()]


def _headline(figures: dict[str, Any], engines: list[dict[str, Any]], view: View) -> str:
    totals = {key: sum(engine[key] for engine in engines) for key in ("requests_per_second", "mib_per_second")}
    paused = "  PAUSED" if view.paused else ""
    chosen = f"  engine {view.engine}" if view.engine else ""
    return (
        f"aiod {figures['version']}  {totals['requests_per_second']:,.0f} requests/s  "
        f"{totals['mib_per_second']:,.1f} MiB/s  last {figures['seconds']:.1f} s  by {view.sort}{chosen}{paused}"
    )


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or not value else f"{value:.1f}"  # noqa: PLR2004 - digits


def _figure(key: str, head: str) -> Column:
    return Column(key, head, _rate)


def _engines(engines: list[dict[str, Any]]) -> Table:
    columns = [
        Column("engine", "engine", left=True), Column("state", "state", left=True),
        Column("workers", "workers", left=True), Column("active", "act"), Column("stuck", "stuck"),
        Column("queued", "queue"), Column("inflight", "inflt"), Column("oldest", "oldest", duration),
        _figure("rate", "req/s"), _figure("mib", "MiB/s"),
    ]  # fmt: skip
    table = Table("", columns)
    for engine in engines:
        pool = engine["pool"]
        states: list[Any] = [None] * 4
        if pool is not None:
            states = [_meter(pool), pool["active_threads"], pool["stuck_threads"], pool["queued"]]
        table.add(
            engine["name"], engine["state"], *states, engine["inflight"], engine["oldest_request_age_s"],
            engine["requests_per_second"], engine["mib_per_second"],
        )  # fmt: skip
    return table


def _meter(pool: dict[str, Any]) -> str:
    """Workers beside max_threads: "█" stuck, "▓" active, "░" idle."""
    unit = max(pool["max_threads"], 1) / _METER_WIDTH
    ends = [pool["stuck_threads"], pool["active_threads"], pool["cur_threads"]]
    drawn = ""
    for end, shade in zip(ends, "█▓░", strict=True):
        drawn += shade * (min(_METER_WIDTH, -int(-end // unit)) - len(drawn))
    return drawn + "·" * (_METER_WIDTH - len(drawn))


def _exports(exports: list[tuple[str, dict[str, Any]]], view: View) -> Table:
    """`held`: the share of the time in which a client waited for the rate of the export."""
    columns = [
        Column("export", "export", left=True), _figure("rate", "req/s"), _figure("mib", "MiB/s"),
        _figure("errors", "err/s"), *_times(), Column("throttled", "held", "{:.0%}".format),
    ]  # fmt: skip
    table = Table("", columns)
    for name, export in sorted(exports, key=lambda row: -_sort_value(row[1], view)):
        table.add(name or "(none)", *_rates(export), *_cells(export), export["throttled"])
    return table


def _counts(ops: list[tuple[str, dict[str, Any]]], view: View) -> Table:
    """The operations of one export: their durations are counted over all of them."""
    columns = [
        Column("operation", "operation", left=True), _figure("rate", "req/s"), _figure("mib", "MiB/s"),
        _figure("errors", "err/s"),
    ]  # fmt: skip
    table = Table("", columns)
    key = SORTS[view.sort] if view.sort != "p99" else SORTS["rate"]
    for name, op in sorted(ops, key=lambda row: -row[1][key]):
        table.add(name, *_rates(op))
    return table


def _operations(engines: Iterable[dict[str, Any]], view: View) -> Table:
    columns = [
        Column("engine", "engine", left=True), Column("operation", "operation", left=True), _figure("rate", "req/s"),
        _figure("mib", "MiB/s"), _figure("errors", "err/s"), *_times(),
    ]  # fmt: skip
    table = Table("", columns)
    rows = [(engine["name"], name, op) for engine in engines for name, op in engine["ops"].items()]
    for engine, name, op in sorted(rows, key=lambda row: -_sort_value(row[2], view)):
        table.add(engine, name, *_rates(op), *_cells(op))
    return table


def _clients(clients: list[dict[str, Any]], view: View) -> Table:
    columns = [
        Column("client", "client", left=True), Column("engine", "engine", left=True), Column("pid", "pid"),
        _figure("rate", "req/s"), _figure("mib", "MiB/s"), _figure("errors", "err/s"), *_times(),
        Column("software", "software", left=True),
    ]  # fmt: skip
    table = Table("", columns)
    for client in sorted(clients, key=lambda client: -_sort_value(client, view)):
        table.add(client["id"], client["engine"], client["pid"], *_rates(client), *_cells(client), client["software"])
    return table


def _times() -> list[Column]:
    return [
        Column("p50", "p50", latency), Column("p99", "p99", latency), Column("queue99", "queue99", latency),
        Column("service99", "serv99", latency),
    ]  # fmt: skip


def _rates(figures: dict[str, Any]) -> Iterator[float]:
    for key in ("requests_per_second", "mib_per_second", "errors_per_second"):
        yield figures[key]


def _cells(figures: dict[str, Any]) -> Iterator[float]:
    yield figures["latency_us"]["p50"]
    for part in ("latency_us", "queue_us", "service_us"):
        yield figures[part]["p99"]


def _sort_value(figures: dict[str, Any], view: View) -> float:
    key = SORTS[view.sort]
    return float(figures["latency_us"]["p99"] if key == "p99" else figures[key])
