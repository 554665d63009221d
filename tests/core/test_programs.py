"""The C tests of the native core, each plain and under the sanitizers. `make core-test` runs them without Python."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
VARIANTS: Final = ("tsan", "asan", "plain")
PROGRAMS: Final = sorted(path.stem for path in HERE.glob("test_*.c"))
LIMIT_S: Final = 300
"""The limit of run.sh for one program."""
SKIPPED: Final = " skipped: "


@pytest.fixture(scope="session")
def build() -> Callable[[str], Path]:
    """Builds a variant's programs, unless they are built; returns their directory."""
    built: set[str] = set()

    def make(variant: str) -> Path:
        directory = ROOT / "build" / "core" / variant
        if variant not in built:
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / ".lock").open("w") as lock:  # for other processes of pytest-xdist
                fcntl.flock(lock, fcntl.LOCK_EX)
                command = ["make", "--silent", "--jobs=2", f"core-build-{variant}"]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            built.add(variant)
        return directory

    return make


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_program_succeeds(build: Callable[[str], Path], variant: str, program: str) -> None:
    command = [str(HERE / "run.sh"), variant, str(build(variant) / program)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=2 * scaled(LIMIT_S), errors="replace", check=False
    )
    if SKIPPED in done.stdout:
        pytest.skip(done.stdout.splitlines()[0].split(SKIPPED)[1])
    assert done.returncode == 0, done.stdout + done.stderr
