"""Time limits of the tests. Only a test that fails waits that long."""

from __future__ import annotations

import os
from typing import Final

FACTOR: Final = float(os.environ.get("AIOD_TEST_TIMEOUT_FACTOR", "1"))
"""For slow machines: every time limit is multiplied by it. Tests in C read the same variable (tests/core/check.h)."""


def scaled(limit: float) -> float:
    """`limit`, in any unit, for this machine."""
    return limit * FACTOR
