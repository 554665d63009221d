"""aiodctl's sizes, times, CPU lists and tables with missing data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aiod.config.cpus import parse_cpus
from aiod.ctl import tables
from aiod.supervisor import stats


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (1 << 52, "4096.0 TiB")],
)  # fmt: skip
def test_sizes_have_readable_units(count: int, shown: str) -> None:
    assert tables.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1.0 min"), (5400, "1.5 h"), (86400, "1.0 d")]
)
def test_durations_have_readable_units(seconds: float, shown: str) -> None:
    assert tables.duration(seconds) == shown


@given(st.sets(st.integers(0, 300)))
def test_cpu_lists_survive_a_round_trip(cpus: set[int]) -> None:
    assert set(parse_cpus(tables.ranges(list(cpus)))) == cpus


def text_of(parts: Any) -> str:
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


def test_an_engine_that_does_not_answer_is_still_listed() -> None:
    pool = dict.fromkeys(
        (
            "cur_threads",
            "idle_threads",
            "min_threads",
            "max_threads",
            "stuck_threads",
            "threads_created",
            "spawn_failures",
            "queued",
        ),
        0,
    )
    engine = {"name": "slow", "pid": 7, "state": "unresponsive", "pool": pool, "ops": {}}
    text = text_of(tables.stats({"version": "1", "pid": 6, "uptime_s": 5.0, "engines": [engine]}))
    assert "slow" in text
    assert "unresponsive" in text


def test_a_client_without_requests_is_listed() -> None:
    nothing: dict[str, Any] = {"count": 0, "bytes": 0, "errors": 0, "inline": 0}
    ops: dict[str, Any] = {"read": nothing | {f"{part}_ns": [] for part in ("latency", "queue", "service")}}
    client = {
        "id": "ab12", "engine": "main", "pid": 1, "uid": 0, "software": "x", "handles": 0, "inflight": 0, "ring": False,
        "key": "", "age_s": 1.0, "idle_s": 1.0, "ops": stats.show_ops(ops),
    }  # fmt: skip
    assert "ab12" in text_of(tables.clients({"clients": [client]}))
