"""A program: garbage is due for collection at each moment of an interruption, and none is collected there.

It tests tests/client/interruption.py, not the client. It is a process of its own, because a collection there may crash
CPython 3.11.

    python -m tests.client.interrupted_collection
"""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import Any, Final

from tests.client.interruption import CLIENT, Interruption

NEVER: Final = 1 << 30
ALLOCATIONS: Final = 10
"""More than CPython makes from the first threshold to the interruption."""

OF_CLIENT: Final = """
class Dropped:
    def __init__(self):
        self.me = self

    def __del__(self):
        self.me = None

def call():
    pass
"""


def collected_meanwhile() -> list[str]:
    """Interrupt call() with the collection due at one allocation after the other. Returns what was wrong."""
    names: dict[str, Any] = {}
    code = compile(OF_CLIENT, f"{CLIENT}/dropped.py", "exec")  # its calls are traced as the client's
    exec(code, names)  # noqa: S102
    wrong = []
    gc.set_threshold(NEVER)
    for allocations in range(ALLOCATIONS):
        gc.collect()
        interruption = Interruption(0)
        names["Dropped"]()
        with contextlib.suppress(KeyboardInterrupt), interruption:
            gc.set_threshold(gc.get_count()[0] + allocations)
            names["call"]()
        gc.set_threshold(NEVER)
        if " in call, " not in interruption.where:
            wrong.append(f"{allocations} allocations: {interruption.where}")
    return wrong


if __name__ == "__main__":
    sys.exit("\n".join(collected_meanwhile()) or None)
