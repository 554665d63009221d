"""The engines' snapshots as metric families of Prometheus. Loaded only where they are asked for.

Histograms have the core's own counts, without sampling: each border `le` is the highest value of one of its buckets,
one border for each power of two from 1 µs to 10 s; their sums are exact. Labels are names of the configuration, and of
operations, transports and errnos only: no client, pid or path, so their number is bounded.
"""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING, Any, Final

import psutil
from prometheus_client import ProcessCollector, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from aiod import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from aiod.supervisor.engine import Engine
    from aiod.util.histograms import Histogram

_FIRST_BIT: Final = 10
_LAST_BIT: Final = 34
BORDERS_NS: Final = tuple((1 << bit) - 1 for bit in range(_FIRST_BIT, _LAST_BIT + 1))
"""Highest values of core buckets: 1.023 µs, 2.047 µs, ... 17.2 s; the last one is the first above 10 s."""
_NS: Final = 1e9
_ALWAYS_SHOWN: Final = errno.EIO
"""Counted from 0 on: an error is an increase, also the first one."""

_DURATIONS: Final = {
    "latency": ("aiod_request_duration_seconds", "Time of requests from admission to completion."),
    "queue": ("aiod_queue_duration_seconds", "Time that requests waited for a worker."),
    "service": ("aiod_syscall_duration_seconds", "Time of requests in their system calls."),
}
_GAUGES: Final[dict[str, tuple[str, Callable[[Any], float]]]] = {
    "aiod_requests_in_flight": ("Requests admitted and not completed.", lambda a: a["inflight"]),
    "aiod_requests_queued": ("Requests that wait for a worker.", lambda a: a["pool"]["queued"]),
    "aiod_oldest_request_age_seconds": (
        "Time since a worker started the oldest active request; 0: none is active.",
        lambda a: a["oldest_request_age_s"],
    ),
    "aiod_stuck_threads": ("Workers whose request is slow.", lambda a: a["pool"]["stuck_threads"]),
    "aiod_threads_max": ("Most workers that the pool may have.", lambda a: a["pool"]["max_threads"]),
    "aiod_sessions": ("Sessions of clients.", lambda a: a["sessions"]),
    "aiod_open_files": ("Open handles of clients.", lambda a: a["files"]),
    "aiod_rings": ("Shared-memory rings.", lambda a: a["rings"]),
    "aiod_ring_memory_bytes": ("Memory of the rings.", lambda a: a["ring_bytes"]),
    "aiod_locks_held": ("Locks of files that clients hold.", lambda a: a["locks"]["held"]),
    "aiod_locks_waiting": ("Lock requests that wait.", lambda a: a["locks"]["waiting"]),
    "aiod_bytes_in_flight": ("Bytes of reads and writes in flight.", lambda a: a["bytes_inflight"]),
    "aiod_engine_resident_memory_bytes": ("Resident memory of the engine.", lambda a: a["rss_bytes"]),
    "aiod_engine_uptime_seconds": ("Time since the start of the engine's process.", lambda a: a["uptime_s"]),
}
_COUNTERS: Final[dict[str, tuple[str, Callable[[Any], float]]]] = {
    "aiod_spawn_failures_total": ("Failed creations of workers.", lambda a: a["pool"]["spawn_failures"]),
    "aiod_lost_wakeups_total": ("Recoveries of lost wake-ups; expected 0.", lambda a: a["pool"]["lost_wakeups"]),
    "aiod_locks_lost_total": (
        "Locks that could not be regained after a change of engine.",
        lambda a: a["locks"]["lost"],
    ),
    "aiod_slow_requests_total": ("Requests that became slow (slow_request_ms).", lambda a: a["slow_requests"]),
}
_PAYLOADS: Final = {
    "aiod_read_bytes_total": ("Bytes that clients have read.", ("read", "read_file")),
    "aiod_written_bytes_total": ("Bytes that clients have written.", ("write", "append", "write_file")),
}


