"""Programs that measure and print one JSON document: aiod-bench, and the loops in Python."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
_GRACE_S: Final = 60.0


def figures_of(command: list[str], seconds: float) -> dict[str, Any]:
    """Run `command`, which measures for `seconds`; its document. RuntimeError with its last line if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + _GRACE_S,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(said[-1] if said else f"{command[0]} ended with status {done.returncode}")
    return dict(json.loads(done.stdout))
