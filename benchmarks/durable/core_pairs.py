"""The core alone, with group commit or an fdatasync for each flush: pairs.c, compiled with the product's files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
_CORE: Final = HERE.parents[1] / "aiod" / "core"
_SOURCES: Final = sorted(source for room in ("ops", "pool", "util") for source in _CORE.glob(f"{room}/*.c"))
_INCLUDES: Final = (f"-I{_CORE}", f"-I{HERE.parents[1] / 'protocol'}")
_FLAGS: Final = ("-std=c11", "-D_GNU_SOURCE", "-pthread", "-Wall", "-Wextra", *_INCLUDES)


def build(directory: Path, optimisation: str = "-O2") -> Path:
    """Compile the program in `directory`. Raises CalledProcessError if the compiler fails."""
    program = directory / "pairs"
    sources = [*map(str, _SOURCES), str(HERE / "pairs.c")]
    subprocess.run(
        [os.environ.get("CC", "cc"), *_FLAGS, optimisation, *sources, "-luring", "-o", str(program)], check=True
    )
    return program


def pairs_per_s(program: Path, policy: str, tasks: int, seconds: float, file: Path) -> float:
    """The figures of one run with `policy`: "group" or "own"."""
    command = [str(program), policy, str(tasks), str(seconds), str(file)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
