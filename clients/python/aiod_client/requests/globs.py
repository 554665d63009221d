"""What both clients' glob() has in common, as trees.py has it for the others."""

from __future__ import annotations

import errno
import fnmatch
import posixpath
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiod_client.requests.trees import Ask, Found, is_absent, leads_to_directory

if TYPE_CHECKING:
    from collections.abc import Generator

    from aiod_client.records import BaseDirEntry, Page

_MAGIC: Final = re.compile(r"[*?\[]")
_ANY_DEPTH: Final = "**"


class _Place(NamedTuple):
    """A directory, and the part of the pattern that its names have to match."""

    path: str
    part: int
    inner: bool = False
    """It was found by `**`, which goes on in it."""


def parse_pattern(pattern: str) -> tuple[str, list[str]]:
    """The export, and the parts of the pattern in it. Raises ValueError for an export with wildcards."""
    export, *rest = pattern.split("/")
    if _MAGIC.search(export):
        raise ValueError(f"pattern {pattern!r}: the export's name cannot have wildcards")
    parts: list[str] = []
    for number, part in enumerate(rest):
        is_last = number == len(rest) - 1
        repeated = part == _ANY_DEPTH and parts[-1:] == [_ANY_DEPTH]
        if (part or is_last) and not repeated:
            parts.append(part)
    return export, parts


class Glob:
    """One search. The directories that wait for their turn are remembered, and what was found only if it has to be."""

    def __init__(self, pattern: str, *, include_hidden: bool) -> None:
        """Raises ValueError."""
        self._export, self._parts = parse_pattern(pattern)
        self._include_hidden = include_hidden
        # With one ** each path matches in one way only.
        self._seen: set[str] | None = set() if self._parts.count(_ANY_DEPTH) > 1 else None
        self._todo: list[_Place] = []

    def steps(self) -> Generator[Ask | Found, Any, None]:
        """Search."""
        if not self._parts:
            yield from self._literal(_Place(self._export, 0), "")
            return
        self._todo.append(_Place(self._export, 0))
        while self._todo:
            place = self._todo.pop()
            part = self._parts[place.part]
            if part == _ANY_DEPTH:
                step = self._any_depth(place)
            elif part and _MAGIC.search(part):
                step = self._wildcard(place, part)
            else:
                step = self._literal(place, part)
            try:
                yield from step
            except OSError as error:
                if not is_absent(error) and error.errno != errno.EACCES:
                    raise

    def _is_last(self, place: _Place) -> bool:
        return place.part >= len(self._parts) - 1

    def _found(self, path: str) -> Generator[Found, None, None]:
        if self._seen is not None:
            if path in self._seen:
                return
            self._seen.add(path)
        yield Found(path)

    def _literal(self, place: _Place, part: str) -> Generator[Ask | Found, Any, None]:
        """A name without wildcards; an empty last one, after a slash, asks for a directory."""
        path = posixpath.join(place.path, part) if part else place.path
        if not self._is_last(place):
            self._todo.append(_Place(path, place.part + 1))
        elif part:
            yield Ask("lstat", (path,))
            yield from self._found(path)
        elif (yield Ask("is_dir", (path,))):
            yield from self._found(path + "/" if self._parts else path)

    def _wildcard(self, place: _Place, part: str) -> Generator[Ask | Found, Any, None]:
        matches = re.compile(fnmatch.translate(part)).match
        hidden = self._include_hidden or part.startswith(".")
        cursor: int | None = 0
        while cursor is not None:
            page: Page[BaseDirEntry] = yield Ask("_page", (place.path, cursor))
            for entry in page.entries:
                if not matches(entry.name) or (entry.name.startswith(".") and not hidden):
                    continue
                if self._is_last(place):
                    yield from self._found(entry.path)
                elif (yield from leads_to_directory(entry)):
                    self._todo.append(_Place(entry.path, place.part + 1))
            cursor = page.following

    def _any_depth(self, place: _Place) -> Generator[Ask | Found, Any, None]:
        """The directory itself, and all beneath it."""
        is_last = self._is_last(place)
        cursor: int | None = 0
        if not is_last:
            self._todo.append(_Place(place.path, place.part + 1))
        while cursor is not None:
            page: Page[BaseDirEntry] = yield Ask("_page", (place.path, cursor))
            if cursor == 0 and is_last and not place.inner:
                yield from self._found(place.path + "/")
            for entry in page.entries:
                if entry.name.startswith(".") and not self._include_hidden:
                    continue
                if is_last:
                    yield from self._found(entry.path)
                if entry.kind == "dir":
                    self._todo.append(_Place(entry.path, place.part, inner=True))
            cursor = page.following
