"""The state of the page cache that a scenario requires before and after each turn, and its check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from benchmarks import cached_file

if TYPE_CHECKING:
    from pathlib import Path


class PageCache(Protocol):
    """A required state of the page cache."""

    def prepare(self) -> None:
        """Establish the state."""

    def is_as_wanted(self) -> bool:
        """Whether the state holds now."""

    def complaint(self) -> str:
        """Describe the actual state."""


class Cached:
    """The whole file is in the page cache."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Write back changes, and read the whole file."""
        cached_file.settle(self._path)
        cached_file.warm(self._path)

    def is_as_wanted(self) -> bool:
        """Whether the file is in the page cache."""
        return cached_file.cached_share(self._path) >= cached_file.CACHED_MIN

    def complaint(self) -> str:
        """How much of it is."""
        return f"{cached_file.cached_share(self._path):.1%} of the file were in the page cache"


class NotCached:
    """Nothing of the file is in the page cache; a contender that does not use O_DIRECT is detected."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Drop the file's pages."""
        cached_file.settle(self._path)
        cached_file.drop(self._path)

    def is_as_wanted(self) -> bool:
        """Whether the file is not in the page cache."""
        return cached_file.cached_share(self._path) <= 1 - cached_file.CACHED_MIN

    def complaint(self) -> str:
        """How much of it is."""
        return f"{cached_file.cached_share(self._path):.1%} of the file were in the page cache in spite of O_DIRECT"


class Regardless:
    """No requirement: the contender reads no file."""

    def prepare(self) -> None:
        """Do nothing."""

    def is_as_wanted(self) -> bool:
        """True, always."""
        return True

    def complaint(self) -> str:
        """An empty string, always."""
        return ""
