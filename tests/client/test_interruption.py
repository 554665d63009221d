"""The tool of the tests of Ctrl-C does no harm of its own, and interrupts the same places in each run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.patience import scaled

ROOT: Final = Path(__file__).parents[2]


def test_no_garbage_is_collected_before_an_interruption() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.interrupted_collection"],
        cwd=ROOT,
        env=os.environ | {"PYTHONMALLOC": "debug"},  # overwrites freed memory
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
