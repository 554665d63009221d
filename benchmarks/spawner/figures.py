"""Combines many bursts into one row of figures: medians over the rounds."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Rounds = list[dict[str, Any]]


def summary(rounds: Rounds) -> dict[str, float]:
    """A variant's figures in microseconds: medians over rounds; p50 and p99 are of all calls of all rounds."""

    def median(value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(one) for one in rounds)

    def every(key: str) -> list[float]:
        return [value for one in rounds for value in one[key]]

    return {
        "submit_sum_us": median(lambda one: sum(one["submit_ns"])) / 1e3,
        "submit_p50_us": quantile(every("submit_ns"), 0.5) / 1e3,
        "submit_p99_us": quantile(every("submit_ns"), 0.99) / 1e3,
        "submit_max_us": median(lambda one: max(one["submit_ns"])) / 1e3,
        "gap_us": median(lambda one: one["gap_ns"]) / 1e3,
        "lock_p99_us": quantile(every("lock_held_ns"), 0.99) / 1e3,
        "lock_max_us": median(lambda one: max(one["lock_held_ns"])) / 1e3,
        "done_us": median(lambda one: one["done_ns"]) / 1e3,
        "confined": median(lambda one: one["confined"]),
        "created": median(lambda one: one["created"]),
        "threads_peak": median(lambda one: one["threads_peak"]),
        "lost_wakeups": float(sum(one["lost_wakeups"] for one in rounds)),
    }


def quantile(values: Sequence[float], share: float) -> float:
    """The value that the share `share` of `values` does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def targets(by_name: dict[str, dict[str, float]]) -> list[tuple[str, float, str, bool]]:
    """The goals of the spawner: sentence, measured value, bound, whether it is reached."""
    submitter, ours = by_name["submitter"], by_name["main-loop, fan-out 2"]
    ready = by_name["preallocated, fan-out 2"]
    faster = submitter["submit_sum_us"] / ours["submit_sum_us"]
    ratio = ready["submit_sum_us"] / ours["submit_sum_us"]
    soonest = min(value["done_us"] for name, value in by_name.items() if not name.startswith("preallocated"))
    sooner = soonest / ready["done_us"]
    return [
        ("main-loop: time in submit, times less than submitter", faster, ">= 10", faster >= 10),
        ("main-loop: workers confined to the submitter's CPU", ours["confined"], "0", ours["confined"] == 0),
        ("main-loop: lock held, p99 (µs)", ours["lock_p99_us"], "<= 20", ours["lock_p99_us"] <= 20),
        ("preallocated: threads created in the burst", ready["created"], "0", ready["created"] == 0),
        ("preallocated: time in submit, of main-loop's", ratio, "<= 2", ratio <= 2),
        ("preallocated: done sooner than with any creation, times", sooner, "> 1", sooner > 1),
    ]
