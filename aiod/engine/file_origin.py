"""Whether a file that a client reopens is the one that it had open: with an earlier engine, or with another daemon.

A file is known by (device, inode, generation); the generation is a hash of what tells it from a later file with the
same numbers. Where a server says who the file is (NFS, CephFS, GlusterFS, ...), the same hash stands for the device
(core/path/file_id.h).

All three have to be equal. That is enough where one kernel has counted the devices. For a file that was opened on
another host it proves nothing: a disk that was cloned has the same numbers on both, and so have two servers of which
one is a copy. There the administrator has to say that the two exports are one file system (`shared`), and the numbers
have to be those of a server.

What OPEN's REPLY calls the file's origin says which kernel and which shared file system it was. Clients hand it back
unread.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiod.engine.file_requests import ReopenRequest

Identity = tuple[int, int, int]
"""Device, inode, generation."""

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_PART_BYTES: Final = 16

ANOTHER_FILE: Final = "another file has this name now"
CANNOT_TELL: Final = "the file system cannot tell whether it is the same file (no file handles, no birth times)"
CANNOT_TELL_HERE: Final = (
    "it was opened on another host, and the file system gives its files no numbers that are the same on both"
)
OTHER_HOST: Final = (
    "it was opened on another host, and the two exports are not known to be one file system: if they are, set `shared`"
    " of both to the same name, and reload"
)


def origin_of(shared: str) -> bytes:
    """The origin of the files of an export whose `shared` is this ("": none): of the kernel, and of the name."""
    return _kernel() + (_hash(shared) if shared else b"")


def doubt(file: Identity, opened: ReopenRequest, origin: bytes) -> str:
    """Why `file`, opened by name in an export of `origin`, may not be the one of `opened`; "": it is that file."""
    before = opened.dev, opened.ino, opened.generation
    if opened.origin is not None and opened.origin[:_PART_BYTES] != origin[:_PART_BYTES]:
        shared = opened.origin[_PART_BYTES:]
        if not shared or shared != origin[_PART_BYTES:]:
            return OTHER_HOST
        if file == before and file[0] != file[2]:
            return CANNOT_TELL_HERE
    return _doubt(file, before)


def _doubt(file: Identity, before: Identity) -> str:
    """Why the numbers do not say that it is the same file; a generation of 0 is not known."""
    if file != before:
        return ANOTHER_FILE
    return CANNOT_TELL if file[2] == 0 else ""


@functools.cache
def _kernel() -> bytes:
    try:
        return _hash(Path(_BOOT_ID).read_text())
    except OSError:  # equal to no other kernel then: only `shared` helps
        return secrets.token_bytes(_PART_BYTES)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_PART_BYTES]
