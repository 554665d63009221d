"""A reap survives what it runs: the finalizer of a buffer that a read has filled may drop any request."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.patience import scaled

if TYPE_CHECKING:
    from tests.conftest import Daemon

ROOT: Final = Path(__file__).parents[2]


def test_a_reap_drops_requests_that_are_reaped_with_it(shared_daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.dropped_while_reaped", shared_daemon.endpoint, str(scaled(60))],
        cwd=ROOT,
        env=os.environ | {"MALLOC_PERTURB_": "85"},  # overwrites freed memory
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
