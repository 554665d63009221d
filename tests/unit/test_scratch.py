"""The embedded default's scratch directory is on a real file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiod.config import scratch


def test_scratch_is_not_on_a_memory_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    if scratch.file_system(Path("/dev/shm")) != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/shm/state")
    assert scratch.file_system(scratch.scratch_path()) not in {"tmpfs", "ramfs"}


def test_scratch_is_in_the_users_state_directory(monkeypatch: pytest.MonkeyPatch, disk_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(disk_path))
    assert scratch.scratch_path() == disk_path / "aiod" / "scratch"


def test_scratch_of_a_user_without_home_is_in_var_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError  # as Path.home() does

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.setattr(Path, "home", homeless)
    assert scratch.scratch_path() == Path("/var/tmp/aiod-54321/scratch")


def test_scratch_is_created_for_its_user_only(disk_path: Path) -> None:
    scratch.make(disk_path / "state" / "scratch")
    assert (disk_path / "state" / "scratch").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("trap", ["symlink", "file"])
def test_a_scratch_directory_of_another_user_is_refused(
    monkeypatch: pytest.MonkeyPatch, disk_path: Path, trap: str
) -> None:
    place = disk_path / "aiod-1"
    if trap == "symlink":
        place.symlink_to(disk_path)
    else:
        place.touch()
    monkeypatch.setattr(scratch, "_last_resort", lambda: place / "scratch")
    with pytest.raises(OSError, match="aiod-1"):
        scratch.make(place / "scratch")
    assert not (disk_path / "scratch").exists()


def test_the_file_system_of_a_missing_path_is_that_of_its_parent() -> None:
    assert scratch.file_system(Path("/proc/absent/deeper")) == "proc"
