"""The Python programs in README.md and docs/python.md run with the real daemon, in the order of the page."""

from __future__ import annotations

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


@pytest.mark.parametrize(("page", "count"), [("README.md", 2), ("docs/python.md", 4)])
def test_the_programs_of_the_page_run(daemon: Daemon, page: str, count: int) -> None:
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert len(programs) == count
    for program in programs:
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
