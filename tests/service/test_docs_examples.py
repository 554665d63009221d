"""The Python programs in README.md, docs/python.md and docs/data.md run with the real daemon, in order."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.patience import scaled

if TYPE_CHECKING:
    from tests.conftest import Daemon

ROOT: Final = Path(__file__).parents[2]


def programs_of(page: str) -> list[str]:
    """The programs of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def run(daemon: Daemon, program: str) -> None:
    """Run a program with the daemon as the default."""
    done = subprocess.run(
        [sys.executable, "-c", f"import aiod_client\n{program}"],
        cwd=ROOT,
        env=os.environ | {"AIOD_ENDPOINT": daemon.endpoint},
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 0, f"{program}\n{done.stderr}"
    assert "ResourceWarning" not in done.stderr


@pytest.mark.parametrize(("page", "count"), [("README.md", 2), ("docs/python.md", 7)])
def test_the_programs_of_the_page_run(daemon: Daemon, page: str, count: int) -> None:
    programs = programs_of(page)
    assert len(programs) == count
    for program in programs:
        run(daemon, program)


@pytest.mark.parametrize("number", range(7))
def test_the_programs_with_data_libraries_run(shared_daemon: Daemon, number: int) -> None:
    programs = programs_of("docs/data.md")
    assert len(programs) == 7
    for name in re.findall(r"^(?:import|from) (\w+)", programs[number], re.MULTILINE):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: too large to be installed for one example")
    run(shared_daemon, programs[number])
