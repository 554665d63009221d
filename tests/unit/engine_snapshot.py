"""An engine's snapshot, and the metrics that are made of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiod.supervisor import metrics

LATENCIES_NS = [[1023, 900], [12287, 80], [118783, 15], [8388607, 4], [2147483647, 1]]


def snapshot() -> dict[str, Any]:
    """An engine's answer to `stats`."""
    counted = {"count": 1000, "bytes": 4096000, "errors": 3, "inline": 500}
    histograms = {f"{part}_ns": LATENCIES_NS for part in ("latency", "queue", "service")}
    pool = {
        "max_threads": 64, "stuck_threads": 1, "idle_threads": 3, "active_threads": 5, "new_threads": 1,
        "pending_threads": 1, "queued": 7, "created_for": {"burst": 9, "min": 1, "retry": 0}, "spawn_failures": 0,
        "lost_wakeups": 0, "spawn_latency_ns": LATENCIES_NS,
    }  # fmt: skip
    gauges = dict.fromkeys(
        ("inflight", "sessions", "files", "rings", "ring_bytes", "bytes_inflight", "rss_bytes", "slow_requests"), 5
    )
    unused: dict[str, Any] = dict.fromkeys(counted, 0) | {part: [] for part in histograms}
    ops = {"read": counted | histograms, "write": counted | histograms, "flush": unused}
    return {"pool": pool, "ops": ops, "uptime_s": 5.0, "oldest_request_age_s": 0.5, **gauges}


def metrics_text(accept: str = "", **answers: Any) -> str:
    """The metrics of engines with these answers."""
    engines: dict[str, Any] = {
        name: SimpleNamespace(restarts=2, poisoned_files=1, running=False, pid=0) for name in answers
    }
    return metrics.encode(metrics.families(engines, answers), accept)[0].decode()
