"""libaiod's object files of `make core-build`, plain and for the sanitizers: to compile them again takes seconds."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
INCLUDE: Final = ROOT / "clients" / "c" / "include"

_SOURCES: Final = sorted(path for path in (ROOT / "clients" / "c").glob("*.c") if path.name != "aiod-bench.c")
_VARIANTS: Final = {"": "plain", "thread": "tsan", "address,undefined": "asan"}
"""The folder of build/core for each value of -fsanitize."""


def libaiod_objects(sanitizer: str = "") -> list[Path]:
    """The objects, for programs that are linked with this -fsanitize."""
    directory = Path("build", "core", _VARIANTS[sanitizer])
    objects = [directory / source.relative_to(ROOT).with_suffix(".o") for source in _SOURCES]
    (ROOT / directory).mkdir(parents=True, exist_ok=True)
    with (ROOT / directory / ".lock").open("w") as lock:  # for other processes of pytest-xdist
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--silent", "--jobs=2", *map(str, objects)], cwd=ROOT, check=True)
    return [ROOT / each for each in objects]


def build_with_libaiod(program: Path, source: Path, sanitizer: str = "") -> Path:
    """Compile the C program and link it with libaiod. Raises CalledProcessError if the compiler fails."""
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-pthread", "-Wall", "-Wextra", f"-I{INCLUDE}"]
    flags += [f"-fsanitize={sanitizer}"] if sanitizer else []
    command = [os.environ.get("CC", "cc"), *flags, str(source), *map(str, libaiod_objects(sanitizer))]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program
