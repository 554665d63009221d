"""Runs resuming.c, a program with libaiod that executes commands or generates load."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.libaiod_objects import build_with_libaiod
from tests.patience import scaled

_SOURCE: Final = Path(__file__).with_name("resuming.c")


def build_program(directory: Path, sanitizer: str) -> Path:
    """Build it in `directory`, once, with a sanitizer or none ("")."""
    program = directory / f"resuming-{sanitizer}"
    return program if program.exists() else build_with_libaiod(program, _SOURCE, sanitizer)


class Program:
    """A running resuming.c."""

    def __init__(self, program: Path, daemon: Any, *arguments: str) -> None:
        """Start it with the command line `arguments`."""
        self.process = subprocess.Popen(
            [program, *arguments],
            env=os.environ | {"AIOD_ENDPOINT": daemon.endpoint},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, *words: object) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, *words: object) -> int:
        """Send a command; returns the number that it answers."""
        self.send(*words)
        return int(self.answer().split()[0])

    def finish(self) -> dict[str, int]:
        """End its load; returns its counts."""
        out, _ = self.process.communicate(timeout=scaled(60))
        assert self.process.returncode == 0, out
        return dict(json.loads(out))

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        self.process.kill()
        self.process.communicate()
