"""Who waits by one ring of one client: the model (waiters.pml), searched by spin, is clean; each mistake is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.model.search import Search, search

MODEL = Path(__file__).with_name("waiters.pml")

SCENARIOS: dict[str, dict[str, int]] = {
    "threads and a loop": {"LOOP_REQUESTS": 2, "CALLS": 0},
    "threads, a loop and calls": {"LOOP_REQUESTS": 1, "CALLS": 2},
}
MISTAKES = [
    "leader_leaves_the_word_awake",
    "arming_takes_the_word",
    "disarming_takes_the_word",
    "who_takes_tells_no_loop",
    "who_calls_tells_no_loop",
    "leader_gives_the_word_too_late",
    "leaver_lets_nobody_lead",
    "leader_does_not_see_the_byte",
    "who_calls_tells_no_told_loop",
]


def searched(directory: Path, scenario: dict[str, int], mistake: str = "none") -> Search:
    """What spin finds in the model: all states."""
    return search(directory, MODEL, {**scenario, "MISTAKE": mistake}, ["-DSAFETY", "-DCOLLAPSE"], [])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_run_goes_wrong(tmp_path: Path, scenario: str) -> None:
    found = searched(tmp_path, SCENARIOS[scenario])
    assert found.complete, found.report
    assert found.errors == 0, found.report
    assert found.states > 10_000  # nothing has cut it short


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(tmp_path: Path, mistake: str) -> None:
    scenario = "threads, a loop and calls" if mistake.startswith("who_calls") else "threads and a loop"
    found = searched(tmp_path, SCENARIOS[scenario], mistake)
    assert found.errors == 1, found.report


def test_every_mistake_of_the_model_is_tried() -> None:
    mistakes = re.findall(r"^#define (\w+) \d+", MODEL.read_text(), re.MULTILINE)
    names = {"THREADS", "LOOP", "LOOP_REQUESTS", "CALLS", "none", "AWAKE", "FUTEX", "SOCKET"}
    assert set(mistakes) == names | set(MISTAKES)
