"""The C core's includes: each folder uses only the folders below it, and outside pool/ no files include each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_CORE: Final = Path(__file__).parents[2] / "aiod" / "core"

_LAYERS: Final = ("util", "protocol", "pool", "ops", "path", "session", "ring", "vhost", "")
"""From the bottom up; "" is aiod/core itself, where the folders are joined."""

_CIRCLE_ALLOWED: Final = {"pool/pool", "pool/spawner", "pool/worker", "pool/pool_state"}
"""The state machine of the worker pool is one subsystem in several files."""

_INCLUDE: Final = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def _sources() -> list[Path]:
    return sorted(path for path in _CORE.rglob("*") if path.suffix in {".c", ".h", ".cpp", ".def"})


def _unit(path: Path) -> str:
    """NAME.c and NAME.h are one unit: FOLDER/NAME."""
    return path.relative_to(_CORE).with_suffix("").as_posix()


def _includes(path: Path) -> Iterator[Path]:
    """The core's own files that `path` includes."""
    for name in _INCLUDE.findall(path.read_text()):
        if (_CORE / name).is_file():
            yield _CORE / name


def _folder(path: Path) -> str:
    return "" if path.parent == _CORE else path.parent.name


def _graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for path in _sources():
        used = {_unit(included) for included in _includes(path)}
        graph.setdefault(_unit(path), set()).update(used - {_unit(path)})
    return graph


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - seen
        seen |= new
        waiting.extend(new)
    return seen


def test_every_folder_of_the_core_has_a_layer() -> None:
    """A folder that the order does not name would not be checked."""
    assert {_folder(path) for path in _sources()} == set(_LAYERS)


@pytest.mark.parametrize("path", _sources(), ids=_unit)
def test_a_file_includes_only_its_own_layer_and_lower_ones(path: Path) -> None:
    """So that a folder can be read, and tested, without those above it."""
    own = _LAYERS.index(_folder(path))
    assert [_unit(used) for used in _includes(path) if _LAYERS.index(_folder(used)) > own] == []


def test_no_units_outside_the_pool_include_each_other() -> None:
    """A circle would make one unit of several files."""
    graph = _graph()
    in_circles = {unit for unit in graph if unit in _reachable(graph, unit)}
    assert in_circles - _CIRCLE_ALLOWED == set()


def test_includes_name_the_folder() -> None:
    """An include without its folder would depend on the including file's place."""
    headers = {path.name for path in _sources() if path.parent != _CORE}
    without = {
        (_unit(path), name) for path in _sources() for name in _INCLUDE.findall(path.read_text()) if name in headers
    }
    assert without == set()
