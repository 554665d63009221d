"""libaiod's files call each other in one direction only, and no headers include each other."""

from __future__ import annotations

import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

from tests.libaiod_objects import libaiod_objects

_LIBRARY: Final = Path(__file__).parents[2] / "clients" / "c"

_ORDER: Final = (
    *("error", "endpoint", "wire", "attach"),
    *("forks", "polling"),
    *("buffer_pool", "buffer_areas"),
    *("loop", "waiters"),
    *("buffers", "queue"),
    *("held_locks", "open_files", "calls"),
    "session_end",
    *("reopen", "reattach", "resume_requests", "resume"),
    *("wait", "requests", "file_calls", "ring_files", "files", "locks", "events", "session", "blocking", "paths"),
)
"""From the bottom up, as clients/c/client.h has it: a file calls only files that stand before it."""

_INCLUDE: Final = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def _sources() -> list[Path]:
    return [path for path in sorted(_LIBRARY.glob("*.c")) if path.name != "aiod-bench.c"]


def _symbols(objects: list[Path]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The object that defines each symbol, and the symbols that each object uses."""
    defined: dict[str, str] = {}
    used: dict[str, set[str]] = {}
    for path in objects:
        lines = subprocess.run(["nm", "-g", path], check=True, capture_output=True, text=True).stdout.splitlines()
        words = [line.split() for line in lines]
        defined |= {line[2]: path.stem for line in words if len(line) == 3}
        used[path.stem] = {line[1] for line in words if len(line) == 2}
    return defined, used


@pytest.fixture(scope="module", name="calls")
def calls_fixture() -> dict[str, set[str]]:
    """The files that each file calls, by the symbols of their objects."""
    defined, used = _symbols(libaiod_objects())
    return {name: {defined[symbol] for symbol in symbols & defined.keys()} for name, symbols in used.items()}


def test_every_file_of_libaiod_has_its_place_in_the_order() -> None:
    """A file that the order does not name would not be checked."""
    assert sorted(_ORDER) == sorted(path.stem for path in _sources())


def test_a_file_calls_only_files_below_it(calls: dict[str, set[str]]) -> None:
    """So that each file can be read with only those below it in mind."""
    upward = {(name, callee) for name, callees in calls.items() for callee in callees if _is_above(callee, name)}
    assert calls["session"] >= {"resume", "queue"}, "the symbols were found"
    assert upward == set()


def _is_above(callee: str, caller: str) -> bool:
    return _ORDER.index(callee) > _ORDER.index(caller)


def test_no_headers_of_libaiod_include_each_other() -> None:
    """Include guards would hide a circle."""
    headers = [*_LIBRARY.glob("*.h"), *(_LIBRARY / "include").glob("*.h")]
    graph = {path.name: _INCLUDE.findall(path.read_text()) for path in headers}
    assert list(TopologicalSorter(graph).static_order()), "no circle was found, or this would raise"
