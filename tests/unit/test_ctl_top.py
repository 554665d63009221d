"""aiodctl top: the figures of an interval alone, and a screen of 80 x 24."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from aiod.ctl import rates, top_screen
from aiod.ctl.top_screen import View

BEFORE_NS = [[1023, 100], [8388607, 1]]
AFTER_NS = [[1023, 100], [2047, 50], [8388607, 1]]


def op(count: int, histogram: list[list[int]]) -> dict[str, Any]:
    return {"count": count, "bytes": count << 20, "errors": 2} | {
        f"{part}_ns": histogram for part in ("latency", "queue", "service")
    }


def sample(at_s: float, ops: dict[str, Any] | None, *, incarnation: int = 1, name: str = "main") -> dict[str, Any]:
    pool = {
        "cur_threads": 8, "idle_threads": 4, "active_threads": 4, "stuck_threads": 1, "max_threads": 16, "queued": 3,
    }  # fmt: skip
    engine: dict[str, Any] = {"name": name, "pid": 7, "state": "serving", "restarts": 0, "incarnation": incarnation}
    if ops is not None:
        engine |= {"ops": ops, "pool": pool, "inflight": 9, "sessions": 2, "oldest_request_age_s": 1.0, "rss_bytes": 5}
    return {"version": "1", "pid": 6, "at_s": at_s, "engines": [engine]}


def test_an_interval_has_its_own_rates_and_latencies() -> None:
    figures = rates.between(
        sample(10.0, {"read": op(101, BEFORE_NS)}), sample(12.0, {"read": op(151, AFTER_NS), "write": op(0, [])})
    )
    (engine,) = figures["engines"]
    assert (figures["seconds"], engine["requests_per_second"], engine["mib_per_second"]) == (2.0, 25.0, 25.0)
    assert engine["ops"].keys() == {"read"}
    assert engine["ops"]["read"]["latency_us"] == dict.fromkeys(("p50", "p90", "p99", "p999", "max"), 2.047)
    assert engine["errors_per_second"] == 1  # of the write: the errors of the read are older


def test_a_new_process_begins_at_zero() -> None:
    figures = rates.between(
        sample(1.0, {"read": op(500, BEFORE_NS)}), sample(2.0, {"read": op(101, BEFORE_NS)}, incarnation=2)
    )
    assert figures["engines"][0]["requests_per_second"] == 101


def test_an_engine_that_does_not_answer_has_no_rate() -> None:
    answered = sample(1.0, {"read": op(101, BEFORE_NS)})
    silent = sample(2.0, None)
    for before, after in ((answered, silent), (silent, silent), (silent, sample(3.0, {"read": op(9, BEFORE_NS)}))):
        (engine,) = rates.between(before, after)["engines"]
        assert engine["requests_per_second"] == 0
        assert top_screen.lines({**rates.between(before, after)}, None, View(), 80)


def test_clients_have_rates_of_the_interval() -> None:
    client = {
        "engine": "main", "id": "ab", "pid": 1, "uid": 0, "software": "x", "handles": 1, "inflight": 2,
        "ops": {"read": op(101, BEFORE_NS)},
    }  # fmt: skip
    later = client | {"ops": {"read": op(151, AFTER_NS)}}
    (one, new) = rates.clients_between(
        {"at_s": 1.0, "clients": [client]}, {"at_s": 2.0, "clients": [later, later | {"id": "cd"}]}
    )
    assert one["requests_per_second"] == 50
    assert new["requests_per_second"] == 151


def exported(count: int, histogram: list[list[int]], throttled_s: float) -> dict[str, Any]:
    counted = op(count, histogram)
    ops = {"write": {key: counted[key] for key in ("count", "bytes", "errors")}}
    durations = {key: value for key, value in counted.items() if key.endswith("_ns")}
    return {"ops": ops, "throttled_s": throttled_s, "waiting": 1} | durations


def sample_of_exports(at_s: float, count: int, histogram: list[list[int]], throttled_s: float) -> dict[str, Any]:
    made = sample(at_s, {})
    made["engines"][0]["exports"] = {"disk": exported(count, histogram, throttled_s), "": exported(1, [], 0.0)}
    return made


def test_exports_have_rates_latencies_and_what_their_rate_held_back() -> None:
    figures = rates.between(sample_of_exports(10.0, 101, BEFORE_NS, 5.0), sample_of_exports(12.0, 151, AFTER_NS, 6.5))
    export = figures["engines"][0]["exports"]["disk"]
    assert (export["requests_per_second"], export["mib_per_second"], export["throttled"]) == (25.0, 25.0, 0.75)
    assert export["latency_us"]["p99"] == 2.047
    assert export["ops"]["write"]["requests_per_second"] == 25.0
    shown = top_screen.lines(figures, None, View(name="exports"), 80)
    assert shown[4].split() == ["export", "req/s", "MiB/s", "err/s", "p50", "p99", "queue99", "serv99", "held"]
    assert shown[5].split()[0] == "disk"
    assert shown[5].split()[-1] == "75%"
    assert shown[6].split()[0] == "(none)"
    chosen = top_screen.lines(figures, None, View(name="exports", chosen="disk"), 80)
    assert chosen[3] == "export disk"
    assert [line.split()[0] for line in chosen[4:]] == ["export", "disk", "operation", "write"]


def test_the_key_goes_through_exports_and_clients() -> None:
    figures = rates.between(sample_of_exports(1.0, 1, [], 0.0), sample_of_exports(2.0, 1, [], 0.0))
    assert top_screen.choices(figures, None, View(name="exports")) == ["", "disk"]
    assert top_screen.choices(figures, [{"id": "ab"}], View(name="clients")) == ["", "ab"]


def test_a_chosen_client_has_its_operations() -> None:
    client = {
        "engine": "main", "id": "ab", "pid": 1, "uid": 0, "software": "x", "handles": 1, "inflight": 2,
        "ops": {"read": op(101, BEFORE_NS)},
    }  # fmt: skip
    clients = rates.clients_between(
        {"at_s": 1.0, "clients": []}, {"at_s": 2.0, "clients": [client, client | {"id": "cd"}]}
    )
    shown = top_screen.lines(figures_of(), clients, View(name="clients", chosen="ab"), None)
    assert [line.split()[0] for line in shown[4:]] == ["client", "ab", "engine", "main"]
    assert shown[7].split()[1] == "read"


def figures_of(name: str = "main", engines: int = 1) -> dict[str, Any]:
    figures = rates.between(
        sample(1.0, {}, name=name),
        sample(2.0, {f"write_zeroes{number}": op(1000 + number, AFTER_NS) for number in range(20)}, name=name),
    )
    exports = rates.between(sample_of_exports(1.0, 1, [], 0.0), sample_of_exports(2.0, 9_000_000, AFTER_NS, 1.0))
    (export, _) = exports["engines"][0]["exports"].values()
    figures["engines"][0]["exports"] = {f"export-with-a-name-{number}": export for number in range(30)}
    return figures | {"engines": figures["engines"] * engines}


@pytest.mark.parametrize(
    "view", [View(), View(name="clients"), View(name="exports"), View(sort="p99"), View(engine="other", paused=True)]
)
@pytest.mark.parametrize("engines", [1, 30])
def test_the_screen_is_filled_exactly(view: View, engines: int) -> None:
    client = {
        "engine": "main", "id": "ab", "pid": 1, "uid": 0, "software": "漢字" * 60, "handles": 1, "inflight": 2,
        "ops": {"read": op(101, BEFORE_NS)},
    }  # fmt: skip
    clients = rates.clients_between({"at_s": 1.0, "clients": []}, {"at_s": 2.0, "clients": [client] * 40})
    shown = top_screen.fitted(top_screen.lines(figures_of(engines=engines), clients, view, 80), 80, 24)
    assert len(shown) == 24
    assert max(map(cell_len, shown)) <= 80
    assert shown[-1] == top_screen.KEYS


def test_at_80_columns_engines_and_operations_are_tables() -> None:
    shown = top_screen.lines(figures_of(), None, View(), 80)
    assert shown[1].split()[:3] == ["engine", "state", "workers"]
    assert shown[4].split()[:3] == ["engine", "operation", "req/s"]


def test_rows_are_sorted_and_filtered_as_chosen() -> None:
    figures = figures_of()
    assert "write_zeroes19" in top_screen.lines(figures, None, View(), None)[5]
    assert len(top_screen.lines(figures, None, View(engine="other"), None)) < 8


def test_the_meter_shows_stuck_active_and_idle_workers() -> None:
    pool = {"stuck_threads": 1, "active_threads": 4, "cur_threads": 8, "max_threads": 16}
    assert top_screen._meter(pool) == "█▓▓░░·····"
    assert top_screen._meter(pool | {"cur_threads": 99}) == "█▓▓░░░░░░░"


@pytest.mark.parametrize("name", ["[/bold]", "\x1b[2J", "a\nb"])
def test_hostile_names_are_text(name: str) -> None:
    shown = top_screen.lines(figures_of(name), None, View(), 80)
    assert all(line.isprintable() for line in shown)
