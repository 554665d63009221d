"""Numbers in readable units, in few characters."""

from __future__ import annotations

import math
from typing import Final

_KIB: Final = 1024.0
_SECONDS_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))
_LATENCY_UNITS: Final = ((1e6, "s"), (1e3, "ms"), (1.0, "µs"))
_HUNDRED: Final = 100
_TEN: Final = 10
_BAR_FROM_US: Final = 1.0
_BAR_DECADES: Final = 7  # 1 µs to 10 s


def size(count: float) -> str:
    """Bytes in a readable unit: "1.5 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds in a readable unit: "2.5 h"."""
    for length, unit in _SECONDS_UNITS:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def count(number: int) -> str:
    """A count with its thousands separated: "1,234"."""
    return f"{number:,}"


def latency(microseconds: float) -> str:
    """Microseconds in the unit that needs three digits: "812µs", "1.25ms", "3.40s"; "-" for 0: nothing counted."""
    if not microseconds:
        return "-"
    for length, unit in _LATENCY_UNITS:
        if microseconds >= length or unit == "µs":
            value = microseconds / length
            digits = 0 if value >= _HUNDRED else 1 if value >= _TEN else 2
            return f"{value:.{digits}f}{unit}"
    raise AssertionError


def bar(quantiles_us: dict[str, float], width: int) -> str:
    """Latencies on a logarithmic scale of `width` characters from 1 µs to 10 s.

    Blank up to p50; then each part has its own shade: up to p90, p99, p99.9 and max.
    """
    ends = [_position(quantiles_us.get(name, 0.0), width) for name in ("p50", "p90", "p99", "p999", "max")]
    if not quantiles_us.get("max"):
        return ""
    drawn = " " * ends[0] + "█"
    for end, shade in zip(ends[1:], "▓▒░·", strict=True):
        drawn += shade * (end + 1 - len(drawn))
    return drawn


def _position(microseconds: float, width: int) -> int:
    if microseconds <= _BAR_FROM_US:
        return 0
    return min(width - 1, int(math.log10(microseconds / _BAR_FROM_US) / _BAR_DECADES * width))


def ranges(numbers: list[int]) -> str:
    """CPU numbers as the kernel writes them: "0-3,7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
