"""Contenders take turns, round by round; a turn in which the page cache was not as wanted is repeated."""

from __future__ import annotations

import statistics
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.latency import Histogram
    from benchmarks.ring.page_cache import PageCache

TRIES: Final = 5
"""Times that one turn is tried."""
UNAVAILABLE: Final = (OSError, RuntimeError, subprocess.SubprocessError)
"""What a contender raises that cannot start or go on; anything else is a mistake of this harness, and ends it."""


class Measured(NamedTuple):
    """What one contender did in one turn; what does not apply is None."""

    rate: float | None = None
    """Operations per second."""
    bytes_rate: float | None = None
    """Bytes per second."""
    p50_us: float | None = None
    """Latency of one operation, from its submission until the caller has it."""
    p99_us: float | None = None
    p999_us: float | None = None
    cpu_share: float | None = None
    """CPU seconds per second."""
    client_cpu_us: float | None = None
    """CPU time of one operation."""
    server_cpu_us: float | None = None
    client_switches: float | None = None
    """Context switches of one operation, voluntary and not."""
    server_switches: float | None = None
    latency: Histogram | None = None
    """What the percentiles were taken from."""


_NUMBERS: Final = tuple(field for field in Measured._fields if field != "latency")


class Contender(NamedTuple):
    """Who takes a turn."""

    scenario: str
    name: str
    run: Callable[[float], Measured]
    """For so many seconds."""
    page_cache: PageCache


class Turns:
    """The rounds so far. A contender that fails is out, and why is kept."""

    def __init__(self, contenders: Sequence[Contender], say: Callable[[str], None]) -> None:
        """`say` is told who is at it."""
        self.contenders = contenders
        self.say = say
        self.measured: dict[tuple[str, str], list[Measured]] = {}
        self.not_available: dict[tuple[str, str], str] = {}
        self.thrown_away: Counter[str] = Counter()

    def take(self, *, rounds: int, seconds: float) -> None:
        """Every contender `rounds` times."""
        for number in range(rounds):
            for contender in self.contenders:
                key = contender.scenario, contender.name
                if key in self.not_available:
                    continue
                self.say(f"round {number + 1} of {rounds}: {contender.scenario}, {contender.name}")
                try:
                    self.measured.setdefault(key, []).append(self._turn(contender, seconds))
                except UNAVAILABLE as error:
                    self.not_available[key] = f"{error}" or type(error).__name__

    def _turn(self, contender: Contender, seconds: float) -> Measured:
        for _ in range(TRIES):
            contender.page_cache.prepare()
            if contender.page_cache.is_as_wanted():
                measured = contender.run(seconds)
                if contender.page_cache.is_as_wanted():
                    return measured
            self.thrown_away[f"{contender.scenario}, {contender.name}"] += 1
        raise RuntimeError(f"{TRIES} turns were discarded: {contender.page_cache.complaint()}")

    def results(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By scenario and contender: medians, or {"not_available": why}."""
        results: dict[str, dict[str, dict[str, Any]]] = {}
        for contender in self.contenders:
            key = contender.scenario, contender.name
            why = self.not_available.get(key)
            result = _medians(self.measured[key]) if why is None else {"not_available": why}
            results.setdefault(contender.scenario, {})[contender.name] = result
        return results


def _medians(rounds: list[Measured]) -> dict[str, Any]:
    medians: dict[str, Any] = {"rounds": len(rounds), "spread": {}}
    for field in _NUMBERS:
        values = [value for value in (getattr(measured, field) for measured in rounds) if value is not None]
        if values:
            median = statistics.median(values)
            medians[field] = median
            medians["spread"][field] = (max(values) - min(values)) / median if median else 0.0
    return medians
