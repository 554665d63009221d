"""Sparse histograms of the core: lists of [highest value of the bucket in ns, count].

Buckets are the same everywhere (the core's log-linear ones, off by at most 3.1 %), so that merging is adding, and the
counts of an interval are a difference. Pure functions, safe from any thread.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

Histogram = list[list[int]]

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


def counted_since(before: Histogram, after: Histogram) -> Histogram:
    """What `after` has counted beyond `before`, an earlier state of the same histogram."""
    earlier = {bucket[0]: bucket[1] for bucket in before}
    new = ([value_ns, count - earlier.get(value_ns, 0)] for value_ns, count in after)
    return sorted(bucket for bucket in new if bucket[1] > 0)
