"""The system calls in the process, which aiod's clients are compared with, and the names of the files."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_by_os(path: str) -> bytes:
    """Open, read, close."""
    with Path(path).open("rb") as file:
        return file.read()


def write_by_os(path: str, data: bytes) -> None:
    """Write another file, and rename it."""
    Path(path + ".new").write_bytes(data)
    Path(path + ".new").rename(path)


def list_by_os(path: str) -> None:
    """The entries of a directory, with their stats."""
    with os.scandir(path) as entries:
        for entry in entries:
            entry.stat()


def open_by_os(path: str) -> None:
    """Open and close."""
    os.close(os.open(path, os.O_RDONLY))


def names_in(directory: str, files: int) -> Iterator[str]:
    """The files of a directory, over and over."""
    return itertools.cycle([f"{directory}/{number}" for number in range(files)])
