"""Merges snapshots of counters and histograms, and makes the JSON that aiodctl shows. Every name has its unit.

Pure functions, safe from any thread.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from aiod.util.histograms import merge_histograms, percentiles_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


def show_exports(exports: Mapping[str, Any]) -> dict[str, Any]:
    """The exports of a snapshot, with percentiles (µs) in place of histograms, and errnos by their names."""
    return {name: _show_export(figures) for name, figures in exports.items()}


def _show_export(figures: Mapping[str, Any]) -> dict[str, Any]:
    ops = {name: op | {"errnos": _named(op["errnos"])} for name, op in figures["ops"].items()}
    throttling = {key: figures[key] for key in ("waiting", "throttled_s") if key in figures}
    return {"ops": ops} | throttling | {f"{key}_us": percentiles_us(figures[f"{key}_ns"]) for key in _HISTOGRAMS}


def _named(errnos: Iterable[tuple[int, int]]) -> dict[str, int]:
    return {errno.errorcode.get(number, "other"): count for number, count in errnos}


def show_users(users: Iterable[Mapping[str, Any]], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """How the rates of users hold their requests back, by the names that the configuration has for them."""
    return [
        {
            "user": names.get(user["uid"], str(user["uid"])),
            "waiting": user["waiting"],
            "throttled_s": user["throttled_s"],
        }
        for user in users
    ]


def show_pool(pool: Mapping[str, Any]) -> dict[str, Any]:
    """A snapshot of Core.pool_stats() with percentiles (µs) in place of its histogram."""
    shown = {key: value for key, value in pool.items() if key not in {"spawn_latency_ns", "spawn_latency_sum_ns"}}
    return shown | {"spawn_latency_us": percentiles_us(pool["spawn_latency_ns"])}