def encode(families: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """The text of `families` and its content type: OpenMetrics, or Prometheus's older form, as `accept` (HTTP) asks."""
    encoder, content_type = exposition.choose_encoder(accept)
    return encoder(_Collected(families)), content_type


class _Collected(Collector):
    """Families that are collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def families(
    engines: Mapping[str, Engine], answers: Mapping[str, Any], user_names: Mapping[int, str]
) -> Iterator[Metric]:
    """The metrics of the daemon. `answers`: a snapshot of each engine by its name, None where it did not answer.

    `user_names`: of the uids in them, as the configuration has them.
    """
    build = GaugeMetricFamily("aiod_build_info", "Version of the daemon, as a label; always 1.", labels=["version"])
    build.add_metric([__version__], 1)
    yield build
    yield from _supervised(engines, answers)
    known = {name: answer for name, answer in answers.items() if answer is not None}
    yield from _exports(known)
    yield from _operations(known)
    yield _throttled(known, user_names)
    yield _flush_groups(known)
    yield from _pools(known)
    for name, (text, value) in _GAUGES.items():
        yield _by_engine(GaugeMetricFamily(name, text, labels=["engine"]), known, value)
    for name, (text, value) in _COUNTERS.items():
        yield _by_engine(CounterMetricFamily(name, text, labels=["engine"]), known, value)
    yield from ProcessCollector(registry=None).collect()


def _by_engine(family: Any, answers: Mapping[str, Any], value: Callable[[Any], float]) -> Metric:
    for engine, answer in answers.items():
        family.add_metric([engine], value(answer))
    found: Metric = family
    return found


def _supervised(engines: Mapping[str, Engine], answers: Mapping[str, Any]) -> Iterator[Metric]:
    """Metrics that the supervisor knows of an engine that does not answer, too."""
    up = GaugeMetricFamily("aiod_engine_up", "1: the engine serves, and has answered this scrape.", labels=["engine"])
    restarts = CounterMetricFamily(
        "aiod_engine_restarts_total", "Replacements of the engine's process.", labels=["engine"]
    )
    poisoned = GaugeMetricFamily("aiod_poisoned_files", "Open files that a flush has failed for.", labels=["engine"])
    cpu = CounterMetricFamily("aiod_engine_cpu_seconds_total", "CPU time of the engine's process.", labels=["engine"])
    for name, engine in engines.items():
        up.add_metric([name], float(answers.get(name) is not None))
        restarts.add_metric([name], engine.restarts)
        poisoned.add_metric([name], engine.poisoned_files)
        if engine.running and (seconds := _cpu_seconds(engine.pid)) is not None:
            cpu.add_metric([name], seconds)
    yield from (up, restarts, poisoned, cpu)


def _cpu_seconds(pid: int) -> float | None:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _exports(answers: Mapping[str, Any]) -> Iterator[Metric]:
    """Counters of each export; export "" has the requests that name no open file."""
    labels = ["engine", "export", "op"]
    total = CounterMetricFamily("aiod_requests_total", "Completed requests.", labels=[*labels, "transport"])
    errors = CounterMetricFamily("aiod_request_errors_total", "Requests that failed.", labels=[*labels, "errno"])
    payloads = {name: CounterMetricFamily(name, text, labels=labels[:2]) for name, (text, _) in _PAYLOADS.items()}
    for engine, answer in answers.items():
        for export, figures in answer["exports"].items():
            for op, counted in figures["ops"].items():
                for transport, count in counted["transports"].items():
                    total.add_metric([engine, export, op, transport], count)
                for number, count in ({_ALWAYS_SHOWN: 0} | dict(counted["errnos"])).items():
                    errors.add_metric([engine, export, op, errno.errorcode.get(number, "other")], count)
            for name, (_, ops) in _PAYLOADS.items():
                payloads[name].add_metric([engine, export], _bytes(figures["ops"], ops))
    yield from (total, errors, *payloads.values())


def _throttled(answers: Mapping[str, Any], user_names: Mapping[int, str]) -> Metric:
    name = "aiod_throttled_seconds_total"
    family = CounterMetricFamily(name, "Time in which requests have waited for the rate of an export or of a user.")
    for engine, answer in answers.items():
        for export, figures in answer["exports"].items():
            if "throttled_s" in figures:
                family.add_sample(name, {"engine": engine, "export": export}, figures["throttled_s"])
        for user in answer["throttled_users"]:
            shown = user_names.get(user["uid"], str(user["uid"]))
            family.add_sample(name, {"engine": engine, "user": shown}, user["throttled_s"])
    return family


def _flush_groups(answers: Mapping[str, Any]) -> Metric:
    text = "Flushes that shared one fdatasync()."
    family = HistogramMetricFamily("aiod_flush_group_size", text, labels=["engine"])
    for engine, answer in answers.items():
        groups = answer["flush_groups"]
        seen = list(itertools.accumulate(groups["counts"]))
        borders = [*(str(float(1 << power)) for power in range(len(seen) - 1)), "+Inf"]
        family.add_metric([engine], list(zip(borders, seen, strict=True)), groups["requests"])
    return family


def _operations(answers: Mapping[str, Any]) -> Iterator[Metric]:
    labels = ["engine", "op"]
    inline = CounterMetricFamily("aiod_requests_inline_total", "Reads served without a worker.", labels=labels)
    durations = {part: HistogramMetricFamily(*named, labels=labels) for part, named in _DURATIONS.items()}
    for engine, answer in answers.items():
        for name, op in answer["ops"].items():
            if not op["count"]:
                continue
            inline.add_metric([engine, name], op["inline"])
            for part, family in durations.items():
                _add_histogram(family, [engine, name], op, part)
    yield from (inline, *durations.values())


def _pools(answers: Mapping[str, Any]) -> Iterator[Metric]:
    threads = GaugeMetricFamily("aiod_threads", "Workers by state.", labels=["engine", "state"])
    created = CounterMetricFamily(
        "aiod_threads_created_total", "Workers created, by cause.", labels=["engine", "cause"]
    )
    spawned = HistogramMetricFamily(
        "aiod_spawn_latency_seconds", "Time from the decision to create a worker until it runs.", labels=["engine"]
    )
    for engine, answer in answers.items():
        pool = answer["pool"]
        # A stuck worker is active, too. The difference may be below 0 for a moment.
        states = {
            "idle": pool["idle_threads"],
            "active": max(0, pool["active_threads"] - pool["stuck_threads"]),
            "stuck": pool["stuck_threads"],
            "starting": pool["new_threads"] + pool["pending_threads"],
        }
        for state, count in states.items():
            threads.add_metric([engine, state], count)
        for cause, count in pool["created_for"].items():
            created.add_metric([engine, cause], count)
        _add_histogram(spawned, [engine], pool, "spawn_latency")
    yield from (threads, created, spawned)


def _bytes(ops: Mapping[str, Any], names: Iterable[str]) -> int:
    return sum(ops[name]["bytes"] for name in names if name in ops)


def _add_histogram(family: HistogramMetricFamily, labels: list[str], counted: Mapping[str, Any], part: str) -> None:
    family.add_metric(labels, buckets(counted[f"{part}_ns"]), counted[f"{part}_sum_ns"] / _NS)


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by the upper border in seconds, as Prometheus has them."""
    ordered = sorted(histogram)
    result: list[tuple[str, float]] = []
    seen = index = 0
    for border in BORDERS_NS:
        while index < len(ordered) and ordered[index][0] <= border:
            seen += ordered[index][1]
            index += 1
        result.append((repr(border / _NS), seen))
    result.append(("+Inf", seen + sum(count for _, count in ordered[index:])))
    return result
