"""Imports point one way (pyproject.toml, tool.importlinter; docs/architecture.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_an_engine_process_imports_no_large_libraries() -> None:
    """Also not indirectly: importing the engine's entry loads none of these libraries."""
    program = "import sys, aiod.engine_api.launch, aiod.engine.process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"aiod_client", "pydantic", "pydantic_core", "click", "rich", "psutil"})


def test_the_client_imports_nothing_of_the_daemon() -> None:
    program = "import sys, aiod_client, aiod_client.aio; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"aiod", "uvloop", "pydantic", "click", "rich", "psutil"})
