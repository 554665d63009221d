"""The search itself: what it calls a cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.model.search import search

if TYPE_CHECKING:
    from pathlib import Path

NEXT_TO_THE_OTHER = "active proctype other() { byte there; there = 1; there = 2 }"


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ("byte at; do :: at = 1 - at od", 1),
        ("byte at; do :: at == 0 od", 1),
        ("byte at; do :: at < 3 -> at++ :: else -> break od", 0),
    ],
    ids=["two states", "one state", "an end"],
)
def test_a_cycle_is_an_error(tmp_path: Path, body: str, errors: int) -> None:
    model = tmp_path / "model.pml"
    model.write_text(f"active proctype one() {{ {body} }}\n{NEXT_TO_THE_OTHER}\n")
    found = search(tmp_path, model, {}, cycles=True)
    assert found.errors == errors, found.report
