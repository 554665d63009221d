"""aiodctl's sizes, times and CPU lists, and its tables: complete at every width, and plain text whatever the names."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from aiod.config.cpus import parse_cpus
from aiod.ctl import figures, tables
from aiod.ctl.output import Output, encodable
from aiod.supervisor import stats
from tests.unit.ctl_answers import answers

GOLDEN = Path(__file__).parents[1] / "golden"
VERBS = sorted(answers(""))
HOSTILE = ["[/bold]", "x[", "y]", "a[bold]b.img", "[red]x", ":smile:", "\x1b]0;title\x07", "a\nb", "\u202egnp", "=1+1"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (1 << 52, "4096.0 TiB")],
)  # fmt: skip
def test_sizes_have_readable_units(count: int, shown: str) -> None:
    assert figures.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1.0 min"), (5400, "1.5 h"), (86400, "1.0 d")]
)
def test_durations_have_readable_units(seconds: float, shown: str) -> None:
    assert figures.duration(seconds) == shown


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [(0, "-"), (0.9, "0.90µs"), (12.34, "12.3µs"), (812.4, "812µs"), (1250, "1.25ms"), (3.4e6, "3.40s")],
)
def test_latencies_have_three_digits(microseconds: float, shown: str) -> None:
    assert figures.latency(microseconds) == shown


def test_a_bar_has_a_shade_for_each_quantile() -> None:
    us = {"p50": 1.0, "p90": 10.0, "p99": 100.0, "p999": 1000.0, "max": 1e7}
    assert figures.bar(us, 14) == "█▓▓▒▒░░·······"
    assert figures.bar({"p50": 0.0, "max": 0.0}, 14) == ""


@given(st.sets(st.integers(0, 300)))
def test_cpu_lists_survive_a_round_trip(cpus: set[int]) -> None:
    assert set(parse_cpus(figures.ranges(list(cpus)))) == cpus


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def printed(verb: str, body: dict[str, Any], capsys: pytest.CaptureFixture[str], output: Output | None = None) -> str:
    (output or Output()).answer(body, getattr(tables, verb))
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 120, 0])
def test_tables_are_those_of_the_golden_files(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To write them anew: AIOD_GOLDEN=1 pytest, and read the difference."""
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    text = "".join(f"$ aiodctl {verb}\n{printed(verb, body, capsys)}\n" for verb, body in answers("main").items())
    path = GOLDEN / f"aiodctl-{columns or 'piped'}.txt"
    if os.environ.get("AIOD_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    assert not columns or max(map(cell_len, text.splitlines())) <= columns


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_a_narrow_terminal_loses_no_value(
    verb: str, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = answers("a-name-without-spaces")[verb]
    whole = set(printed(verb, body, capsys).split())
    monkeypatch.setenv("COLUMNS", columns)
    narrow = printed(verb, body, capsys)
    joined = narrow.replace("\n", "").replace(" ", "")
    for word in whole:
        assert word in joined or word in tables_heads(verb, body), word


def tables_heads(verb: str, body: dict[str, Any]) -> set[str]:
    """Words of the heads: the first column's is not repeated in a block, nor is that of an empty cell."""
    parts = getattr(tables, verb)(body)
    return {word for table in parts if not isinstance(table, str) for c in table.columns for word in c.head.split()}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("columns", ["", "80"])
def test_a_hostile_name_is_shown_as_escaped_text(
    verb: str, name: str, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    text = printed(verb, answers(name)[verb], capsys)
    escaped = name if name.isprintable() else name.encode("unicode_escape").decode()
    assert verb == "drain" or escaped in text
    assert all(char.isprintable() or char == "\n" for char in text)
    assert len(text.splitlines()) == len(printed(verb, answers("-" * len(escaped))[verb], capsys).splitlines())


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", HOSTILE)
def test_csv_has_the_escaped_names_as_cells(verb: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(verb, answers(name)[verb], capsys, Output("csv"))
    for part in text.split("\n\n"):
        rows = list(csv.reader(io.StringIO(part)))
        assert len({len(row) for row in rows}) <= 1
    assert all(char.isprintable() or char == "\n" for char in text)


def test_no_headers_leaves_rows_only(capsys: pytest.CaptureFixture[str]) -> None:
    body = answers("main")["exports"]
    assert (
        printed("exports", body, capsys, Output(headers=False))
        == "main  main  ext4  read, write, direct  uring  main  serving\n"
    )
    assert printed("exports", body, capsys, Output("csv", headers=False)).count("\n") == 1


def test_exports_tell_once_per_engine_why_threads_are_used(capsys: pytest.CaptureFixture[str]) -> None:
    (export,) = answers("main")["exports"]["exports"]
    denied = export | {"io_in_use": "threads", "io_reason": "io_uring is not available: Operation not permitted"}
    lines = printed("exports", {"exports": [denied, denied]}, capsys).splitlines()
    assert lines[-1] == "engine main: io_uring is not available: Operation not permitted"
    assert sum("io_uring" in line for line in lines) == 1


def test_an_ascii_locale_gets_fallbacks() -> None:
    assert encodable("12µs █▓▒░· é", "ascii") == "12us #=-.. \\xe9"
    assert encodable("12µs █ é", "utf-8") == "12µs █ é"


def test_an_engine_that_does_not_answer_is_still_listed(capsys: pytest.CaptureFixture[str]) -> None:
    engine = {"name": "slow", "pid": 7, "state": "unresponsive", "pool": stats.NO_POOL, "ops": {}}
    body = {"version": "1", "pid": 6, "uptime_s": 5.0, "engines": [engine]}
    text = printed("stats", body, capsys)
    assert "slow" in text
    assert "unresponsive" in text


def test_a_client_without_requests_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    nothing: dict[str, Any] = {"count": 0, "bytes": 0, "errors": 0, "inline": 0}
    ops: dict[str, Any] = {"read": nothing | {f"{part}_ns": [] for part in ("latency", "queue", "service")}}
    client = answers("x")["clients"]["clients"][0] | {"id": "ab12", "ops": stats.show_ops(ops)}
    assert "ab12" in printed("clients", {"clients": [client]}, capsys)
