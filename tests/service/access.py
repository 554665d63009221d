"""Runs a program as another user of this host: its process drops root before the program begins."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.patience import scaled

NOBODY = 65534
_BECOME = """
import os, aiod_client
from aiod_client.session import handshake
handshake.software()  # imports its modules now, since the user below may not read them
os.setgroups({groups})
os.setresgid({gid}, {gid}, {gid})
os.setresuid({uid}, {uid}, {uid})
"""


def run_as(program: str, *arguments: str, uid: int, gid: int = NOBODY, groups: tuple[int, ...] = ()) -> str:
    """Run the Python source `program` as that user; its output. `arguments` are sys.argv[1:]. Skips without root."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    become = _BECOME.format(uid=uid, gid=gid, groups=list(groups))
    command = [sys.executable, "-c", f"{become}\nimport sys\n{program}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def open_to_all(daemon: object) -> None:
    """Start `daemon` so that every user of this host can connect."""
    daemon.runtime_dir.chmod(0o755)  # type: ignore[attr-defined]
    daemon.start(umask=0)  # type: ignore[attr-defined]
