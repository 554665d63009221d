"""The order of the tests, and their distribution over the processes of pytest-xdist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    import pytest

ORDER: Final = ("systemd", "cluster", "soak", "core", "model", "service", "client", "fuzz", "unit")
"""Folders with long tests begin, so that no process is left with one at the end."""

SEPARATE: Final = (
    "tests/core/",
    "tests/model/",
    "tests/service/test_engine_deaths.py",
)
"""Files whose tests share nothing, so that different processes may run them."""

TOGETHER: Final = "tests/systemd/"
"""Files that need the same installation: two processes would build it in the same place at once."""


def place(item: pytest.Item) -> int:
    """The position of the test's folder."""
    folder = item.nodeid.split("/")[1]
    return ORDER.index(folder) if folder in ORDER else len(ORDER)


class Schedule(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Each file is run by one process, since its tests may share a daemon; some files are split, some are grouped."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(TOGETHER):
            return TOGETHER
        return nodeid if nodeid.startswith(SEPARATE) else str(super()._split_scope(nodeid))
