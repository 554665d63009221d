"""Latencies counted by their length, so that clients and rounds can be added up before percentiles are taken.

Standard library only: the clients in Python use it too.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Histogram = Counter[int]
"""Number of operations by latency (nanoseconds)."""

_PRECISION_BITS: Final = 7


def bucket_ns(nanoseconds: int) -> int:
    """The latency rounded down to one part in 64, so that few values differ."""
    shift = max(0, nanoseconds.bit_length() - _PRECISION_BITS)
    return nanoseconds >> shift << shift


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """The sum of several counts."""
    total: Histogram = Counter()
    for histogram in histograms:
        total.update(histogram)
    return total


def percentiles_us(histogram: Histogram, shares: Sequence[float]) -> list[float]:
    """For each share (ascending), the latency in microseconds that this share of the operations did not exceed."""
    count = histogram.total()
    if not count:
        return []
    found: list[float] = []
    seen = 0
    for nanoseconds, times in sorted(histogram.items()):
        seen += times
        while len(found) < len(shares) and seen >= shares[len(found)] * count:
            found.append(nanoseconds / 1000)
    return found
