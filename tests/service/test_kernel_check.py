"""Without openat2, which confines clients to their exports, the daemon refuses to start."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import scaled

OPENAT2 = 437  # on every architecture
LAUNCHER = Path(__file__).with_name("seccomp.py")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_openat2_the_daemon_refuses_to_start(number: int, tmp_path: Path, disk_path: Path) -> None:
    runtime_dir = disk_path / "run"  # whose path is short
    config = tmp_path / "aiod.toml"
    config.write_text(f'runtime_dir = "{runtime_dir}"\n[exports.scratch]\npath = "{tmp_path}"\n')
    done = subprocess.run(
        [
            sys.executable,
            str(LAUNCHER),
            str(OPENAT2),
            str(number),
            sys.executable,
            "-m",
            "aiod",
            "--config",
            str(config),
        ],
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"openat2(2) cannot be used here: {os.strerror(number)}" in line
    assert "seccomp" in line
    assert "Linux 5.6" in line
    assert not runtime_dir.exists()
