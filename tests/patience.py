"""How long tests wait and repeat."""

from __future__ import annotations

import os
from typing import Final

FACTOR: Final = float(os.environ.get("AIOD_TEST_TIMEOUT_FACTOR", "1"))
"""For slow machines: every time limit is multiplied by it. Tests in C read the same variables (tests/patience.h)."""

ROUNDS: Final = int(os.environ.get("AIOD_TEST_ROUNDS", "1"))
"""make soak sets it: the number of repetitions is multiplied by it."""


def scaled(limit: float) -> float:
    """A time limit, in any unit, for this machine. Only a test that fails waits that long."""
    return limit * FACTOR


def rounds(count: int) -> int:
    """How often a test repeats what fails by chance only."""
    return count * ROUNDS
