"""Type checkers find the mistakes of a user's program, and infer the types that it relies on."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.patience import scaled

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = Path(__file__).parent / "user_types" / "program.py"


def test_mypy_strict_accepts_a_users_program_with_its_mistakes_marked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", str(PROGRAM)]
    done = subprocess.run(
        [*command, f"--cache-dir={tmp_path}"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": f"{ROOT}/clients/python:{ROOT}/protocol"},
        capture_output=True,
        text=True,
        timeout=scaled(250),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(importlib.util.find_spec("basedpyright") is None, reason="basedpyright (300 MB) is not installed")
def test_pyright_strict_accepts_it_too(tmp_path: Path) -> None:
    shutil.copy(PROGRAM, tmp_path)
    settings = {
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "extraPaths": [f"{ROOT}/clients/python", f"{ROOT}/protocol"],
        "include": [PROGRAM.name],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--project", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=scaled(250),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
