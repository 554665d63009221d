"""spin finds no error in the model of sleeping and waking at a ring (ring.pml), and finds each deliberate mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.search import mistakes_of, search

MODEL = Path(__file__).with_name("ring.pml")
MISTAKES = [
    "client_sleeps_on_cq_tail",
    "client_does_not_check_again",
    "leader_does_not_check_again",
    "client_rings_no_doorbell",
    "engine_does_not_wake",
    "engine_reads_before_it_stores",
    "client_reads_before_it_stores",
    "leader_sleeps_while_a_worker_takes",
    "nobody_wakes_behind_a_request_that_hangs",
    "timer_is_set_before_it_is_published",
    "timer_counts_as_set_after_the_look",
]


def test_every_run_ends_correctly(tmp_path: Path) -> None:
    found = search(tmp_path, MODEL, {})
    assert found.complete, found.report
    assert found.errors == 0, found.report
    assert found.states > 100_000  # the search was not cut short


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found(tmp_path: Path, mistake: str) -> None:
    found = search(tmp_path, MODEL, {}, mistake)
    assert found.errors == 1, found.report


def test_every_mistake_of_the_model_is_tried() -> None:
    assert set(mistakes_of(MODEL)) == {"none", *MISTAKES}
