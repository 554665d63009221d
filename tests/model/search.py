"""Runs spin over a model of tests/model: its verifier is made, run, and its report read."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

DEPTH_MAX = 200_000
MEMORY_MAX_MIB = 1400


class Search(NamedTuple):
    """What spin's verifier has found."""

    errors: int
    states: float
    complete: bool
    report: str


def search(
    directory: Path, model: Path, defines: dict[str, int | str], made_with: list[str], run_with: list[str]
) -> Search:
    """Make the verifier of `model` in `directory`, and run it to its end."""
    run(directory, "spin", "-a", *(f"-D{name}={value}" for name, value in defines.items()), str(model))
    run(directory, "cc", "-O2", "-w", *made_with, f"-DMEMLIM={MEMORY_MAX_MIB}", "-o", "pan", "pan.c")
    report = run(directory, "./pan", *run_with, f"-m{DEPTH_MAX}")
    errors, states = re.search(r"errors: (\d+)", report), re.search(r"([\d.e+]+) states, stored", report)
    assert errors is not None, report
    assert states is not None, report
    stopped_short = "max search depth too small" in report or "out of memory" in report or "not completed" in report
    return Search(int(errors[1]), float(states[1]), not stopped_short, report)


def run(directory: Path, *command: str) -> str:
    """Run `command` in `directory`; what it printed."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
