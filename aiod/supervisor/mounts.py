"""The type of the file system that a path is on, from the table of mounts: a file system that is asked may hang."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

_MOUNTINFO: Final = Path("/proc/self/mountinfo")


class _Mount(NamedTuple):
    point: PurePosixPath
    kind: str


def file_system_of(path: str, mountinfo: str | None = None) -> str:
    """The type, such as ext4 or fuse.glusterfs. Symbolic links in `path` are not followed.

    `mountinfo`: the table; by default the kernel's.
    """
    wanted = PurePosixPath(path)
    kind = ""
    depth = 0
    for mount in _mounts(_MOUNTINFO.read_text(errors="surrogateescape") if mountinfo is None else mountinfo):
        if len(mount.point.parts) >= depth and wanted.is_relative_to(mount.point):  # a later one covers an earlier one
            depth, kind = len(mount.point.parts), mount.kind
    return kind


def _mounts(mountinfo: str) -> list[_Mount]:
    """The mounts of proc_pid_mountinfo(5), in its order."""
    found = []
    for line in mountinfo.splitlines():
        words, _, rest = line.partition(" - ")
        found.append(_Mount(PurePosixPath(_unescape(words.split(" ")[4])), rest.split(" ")[0]))
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
