"""What fsspec calls the info of a file: a dictionary, here of a FileStat or of a directory's entry."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiod_client.records import Entry, FileStat

Info = dict[str, Any]

_NS: Final = 1e9


def of_stat(name: str, found: FileStat) -> Info:
    """The info of the file `name`; the times are seconds since 1970, as those of fsspec's LocalFileSystem."""
    return {
        "name": name,
        "size": found.size,
        "type": _kind(found.mode),
        "created": found.ctime_ns / _NS,
        "mtime": found.mtime_ns / _NS,
        "mode": found.mode,
        "uid": found.uid,
        "gid": found.gid,
        "ino": found.inode,
        "nlink": found.links,
    }


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) or stat.S_ISBLK(mode) else "other"


def of_entry(name: str, entry: Entry) -> Info:
    """The info of an entry whose stat is not known: it has no times."""
    kind = {"dir": "directory", "file": "file", "block": "file"}.get(entry.kind, "other")
    return {"name": name, "size": entry.size, "type": kind}


def of_root() -> Info:
    """The info of the directory of exports, which no daemon has."""
    return {"name": "", "size": 0, "type": "directory"}


def missing(name: str) -> FileNotFoundError:
    """The exception for a path that leads nowhere."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
