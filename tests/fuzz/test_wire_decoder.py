"""The fuzzer of the wire's decoders, for a while (AIOD_FUZZ_SECONDS, else 5). What it finds stays with the test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("AIOD_FUZZ_SECONDS", "5"))
MEMORY_MAX_MIB = 1500


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed (make .venv/.fuzz)")
@pytest.mark.timeout(SECONDS + 120)
def test_nothing_a_stranger_sends_is_a_surprise(tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    command = [
        sys.executable,
        *("-m", "tests.fuzz.wire_decoder"),
        f"-max_total_time={SECONDS}",
        f"-rss_limit_mb={MEMORY_MAX_MIB}",
        str(found),
        str(HERE / "corpus"),
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=SECONDS + 100,
        check=False,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    coverage = re.search(r"cov: (\d+)", done.stderr)
    assert runs is not None, done.stderr[-4000:]
    assert int(runs[1]) > 1000
    assert coverage is not None  # it is guided
    assert int(coverage[1]) > 50
