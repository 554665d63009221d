"""spin finds no error in the model of a ring that becomes dormant (dormant.pml), and finds each deliberate mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.search import mistakes_of, search_cycles

MODEL = Path(__file__).with_name("dormant.pml")
SCENARIO = {"REQUESTS": 3, "RETIRES": 2}
MISTAKES = [
    "doorbell_is_not_noted",
    "doorbell_is_noted_too_late",
    "leader_does_not_look_again_before_the_ring_is_dormant",
    "leader_wakes_no_dormant_ring",
    "dormant_ring_is_told_that_the_engine_is_awake",
    "leader_consumes_an_edge_without_a_note",
    "former_leader_ignores_the_mark",
]


def test_every_run_ends_correctly(tmp_path: Path) -> None:
    found = search_cycles(tmp_path, MODEL, SCENARIO)
    assert found.complete, found.report
    assert found.errors == 0, found.report
    assert found.states > 1000  # the search was not cut short


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found(tmp_path: Path, mistake: str) -> None:
    found = search_cycles(tmp_path, MODEL, SCENARIO, mistake)
    assert found.errors == 1, found.report


def test_every_mistake_of_the_model_is_tried() -> None:
    assert set(mistakes_of(MODEL)) == {"none", *MISTAKES}
