"""Build and run spin's verifier of a model, and read its report."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPTH_MAX: Final = 200_000
MEMORY_MAX_MIB: Final = 1400

_VERIFIERS: Final = Path(__file__).parents[2] / "build" / "models"
"""One for each scenario of a model, for all of its mistakes: to compile it takes longer than to find a mistake."""

_STATE_IS_KNOWN: Final = "kk = (II == 1 || II == 2);"
"""In a verifier's source, after the look-up of a state: II is 2 if the state is on the stack of the search."""

_NO_MISTAKE_YET: Final = "\t\tmistake = 0;"
"""In a verifier's source, where it gives the model's variables their first values."""


class Search(NamedTuple):
    """The result of spin's verifier."""

    errors: int
    states: float
    complete: bool
    report: str


def search(
    directory: Path, model: Path, scenario: Mapping[str, int], mistake: str = "none", *, cycles: bool = False
) -> Search:
    """Search all states of `model` with one of its mistakes; a trail to an error is written into `directory`.

    `scenario`: values for its macros. `cycles`: a cycle of states is an error, too: every run must end.
    """
    verifier = _built(directory, model, scenario, cycles=cycles)
    number = mistakes_of(model).get(mistake, 0)
    report = _run(directory, str(verifier), f"-m{DEPTH_MAX}", MISTAKE=str(number))
    errors, states = re.search(r"errors: (\d+)", report), re.search(r"([\d.e+]+) states, stored", report)
    assert errors is not None, report
    assert states is not None, report
    stopped_short = "max search depth too small" in report or "out of memory" in report or "not completed" in report
    return Search(int(errors[1]), float(states[1]), not stopped_short, report)


def search_cycles(directory: Path, model: Path, scenario: Mapping[str, int], mistake: str = "none") -> Search:
    """Search all states and all cycles of a model in a scenario."""
    return search(directory, model, scenario, mistake, cycles=True)


def mistakes_of(model: Path) -> dict[str, int]:
    """The names of a model's mistakes, "none" included, and spin's numbers of them: its only mtype lists them."""
    mtype = re.search(r"mtype = \{(.*?)\}", model.read_text(), re.DOTALL)
    if mtype is None:
        return {}
    names = re.findall(r"\w+", re.sub(r"/\*.*?\*/", "", mtype[1], flags=re.DOTALL))
    return {name: len(names) - index for index, name in enumerate(names)}  # spin begins with the last one


def _built(directory: Path, model: Path, scenario: Mapping[str, int], *, cycles: bool) -> Path:
    """The verifier for a scenario, built in `directory` unless it exists, which other processes may want as well."""
    made_of = [model.read_bytes(), Path(__file__).read_bytes(), repr((sorted(scenario.items()), cycles)).encode()]
    verifier = _VERIFIERS / f"{model.stem}-{hashlib.sha256(b'|'.join(made_of)).hexdigest()[:16]}"
    _VERIFIERS.mkdir(parents=True, exist_ok=True)
    with verifier.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not verifier.exists():
            _build(directory, model, scenario, cycles=cycles)
            (directory / "pan").rename(verifier)
    return verifier


def _build(directory: Path, model: Path, scenario: Mapping[str, int], *, cycles: bool) -> None:
    """Build the verifier `pan` in `directory`."""
    _run(directory, "spin", "-a", *(f"-D{name}={value}" for name, value in scenario.items()), str(model))
    _tell_it_the_mistake(directory / "pan.c", mistakes_of(model))
    if cycles:
        _make_cycles_errors(directory / "pan.c")
    # The compiler takes longer to optimise a verifier than that saves in its search.
    _run(directory, "cc", "-O0", "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MAX_MIB}", "-o", "pan", "pan.c")


def _tell_it_the_mistake(verifier: Path, mistakes: Mapping[str, int]) -> None:
    """Let the verifier take the number of its mistake from the environment."""
    source = verifier.read_text()
    for name, number in mistakes.items():
        assert f'case {number}: Printf("{name}")' in source, "another version of spin: how does it number an mtype?"
    assert source.count(_NO_MISTAKE_YET) == bool(mistakes), "another version of spin: how does it begin?"
    verifier.write_text(source.replace(_NO_MISTAKE_YET, '\t\tmistake = atoi(getenv("MISTAKE"));'))


def _make_cycles_errors(verifier: Path) -> None:
    """Let the search in depth stop at a state that is on its stack: there is a cycle exactly if it meets one.

    spin's own search for cycles (-DNP, -l) has a never claim, which doubles the states, and takes three times as long.
    """
    source = verifier.read_text()
    assert source.count(_STATE_IS_KNOWN) == 1, "another version of spin: how does its verifier treat known states?"
    verifier.write_text(source.replace(_STATE_IS_KNOWN, f'{_STATE_IS_KNOWN} if (II == 2) uerror("cycle");'))


def _run(directory: Path, *command: str, **environment: str) -> str:
    """Run `command` in `directory`, and return its output."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=scaled(300),
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
