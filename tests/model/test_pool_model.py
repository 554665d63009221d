"""spin finds no error in the model of the worker pool (pool.pml), and finds each deliberate mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.search import mistakes_of, search_cycles

MODEL = Path(__file__).with_name("pool.pml")
ALWAYS = 255

SCENARIOS: dict[str, dict[str, int]] = {
    "burst": {"MAX": 3, "SUBMITTERS": 2, "REQUESTS": 2},
    "requests that need each other": {"MAX": 3, "SUBMITTERS": 1, "REQUESTS": 3, "BARRIER": 1},
    "idle exit": {"MAX": 2, "SUBMITTERS": 2, "REQUESTS": 2, "IDLE_EXIT": 1},
    "idle exit above min_threads": {"MAX": 2, "MIN": 1, "IDLE_EXIT": 1},
    "cancel": {"MAX": 2, "CANCELS": 1, "IDLE_EXIT": 1},
    "resize": {"MAX": 2, "MIN": 1, "RESIZES": 2, "IDLE_EXIT": 1},
    "creation fails twice": {"MAX": 3, "FAILURES": 2, "IDLE_EXIT": 1},
    "creation always fails": {"MAX": 2, "FAILURES": ALWAYS},
    "stop": {"MAX": 3, "MIN": 1, "STOP": 1, "IDLE_EXIT": 1},
    "all at once": {"MAX": 2, "REQUESTS": 1, "RESIZES": 1, "FAILURES": 1, "IDLE_EXIT": 1, "CANCELS": 1, "STOP": 1},
}

MISTAKES = {
    "supply_counts_the_waking_twice": "burst",
    "doorbell_is_not_rung": "burst",
    "new_worker_creates_none": "burst",
    "new_worker_stays_pending_too_long": "burst",
    "none_created_when_the_queue_is_empty": "burst",
    "rollback_forgets_the_backlog": "creation always fails",
    "rollback_forgets_itself": "creation always fails",
    "failure_rings_no_doorbell": "creation fails twice",
    "requests_without_threads_never_fail": "creation always fails",
    "submitter_wakes_none": "burst",
    "woken_worker_wakes_none": "burst",
    "exiting_worker_wakes_none": "resize",
    "idle_worker_exits_though_chosen": "idle exit",
    "idle_worker_exits_beside_a_queue": "idle exit",
    "idle_worker_exits_below_min_threads": "idle exit above min_threads",
    "idle_worker_consumes_no_post": "idle exit",
    "shrink_wakes_none": "resize",
    "stop_wakes_none": "stop",
    "last_worker_signals_none": "stop",
}
"""Each MISTAKE of the model, with a scenario in which spin must find it."""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_run_of_a_scenario_ends_correctly(tmp_path: Path, scenario: str) -> None:
    found = search_cycles(tmp_path, MODEL, SCENARIOS[scenario])
    assert found.complete, found.report
    assert found.errors == 0, found.report
    assert found.states > 1000  # the scenario was not cut short


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found(tmp_path: Path, mistake: str) -> None:
    found = search_cycles(tmp_path, MODEL, SCENARIOS[MISTAKES[mistake]], mistake)
    assert found.errors == 1, found.report


def test_every_mistake_of_the_model_is_tried() -> None:
    assert set(mistakes_of(MODEL)) == {"none", *MISTAKES}
