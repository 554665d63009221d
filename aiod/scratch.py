"""Where the embedded default keeps its scratch export: on a real file system, where a flush means something."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def scratch_path() -> Path:
    """The first of the user's state directories that is not in memory: nothing is created."""
    return next((path for path in _candidates() if file_system(path) not in _MEMORY_FILE_SYSTEMS), _last_resort())


def _candidates() -> list[Path]:
    if state := os.environ.get("XDG_STATE_HOME"):
        return [Path(state) / "aiod" / "scratch", _last_resort()]
    if os.getuid() == 0:
        return [Path("/var/lib/aiod/scratch"), _last_resort()]
    return [Path.home() / ".local" / "state" / "aiod" / "scratch", _last_resort()]


def _last_resort() -> Path:
    return Path(f"/var/tmp/aiod-{os.getuid()}/scratch")  # noqa: S108 - made with mode 0700, and refused if another's


def file_system(path: Path) -> str:
    """Type of the file system that `path` is on, or would be: "ext4", "tmpfs"."""
    existing = next(place for place in (path, *path.parents) if place.exists())
    device = existing.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return "unknown"
