"""What happened between two samples of the daemon: rates, and latencies of that interval alone. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiod.util.histograms import counted_since, merge_histograms, percentiles_us

if TYPE_CHECKING:
    from collections.abc import Iterable

_MIB: Final = 1 << 20
_PARTS: Final = ("latency", "queue", "service")
_COUNTERS: Final = ("count", "bytes", "errors")
_NOTHING: Final[dict[str, Any]] = dict.fromkeys(_COUNTERS, 0) | {f"{part}_ns": [] for part in _PARTS}
_NO_REQUESTS: Final[dict[str, Any]] = {"ops": {}, "throttled_s": 0.0, **{f"{part}_ns": [] for part in _PARTS}}


def between(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The engines' figures, and those of their operations, in the interval between two answers to `sample`."""
    seconds = max(after["at_s"] - before["at_s"], 1e-9)
    earlier = {(engine["name"], engine["incarnation"]): engine for engine in before["engines"]}
    engines = []
    for engine in after["engines"]:
        # The counters of a new process begin at 0.
        then = earlier.get((engine["name"], engine["incarnation"]), {})
        # Of an engine that does not answer nothing is known; when it answers again, all since then counts.
        ops = _new(then.get("ops", {}), engine["ops"]) if "ops" in engine and ("ops" in then or not then) else {}
        engines.append(
            {key: engine[key] for key in ("name", "pid", "state", "restarts")}
            | {key: engine.get(key) for key in ("inflight", "sessions", "oldest_request_age_s", "rss_bytes")}
            | {"pool": _pool(engine.get("pool"))}
            | _rates(ops.values(), seconds)
            | {"ops": {name: _rates([op], seconds) for name, op in ops.items() if op["count"]}}
            | {"exports": _exports(then.get("exports", {}), engine.get("exports", {}), seconds)}
        )
    return {"version": after["version"], "pid": after["pid"], "seconds": seconds, "engines": engines}


def clients_between(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """The clients' figures in the interval between two answers to `sample_clients`."""
    seconds = max(after["at_s"] - before["at_s"], 1e-9)
    earlier = {(client["engine"], client["id"]): client["ops"] for client in before["clients"]}
    result = []
    for client in after["clients"]:
        ops = _new(earlier.get((client["engine"], client["id"]), {}), client["ops"])
        known = {key: client[key] for key in ("engine", "id", "pid", "uid", "software", "handles", "inflight")}
        each = {name: _rates([op], seconds) for name, op in ops.items() if op["count"]}
        result.append(known | _rates(ops.values(), seconds) | {"ops": each})
    return result


def _exports(before: dict[str, Any], after: dict[str, Any], seconds: float) -> dict[str, dict[str, Any]]:
    """Figures of each export. `throttled`: the share of the interval in which a client waited for its rate."""
    result = {}
    for name, export in after.items():
        then = before.get(name, _NO_REQUESTS)
        counts = {
            op: {key: counted[key] - then["ops"].get(op, _NOTHING)[key] for key in _COUNTERS}
            for op, counted in export["ops"].items()
        }
        totals = {key: sum(op[key] for op in counts.values()) for key in _COUNTERS}
        durations = {f"{part}_ns": counted_since(then[f"{part}_ns"], export[f"{part}_ns"]) for part in _PARTS}
        result[name] = _rates([totals | durations], seconds) | {
            "throttled": (export.get("throttled_s", 0.0) - then.get("throttled_s", 0.0)) / seconds,
            "waiting": export.get("waiting", 0),
            "ops": {op: _counter_rates(each, seconds) for op, each in counts.items() if each["count"]},
        }
    return result


def _pool(pool: dict[str, Any] | None) -> dict[str, Any] | None:
    if pool is None:
        return None
    keys = ("cur_threads", "idle_threads", "active_threads", "stuck_threads", "max_threads", "queued")
    return {key: pool[key] for key in keys}


def _new(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The operations' counters and histograms of the interval."""
    result = {}
    for name, op in after.items():
        then = before.get(name, _NOTHING)
        result[name] = {key: op[key] - then[key] for key in _COUNTERS} | {
            f"{part}_ns": counted_since(then[f"{part}_ns"], op[f"{part}_ns"]) for part in _PARTS
        }
    return result


def _rates(ops: Iterable[dict[str, Any]], seconds: float) -> dict[str, Any]:
    several = list(ops)
    totals = {key: sum(op[key] for op in several) for key in _COUNTERS}
    return _counter_rates(totals, seconds) | {
        f"{part}_us": percentiles_us(merge_histograms(op[f"{part}_ns"] for op in several)) for part in _PARTS
    }


def _counter_rates(counts: dict[str, int], seconds: float) -> dict[str, Any]:
    return {
        "requests_per_second": counts["count"] / seconds,
        "mib_per_second": counts["bytes"] / seconds / _MIB,
        "errors_per_second": counts["errors"] / seconds,
    }
