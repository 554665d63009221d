"""Runs a program as another user of this host: its process drops root before the program begins."""

from __future__ import annotations

import os

import pytest

from tests.forked_program import run_forked
from tests.patience import scaled

NOBODY = 65534


def run_as(program: str, *arguments: str, uid: int, gid: int = NOBODY, groups: tuple[int, ...] = ()) -> str:
    """Run the Python source `program` as that user; its output. `arguments` are sys.argv[1:]. Skips without root."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    identity = ",".join(map(str, (uid, gid, *groups)))
    done = run_forked("tests.service.as_user", [identity, program, *arguments], scaled(60))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def open_to_all(daemon: object) -> None:
    """Start `daemon` so that every user of this host can connect."""
    daemon.runtime_dir.chmod(0o755)  # type: ignore[attr-defined]
    daemon.start(umask=0)  # type: ignore[attr-defined]
