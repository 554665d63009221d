"""What a scenario wants of the page cache before and after each turn, and the proof that it was so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from benchmarks import cached_file

if TYPE_CHECKING:
    from pathlib import Path


class PageCache(Protocol):
    """A wanted state."""

    def prepare(self) -> None:
        """Bring it about."""

    def is_as_wanted(self) -> bool:
        """Whether it is so now."""

    def complaint(self) -> str:
        """How it is instead."""


class Cached:
    """All of the file is in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Write back what others have changed, and read it all."""
        cached_file.settle(self._path)
        cached_file.warm(self._path)

    def is_as_wanted(self) -> bool:
        """Whether it is in memory."""
        return cached_file.cached_share(self._path) >= cached_file.CACHED_MIN

    def complaint(self) -> str:
        """How much of it is."""
        return f"{cached_file.cached_share(self._path):.1%} of the file were in the page cache"


class NotCached:
    """Nothing of the file is in memory: who reads by O_DIRECT leaves it so, and who does not is found out."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Drop it."""
        cached_file.settle(self._path)
        cached_file.drop(self._path)

    def is_as_wanted(self) -> bool:
        """Whether it is not in memory."""
        return cached_file.cached_share(self._path) <= 1 - cached_file.CACHED_MIN

    def complaint(self) -> str:
        """How much of it is."""
        return f"{cached_file.cached_share(self._path):.1%} of the file were in the page cache in spite of O_DIRECT"


class Regardless:
    """No file is read."""

    def prepare(self) -> None:
        """Do nothing."""

    def is_as_wanted(self) -> bool:
        """Be content."""
        return True

    def complaint(self) -> str:
        """Have none."""
        return ""
