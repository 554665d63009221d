"""The machine of a run, and the versions of the peers."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from typing import Any, Final

from benchmarks.ring.in_python import SYSTEM_PYTHON

_PACKAGES: Final = ("aiofiles", "caio", "uvloop")
_COMMANDS: Final = {
    "fio": ["fio", "--version"],
    "nbdkit": ["nbdkit", "--version"],
    "qemu-nbd": ["qemu-nbd", "--version"],
    "libnbd, Python": [SYSTEM_PYTHON, "-c", "import nbd, sys; print(nbd.NBD().get_version(), 'on', sys.version)"],
}


def machine() -> dict[str, Any]:
    """The machine, and the peers' versions; None for what is not there."""
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: package(name) for name in _PACKAGES}
        | {name: said(command) for name, command in _COMMANDS.items()},
    }


def package(name: str) -> str | None:
    """Its release."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def said(command: list[str]) -> str | None:
    """Its first line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()[0]
