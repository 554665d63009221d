"""The policies under test: the core file that each replaces, its build, and one burst with it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final, NamedTuple

HERE: Final = Path(__file__).parent
CORE: Final = HERE.parent.parent / "aiod" / "core"
_CORE_SOURCES: Final = sorted((*CORE.glob("pool/*.c"), *CORE.glob("util/*.c")))
_REPLACED: Final = {"wake_each.c": "pool.c"}
_FLAGS: Final = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-pthread",
    "-Wall",
    "-Wextra",
    f"-I{CORE}",
    f"-I{CORE.parent.parent / 'protocol'}",
    f"-I{HERE}",
)
_WRAP: Final = "-Wl,--wrap=pthread_mutex_lock,--wrap=pthread_mutex_unlock"


class Variant(NamedTuple):
    """A policy with its constants."""

    name: str
    policies: tuple[str, ...]
    """Files of policies/, each in place of spawner.c or of what _REPLACED says."""
    defines: tuple[str, ...] = ()
    preallocated: bool = False
    """min_threads is as large as the burst."""

    @property
    def program(self) -> str:
        """File name of the variant's program."""
        return self.name.translate({ord(" "): "-", ord(","): None})


_ONE: Final = ("AIOD_SPAWN_FAN_OUT=1u", "AIOD_WAKE_FAN_OUT=1u")
_TWO: Final = ("AIOD_SPAWN_FAN_OUT=2u", "AIOD_WAKE_FAN_OUT=2u")

VARIANTS: Final = (
    Variant("submitter", ("submitter.c",)),
    Variant("snapshot", ("submitter.c",), ("SNAPSHOT",)),
    Variant("one creator", ("creator.c",)),
    Variant("main-loop, fan-out 1", ("main_loop.c",), _ONE),
    Variant("main-loop, fan-out 2", ("main_loop.c",), _TWO),
    Variant("preallocated, each woken", ("main_loop.c", "wake_each.c"), preallocated=True),
    Variant("preallocated, fan-out 1", ("main_loop.c",), _ONE, preallocated=True),
    Variant("preallocated, fan-out 2", ("main_loop.c",), _TWO, preallocated=True),
)


def build(variant: Variant, directory: Path, optimisation: str = "-O2") -> Path:
    """Compile `variant` into `directory`. Raises CalledProcessError if the compiler fails."""
    replaced = {_REPLACED.get(policy, "spawner.c") for policy in variant.policies}
    sources = [
        *(source for source in _CORE_SOURCES if source.name not in replaced),
        *(HERE / "policies" / name for name in variant.policies),
        HERE / "burst.c",
        HERE / "lock_watch.c",
    ]
    program = directory / variant.program
    defines = [f"-D{define}" for define in variant.defines]
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, *_FLAGS, optimisation, *defines, *map(str, sources), "-luring", _WRAP, "-o", str(program)],
        check=True,
    )
    return program


class Burst(NamedTuple):
    """The arguments of burst.c."""

    requests: int
    service_us: int
    submitter_cpu: int
    moved_to_cpu: int | None = None
    """The CPU that the main loop moves to after the pool was created; None: it stays."""


def run(variant: Variant, program: Path, burst: Burst) -> dict[str, Any]:
    """One burst in a process of its own; burst.c's figures. Raises CalledProcessError, TimeoutExpired."""
    command = [
        str(program),
        str(burst.requests),
        str(burst.requests if variant.preallocated else 0),
        str(burst.service_us),
        str(burst.submitter_cpu),
        str(-1 if burst.moved_to_cpu is None else burst.moved_to_cpu),
    ]
    printed = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    figures: dict[str, Any] = json.loads(printed)
    return figures
