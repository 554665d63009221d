"""spin finds no error in the model of the threads and the loop of one client (waiters.pml), and finds each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.search import mistakes_of, search

MODEL = Path(__file__).with_name("waiters.pml")

SCENARIOS: dict[str, dict[str, int]] = {
    "threads and a loop": {"LOOP_REQUESTS": 2, "CALLS": 0},
    "threads, a loop and calls": {"LOOP_REQUESTS": 1, "CALLS": 2},
}
MISTAKES = [
    "leader_leaves_client_waits_awake",
    "arming_takes_client_waits",
    "disarming_takes_client_waits",
    "taken_completion_wakes_no_loop",
    "taken_byte_wakes_no_loop",
    "leader_returns_client_waits_too_late",
    "leaver_chooses_no_leader",
    "leader_misses_the_byte",
    "taken_byte_wakes_no_notified_loop",
    "poller_does_not_look_again",
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_wake_up_is_lost(tmp_path: Path, scenario: str) -> None:
    found = search(tmp_path, MODEL, SCENARIOS[scenario])
    assert found.complete, found.report
    assert found.errors == 0, found.report
    assert found.states > 10_000  # the search was not cut short


@pytest.mark.parametrize("mistake", MISTAKES)
def test_spin_finds_the_mistake(tmp_path: Path, mistake: str) -> None:
    scenario = "threads, a loop and calls" if mistake.startswith("taken_byte") else "threads and a loop"
    found = search(tmp_path, MODEL, SCENARIOS[scenario], mistake)
    assert found.errors == 1, found.report


def test_every_mistake_of_the_model_is_tried() -> None:
    assert set(mistakes_of(MODEL)) == {"none", *MISTAKES}
