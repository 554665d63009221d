"""Directory of the embedded default's export `scratch`: on a disk, so that a flush has a meaning."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def scratch_path() -> Path:
    """The user's state directory, or one in /var/tmp if it is in memory or not writable. Creates nothing."""
    wanted = _state_path()
    return wanted if wanted is not None and _usable(wanted) else _last_resort()


def make(path: Path) -> None:
    """Create the directory `path` of `scratch_path`. Raises OSError, also for another user's directory."""
    if path == _last_resort():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        status = path.parent.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it is not a directory of this user", str(path.parent))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _state_path() -> Path | None:
    if state := os.environ.get("XDG_STATE_HOME"):
        return Path(state) / "aiod" / "scratch"
    if os.getuid() == 0:
        return Path("/var/lib/aiod/scratch")
    try:
        return Path.home() / ".local" / "state" / "aiod" / "scratch"
    except RuntimeError:
        return None  # a user without a home


def _usable(path: Path) -> bool:
    """Whether it can be created and written to, and survives a reboot."""
    return os.access(_existing(path), os.W_OK | os.X_OK) and file_system(path) not in _MEMORY_FILE_SYSTEMS


def _last_resort() -> Path:
    return Path(f"/var/tmp/aiod-{os.getuid()}/scratch")  # noqa: S108 - made with mode 0700, and refused if another's


def _existing(path: Path) -> Path:
    """The nearest existing ancestor; a directory without search permission counts as missing."""
    return next(place for place in (path, *path.parents) if os.access(place, os.F_OK))


def file_system(path: Path) -> str:
    """Type of the file system that `path` is on, or would be: "ext4", "tmpfs"."""
    existing = _existing(path)
    device = existing.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return "unknown"
