"""Answers of the daemon as aiodctl's tests need them: of each verb, with names of the tests' choice."""

from __future__ import annotations

from typing import Any

from aiod.supervisor import stats
from aiod.util.histograms import percentiles_us

LATENCIES_NS = [[1023, 900], [12287, 80], [118783, 15], [8388607, 4], [2147483647, 1]]


def ops(count: int = 1_234_567) -> dict[str, Any]:
    """Statistics of an engine with two operations."""
    histograms = {f"{part}_ns": LATENCIES_NS for part in ("latency", "queue", "service")}
    counted = {"count": count, "bytes": 4096 * count, "errors": 12, "inline": count // 2}
    return stats.show_ops({"read": counted | histograms, "write_zeroes": counted | histograms})


def answers(name: str) -> dict[str, dict[str, Any]]:
    """An answer for each verb; every text that a client or an administrator chooses is `name`."""
    pool = stats.show_pool(
        {
            "max_threads": 64, "stuck_threads": 1, "min_threads": 2, "cur_threads": 17, "idle_threads": 3,
            "new_threads": 0, "pending_threads": 0, "queued": 123456, "threads_created": 98765, "spawn_failures": 3,
            "threads_peak": 64, "created_for": {"burst": 98000, "min": 700, "retry": 65}, "longest_chain": 12,
            "spawn_latency_ns": LATENCIES_NS, "spawn_latency_sum_ns": 1,
        }
    )  # fmt: skip
    engine = {
        "name": name, "pid": 4194304, "state": "serving", "incarnation": 7, "restarts": 2, "pool": pool, "ops": ops(),
        "sessions": 12, "files": 3456, "inflight": 789, "slow_requests": 4, "rings": 11, "ring_bytes": 123456789,
        "rss_bytes": 98765432, "uptime_s": 98765.0,
    }  # fmt: skip
    client = {
        "id": "1f2e3d4c", "engine": name, "pid": 4194303, "uid": 1000, "software": name, "handles": 12, "inflight": 34,
        "ring": False, "key": name, "address": name, "age_s": 5400.0, "idle_s": 0.5, "ops": ops(4321),
    }  # fmt: skip
    handle = {
        "client": "1f2e3d4c", "engine": name, "pid": 4194303, "handle": 3, "file": name, "inflight": 2,
        "readable": True, "writable": True, "append": False, "direct": True, "poisoned": True, "closing": False,
    }  # fmt: skip
    request = {
        "client": "1f2e3d4c", "engine": name, "age_s": 12.5, "op": "write", "file": name, "offset": 1 << 40,
        "bytes": 1 << 20, "tid": 4194302, "state": "in service",
    }  # fmt: skip
    thread = {"tid": 4194302, "name": name, "role": "worker", "cpus": [0, 1, 3], "state": "sleeping", "astray": True}
    export = {
        "name": name, "path": name, "fs": "ext4", "read_only": False, "direct": True, "engine": name,
        "state": "serving", "io": "auto", "io_in_use": "uring", "io_reason": "",
    }  # fmt: skip
    quantiles = percentiles_us(LATENCIES_NS)
    return {
        "ping": {"version": name, "pid": 1, "uptime_s": 7200.0},
        "version": {"version": name, "protocol_versions": [1], "pid": 1},
        "stats": {"version": name, "pid": 1, "uptime_s": 98765.0, "engines": [engine]},
        "pool": {"engine": name, "pool": pool},
        "threads": {
            "supervisor": {"pid": 1, "threads": [thread]},
            "engines": [{"name": name, "pid": 2, "threads": [thread]}],
        },
        "exports": {"exports": [export]},
        "clients": {"clients": [client]},
        "handles": {"handles": [handle]},
        "requests": {
            "requests": [request], "engines": [{"name": name, "queued": 5, "stuck_threads": 1}],
        },
        "bench": {
            "rw": "randread", "export": name, "block_bytes": 4096, "depth": 4096, "seconds": 5.0, "iops": 123456.7,
            "mib_per_second": 482.3, "latency_us": quantiles, "daemon_latency_us": {"read": quantiles},
            "cpu_us_per_operation": {"client": 12.3, "engines": None},
        },
        "metrics": {"content_type": "text/plain", "lines": [name]},
        "drain": {"pid": 1},
        "kick": {"client": name, "engines": [name]},
        "reload": {"changed": [f"{name}: 1 -> 2"], "restart": [name], "late": [name]},
    }  # fmt: skip
