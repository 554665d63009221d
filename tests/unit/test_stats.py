"""Percentiles and merging of sparse histograms."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aiod.supervisor import stats
from aiod.util.histograms import Histogram, merge_histograms, percentiles_us

VALUES = st.lists(st.integers(0, 10**9), min_size=1, max_size=200)


def histogram(values: list[int]) -> Histogram:
    return merge_histograms([[[value, 1]] for value in values])


@given(VALUES)
def test_percentiles_match_those_of_the_sorted_values(values: list[int]) -> None:
    shown = percentiles_us(histogram(values))
    ordered = sorted(values)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
        assert shown[name] == ordered[math.ceil(share * len(ordered)) - 1] / 1000
    assert shown["max"] == ordered[-1] / 1000


def test_percentiles_of_an_empty_histogram_are_zero() -> None:
    assert percentiles_us([]) == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}


@given(VALUES, VALUES)
def test_merged_histograms_equal_one_histogram_of_all_values(one: list[int], other: list[int]) -> None:
    assert merge_histograms([histogram(one), histogram(other)]) == histogram(one + other)


def op(count: int, values: list[int]) -> dict[str, Any]:
    counted = {key: histogram(values) for key in ("latency_ns", "queue_ns", "service_ns")}
    return {"count": count, "bytes": 10 * count, "errors": 1, "inline": 0} | counted


def test_operations_of_several_engines_are_summed() -> None:
    merged = stats.merge_ops([{"read": op(2, [1000, 2000])}, {"read": op(1, [9000]), "write": op(1, [5000])}])
    assert merged["read"]["count"] == 3
    assert merged["read"]["bytes"] == 30
    assert merged["write"]["errors"] == 1
    shown = stats.show_ops(merged)
    assert shown["read"]["latency_us"]["max"] == 9.0
    assert shown["read"]["queue_us"]["p50"] == 2.0
    assert "latency_ns" not in shown["read"]
