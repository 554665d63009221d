"""Merges snapshots of counters and histograms, and makes the JSON that aiodctl shows. Every name has its unit.

A histogram is a sparse list of [highest value of the bucket in ns, count]; buckets are the same everywhere (the core's
log-linear ones, off by at most 3.1 %), so that merging is adding. Pure functions, safe from any thread.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Histogram = list[list[int]]
OpStats = dict[str, Any]

_COUNTERS: Final = ("count", "bytes", "errors", "inline")
_HISTOGRAMS: Final = ("latency", "queue", "service")
NO_POOL: Final[dict[str, Any]] = dict.fromkeys(
    (
        "max_threads",
        "stuck_threads",
        "min_threads",
        "cur_threads",
        "idle_threads",
        "new_threads",
        "pending_threads",
        "queued",
        "threads_created",
        "spawn_failures",
    ),
    0,
)
"""Shown for the pool of an engine that does not answer."""

_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def percentiles_us(histogram: Histogram) -> dict[str, float]:
    """p50, p90, p99, p999 and max in microseconds, each the upper end of its bucket; 0.0 where nothing was counted."""
    ordered = sorted(histogram)
    total = sum(count for _, count in ordered)
    result = {name: _quantile_ns(ordered, math.ceil(share * total)) / 1000 for name, share in _QUANTILES.items()}
    return result | {"max": ordered[-1][0] / 1000 if ordered else 0.0}


def _quantile_ns(ordered: Histogram, rank: int) -> int:
    """The value that `rank` of the counted values do not exceed."""
    seen = 0
    for value_ns, count in ordered:
        seen += count
        if seen >= rank:
            return value_ns
    return 0


def merge_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """Sum of several histograms, ordered by value."""
    counts: Counter[int] = Counter()
    for histogram in histograms:
        for value_ns, count in histogram:
            counts[value_ns] += count
    return [[value_ns, count] for value_ns, count in sorted(counts.items())]


def merge_ops(many: Iterable[Mapping[str, OpStats]]) -> dict[str, OpStats]:
    """Sum of several snapshots of Core.stats(), operation by operation."""
    snapshots = list(many)
    names = dict.fromkeys(name for snapshot in snapshots for name in snapshot)
    merged = {}
    for name in names:
        parts = [snapshot[name] for snapshot in snapshots if name in snapshot]
        merged[name] = {key: sum(part[key] for part in parts) for key in _COUNTERS} | {
            f"{key}_ns": merge_histograms(part[f"{key}_ns"] for part in parts) for key in _HISTOGRAMS
        }
    return merged


def show_ops(ops: Mapping[str, OpStats]) -> dict[str, OpStats]:
    """A snapshot of Core.stats() with percentiles (µs) in place of histograms."""
    return {
        name: {key: op[key] for key in _COUNTERS}
        | {f"{key}_us": percentiles_us(op[f"{key}_ns"]) for key in _HISTOGRAMS}
        for name, op in ops.items()
    }


def show_pool(pool: Mapping[str, Any]) -> dict[str, Any]:
    """A snapshot of Core.pool_stats() with percentiles (µs) in place of its histogram."""
    shown = {key: value for key, value in pool.items() if key != "spawn_latency_ns"}
    return shown | {"spawn_latency_us": percentiles_us(pool["spawn_latency_ns"])}
