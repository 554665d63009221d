"""The model of polling workers (polling.pml), searched by spin: no run goes wrong, and each mistake in it is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.search import mistakes_of, search_cycles

MODEL = Path(__file__).with_name("polling.pml")

SCENARIOS: dict[str, dict[str, int]] = {
    "one worker at a time": {"LIMIT": 1, "WORKERS": 2, "BY_RING": 2, "BY_MESSAGE": 1},
    "two requests that need each other": {"LIMIT": 2, "WORKERS": 3, "BY_RING": 2, "BY_MESSAGE": 0, "BARRIER": 1},
    "requests that hang": {"LIMIT": 2, "WORKERS": 2, "BY_RING": 3, "BY_MESSAGE": 0, "BARRIER": 2},
    "requests of both kinds that hang": {"LIMIT": 2, "WORKERS": 2, "BY_RING": 2, "BY_MESSAGE": 1, "BARRIER": 2},
    "more workers than the limit": {"LIMIT": 1, "WORKERS": 3, "BY_RING": 2, "BY_MESSAGE": 0},
    "requests that are started": {"LIMIT": 1, "WORKERS": 2, "BY_RING": 2, "BY_MESSAGE": 0, "STARTS": 1},
    "requests that are started or hang": {
        "LIMIT": 2,
        "WORKERS": 2,
        "BY_RING": 1,
        "BY_MESSAGE": 1,
        "BARRIER": 2,
        "STARTS": 1,
    },
    "a bound worker that keeps a request later": {
        "LIMIT": 2,
        "WORKERS": 2,
        "BY_RING": 3,
        "BY_MESSAGE": 0,
        "BARRIER": 3,
        "STARTS": 1,
    },
    "a started request that needs another one": {
        "LIMIT": 2,
        "WORKERS": 2,
        "BY_RING": 1,
        "BY_MESSAGE": 1,
        "BARRIER": 4,
        "STARTS": 1,
    },
    "a lane": {"LIMIT": 2, "WORKERS": 2, "BY_RING": 2, "BY_MESSAGE": 1, "LANE": 1},
}

MISTAKES = {
    "leader_does_not_look_again": "two requests that need each other",
    "last_one_takes_a_request": "requests that hang",
    "follower_leaves_no_mark": "one worker at a time",
    "former_leader_ignores_the_mark": "one worker at a time",
    "hand_over_wakes_nobody": "one worker at a time",
    "follower_ignores_what_it_keeps": "one worker at a time",
    "recall_of_the_last_one": "requests of both kinds that hang",
    "stale_recall_is_followed": "requests of both kinds that hang",
    "more_than_the_limit_take": "more workers than the limit",
    "ended_start_wakes_nobody": "requests that are started",
    "given_up_lead_wakes_nobody": "requests that are started or hang",
    "apart_without_looking_for_the_other": "a bound worker that keeps a request later",
    "nobody_wakes_the_one_apart": "a bound worker that keeps a request later",
    "apart_without_looking_for_a_recall": "a started request that needs another one",
    "recall_passes_the_one_apart": "a started request that needs another one",
    "ended_request_keeps_the_turn": "a lane",
    "turn_is_passed_on_too_late": "a lane",
}
"""Each MISTAKE of the model, and a scenario in which it must be found."""


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
