"""Build and run spin's verifier of a model, and read its report."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from tests.patience import scaled

if TYPE_CHECKING:
    from pathlib import Path

DEPTH_MAX = 200_000
MEMORY_MAX_MIB = 1400

_STATE_IS_KNOWN = "kk = (II == 1 || II == 2);"
"""In a verifier's source, after the look-up of a state: II is 2 if the state is on the stack of the search."""


class Search(NamedTuple):
    """The result of spin's verifier."""

    errors: int
    states: float
    complete: bool
    report: str


def search(directory: Path, model: Path, defines: dict[str, int | str], *, cycles: bool = False) -> Search:
    """Build the verifier of `model` in `directory`, and search all states with it.

    `cycles`: a cycle of states is an error, too: every run must end.
    """
    run(directory, "spin", "-a", *(f"-D{name}={value}" for name, value in defines.items()), str(model))
    if cycles:
        _make_cycles_errors(directory / "pan.c")
    # The compiler takes longer to optimise a verifier than that saves in its search.
    run(directory, "cc", "-O0", "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MAX_MIB}", "-o", "pan", "pan.c")
    report = run(directory, "./pan", f"-m{DEPTH_MAX}")
    errors, states = re.search(r"errors: (\d+)", report), re.search(r"([\d.e+]+) states, stored", report)
    assert errors is not None, report
    assert states is not None, report
    stopped_short = "max search depth too small" in report or "out of memory" in report or "not completed" in report
    return Search(int(errors[1]), float(states[1]), not stopped_short, report)


def search_cycles(directory: Path, model: Path, scenario: dict[str, int], mistake: str = "none") -> Search:
    """Search all states and all cycles of a model in a scenario."""
    return search(directory, model, {**scenario, "MISTAKE": mistake}, cycles=True)


def _make_cycles_errors(verifier: Path) -> None:
    """Let the search in depth stop at a state that is on its stack: there is a cycle exactly if it meets one.

    spin's own search for cycles (-DNP, -l) has a never claim, which doubles the states, and takes three times as long.
    """
    source = verifier.read_text()
    assert source.count(_STATE_IS_KNOWN) == 1, "another version of spin: how does its verifier treat known states?"
    verifier.write_text(source.replace(_STATE_IS_KNOWN, f'{_STATE_IS_KNOWN} if (II == 2) uerror("cycle");'))


def mistakes_of(model: Path) -> set[str]:
    """The names of a model's mistakes, which its only mtype lists."""
    names = re.search(r"mtype = \{(.*?)\}", model.read_text(), re.DOTALL)
    assert names is not None
    return {name.strip() for name in names[1].split(",")} - {"none"}


def run(directory: Path, *command: str) -> str:
    """Run `command` in `directory`, and return its output."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=scaled(300), check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
