"""The embedded default's scratch directory is on a real file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiod import scratch


def test_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    if scratch.file_system(Path("/dev/shm")) != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/shm/state")
    assert scratch.file_system(scratch.scratch_path()) not in {"tmpfs", "ramfs"}


def test_the_users_state_directory(monkeypatch: pytest.MonkeyPatch, disk_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(disk_path))
    assert scratch.scratch_path() == disk_path / "aiod" / "scratch"


def test_the_file_system_of_a_path_that_is_not_there_yet() -> None:
    assert scratch.file_system(Path("/proc/absent/deeper")) == "proc"
