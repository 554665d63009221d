"""Many clients of one engine, by fleet.c, and the daemon's cost."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.matrix import cost

if TYPE_CHECKING:
    from benchmarks.own_daemon import OwnDaemon

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
_FLAGS: Final = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Werror",
    f"-I{ROOT}/clients/c/include",
)
_GRACE_S: Final = 120.0


def build(directory: Path, optimisation: str = "-O2") -> Path:
    """Compile the program in `directory`, with libaiod's files. Raises CalledProcessError if the compiler fails."""
    program = directory / "fleet"
    library = sorted(source for source in (ROOT / "clients" / "c").glob("*.c") if source.name != "aiod-bench.c")
    sources = [str(HERE / "fleet.c"), *map(str, library)]
    subprocess.run([os.environ.get("CC", "cc"), *_FLAGS, optimisation, *sources, "-o", str(program)], check=True)
    return program


class Fleet:
    """The clients of one daemon."""

    def __init__(self, program: Path, daemon: OwnDaemon, file: str) -> None:
        """`file` is EXPORT/PATH."""
        self._program = program
        self._daemon = daemon
        self._file = file

    def run(self, *, busy: int, idle: int, seconds: float, cpus: str = "") -> dict[str, float]:
        """The figures of one run; `cpus` limits the clients, as taskset's mask does. RuntimeError if a client fails."""
        command = [str(self._program), self._daemon.endpoint, self._file, str(seconds), str(busy), str(idle)]
        with subprocess.Popen(
            [*(["taskset", cpus] if cpus else []), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            if process.stdout is not None:
                process.stdout.readline()  # all rings are attached
            before = cost.of_threads(self._daemon.pids())
            said, complaint = process.communicate(timeout=seconds + _GRACE_S)
        if process.returncode:
            raise RuntimeError(complaint.strip() or f"fleet ended with status {process.returncode}")
        figures: dict[str, float] = json.loads(said)
        spent = cost.between(before, cost.of_threads(self._daemon.pids()))
        return figures | {
            "daemon_cpu_us": spent.cpu_s * 1e6 / figures["operations"],
            "daemon_switches": spent.switches / figures["operations"],
        }
