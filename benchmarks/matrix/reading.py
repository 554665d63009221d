"""The figures as a rival would read them: cells in which a peer is ahead of aiod."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.matrix.peers import AIOD, AIOD_FIO, ECHO

if TYPE_CHECKING:
    from collections.abc import Sequence

_AHEAD_MIN: Final = 1.05
"""Smaller differences count as level: two runs of the same program differ by as much."""
_NO_PEERS: Final = (AIOD, AIOD_FIO, "aiod, ZeroMQ", ECHO)
"""Contenders that are not compared: aiod itself, and the echo, which reads no file."""


class Lead(NamedTuple):
    """A peer that is ahead of aiod in a cell."""

    cell: str
    peer: str
    rate_of_aiod: float
    p50_of_aiod: float | None
    within_spread: bool
    """The rounds of the two overlap, so the lead may be chance."""


def leads(cells: Sequence[dict[str, Any]]) -> list[Lead]:
    """All leads, the largest first."""
    found = [
        Lead(
            cell["key"],
            name,
            figures["rate_of_aiod"],
            figures.get("p50_of_aiod"),
            _overlap(figures, cell["contenders"][AIOD]),
        )
        for cell in cells
        for name, figures in cell["contenders"].items()
        if name not in _NO_PEERS and figures.get("rate_of_aiod", 0.0) >= _AHEAD_MIN
    ]
    return sorted(found, key=lambda lead: -lead.rate_of_aiod)


def _overlap(peer: dict[str, Any], aiod: dict[str, Any]) -> bool:
    lowest = peer["rate"] * (1 - peer["spread"]["rate"] / 2)
    highest = aiod["rate"] * (1 + aiod["spread"]["rate"] / 2)
    return bool(lowest <= highest)


def standing(cells: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int, int]]:
    """By peer: in how many cells aiod is ahead, level, and behind by rate."""
    table: dict[str, list[int]] = {}
    for cell in cells:
        for name, figures in cell["contenders"].items():
            ratio = figures.get("rate_of_aiod")
            if ratio is None or name == AIOD:
                continue
            column = 0 if ratio <= 1 / _AHEAD_MIN else 2 if ratio >= _AHEAD_MIN else 1
            table.setdefault(name, [0, 0, 0])[column] += 1
    return {name: (ahead, level, behind) for name, (ahead, level, behind) in table.items()}
