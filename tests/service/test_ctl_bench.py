"""aiodctl bench."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SHORT = ("--seconds", "0.3", "--size", "1M")


@pytest.mark.parametrize("kind", ["randread", "randwrite", "randrw", "read", "write"])
@pytest.mark.parametrize("transport", ["ring", "zmq"])
def test_bench_reports_figures_as_json(shared_daemon: Any, kind: str, transport: str) -> None:
    before = shared_daemon.engine["ops"]
    figures = shared_daemon.json("bench", "scratch", "--rw", kind, "--transport", transport, "--depth", "4", *SHORT)
    after = shared_daemon.engine["ops"]
    assert (figures["rw"], figures["depth"], figures["block_bytes"]) == (kind, 4, 4096)
    assert figures["seconds"] >= 0.3
    assert figures["iops"] == pytest.approx(figures["operations"] / figures["seconds"])
    assert figures["mib_per_second"] == pytest.approx(figures["iops"] / 256)
    latency = figures["latency_us"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"]
    ops = {"read", "write"} if kind == "randrw" else {kind.removeprefix("rand")}
    assert figures["daemon_latency_us"].keys() == ops
    for measured in figures["daemon_latency_us"].values():
        assert 0 < measured["p50"] <= measured["max"]
    assert figures["cpu_us_per_operation"]["client"] > 0
    done = sum(after[op]["count"] - before.get(op, {"count": 0})["count"] for op in ("read", "write") if op in after)
    assert done >= figures["operations"] > 0
    assert not [path for path in shared_daemon.path.iterdir() if "bench" in path.name]


def test_bench_uses_the_first_export_and_prints_a_table(shared_daemon: Any) -> None:
    shown = shared_daemon.ctl("bench", *SHORT).stdout
    assert "randread in scratch: 4.0 KiB, depth 32" in shown
    assert "IOPS" in shown


def test_bench_times_of_the_daemon_have_the_measured_requests_only(shared_daemon: Any) -> None:
    """The requests that fill the file are of another session; those that wait in the client are not queued."""
    figures = shared_daemon.json("bench", "--rw", "randread", "--depth", "4096", *SHORT)
    assert figures["daemon_latency_us"].keys() == {"read"}
    assert figures["daemon_latency_us"]["read"]["p50"] < figures["latency_us"]["p50"]


def test_bench_with_direct_bypasses_the_page_cache(daemon: Any) -> None:
    assert daemon.json("bench", "--direct", "--depth", "2", *SHORT)["direct"] is True


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["nowhere"], 1, "there is no export 'nowhere'"),
        (["--bs", "many"], 2, "is not a size"),
        (["--bs", "2M"], 1, "is larger than --size"),
    ],
)
def test_bench_refuses_impossible_options(shared_daemon: Any, arguments: list[str], status: int, text: str) -> None:
    done = shared_daemon.ctl("bench", *arguments, *SHORT, check=False)
    assert done.returncode == status
    assert text in done.stderr


def test_bench_refuses_read_only_exports(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"exports.scratch": {"read_only": True}})
    daemon.start()
    assert "every export is read-only" in daemon.ctl("bench", check=False).stderr
    assert "read-only" in daemon.ctl("bench", "scratch", check=False).stderr
    assert json.loads(daemon.ctl("--json", "ping").stdout)
