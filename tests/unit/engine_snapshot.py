"""An engine's snapshot, and the metrics that are made of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiod.supervisor import metrics

LATENCIES_NS = [[1023, 900], [12287, 80], [118783, 15], [8388607, 4], [2147483647, 1]]


def snapshot() -> dict[str, Any]:
    """An engine's answer to `stats`."""
    counted = {"count": 1000, "bytes": 4096000, "errors": 3, "inline": 500}
    histograms: dict[str, Any] = {f"{part}_ns": LATENCIES_NS for part in ("latency", "queue", "service")}
    sums = dict.fromkeys(("latency_sum_ns", "queue_sum_ns", "service_sum_ns"), 3_210_000_000)
    pool = {
        "max_threads": 64, "stuck_threads": 1, "idle_threads": 3, "active_threads": 5, "new_threads": 1,
        "pending_threads": 1, "queued": 7, "created_for": {"burst": 9, "min": 1, "retry": 0}, "spawn_failures": 0,
        "lost_wakeups": 0, "spawn_latency_ns": LATENCIES_NS, "spawn_latency_sum_ns": 1,
    }  # fmt: skip
    gauges = dict.fromkeys(
        ("inflight", "sessions", "files", "rings", "ring_bytes", "bytes_inflight", "rss_bytes", "slow_requests"), 5
    )
    unused: dict[str, Any] = dict.fromkeys((*counted, *sums), 0) | {part: [] for part in histograms}
    ops = {"read": counted | histograms | sums, "write": counted | histograms | sums, "flush": unused}
    causes = {"transports": {"ring": 900, "tcp": 100}, "errnos": [[28, 2], [0, 1]]}
    exports = {
        "disk": {"ops": {"write": counted | causes}, "waiting": 2, "throttled_s": 1.5, **histograms, **sums},
        "": {"ops": {"read": counted | causes | {"bytes": 0}}, **histograms, **sums},
    }
    more = {
        "exports": exports,
        "throttled_users": [{"uid": 1000, "waiting": 1, "throttled_s": 2.5}],
        "locks": {"held": 2, "waiting": 1, "granted": 9, "timed_out": 3, "regained": 2, "lost": 1},
        "flush_groups": {"counts": [3, 1] + [0] * 10 + [1], "requests": 4101},
    }
    return {"pool": pool, "ops": ops, "uptime_s": 5.0, "oldest_request_age_s": 0.5, **gauges, **more}


def metrics_text(accept: str = "", **answers: Any) -> str:
    """The metrics of engines with these answers."""
    engines: dict[str, Any] = {
        name: SimpleNamespace(restarts=2, poisoned_files=1, running=False, pid=0) for name in answers
    }
    return metrics.encode(metrics.families(engines, answers, {1000: "alice"}), accept)[0].decode()
