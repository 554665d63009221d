"""What the daemon tells of files: the results of stat(), extents() and list()."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any, NamedTuple

from aiod_client.errors import ProtocolError
from aiod_protocol import wire


class FileStat(NamedTuple):
    """A file's properties, as docs/operations.md defines them. Sizes in bytes, times in ns since 1970."""

    size: int
    allocated: int
    """Bytes that it takes on disk."""
    device: int
    inode: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    """As stat.S_ISREG() and its like want it: kind of file and permission bits."""
    links: int
    uid: int
    gid: int
    block_size: int
    """What offsets and lengths should be multiples of: a device's logical block, what O_DIRECT wants, else 1."""
    io_size: int
    """Preferred size of one read or write."""


class Extent(NamedTuple):
    """A part of a file that is all data or all hole (it reads as zeroes)."""

    offset: int
    length: int
    hole: bool


class Entry(NamedTuple):
    """One name of a directory."""

    name: str
    """One that is not UTF-8 comes as os.fsdecode() has it; no request can name it."""
    kind: str
    """"file", "dir", "link", "block" or "other"."""
    size: int


def parse_stat(data: bytes | memoryview) -> FileStat:
    """Parse the payload of STAT. Raises struct.error."""
    return FileStat(*wire.STAT.unpack(data))


def parse_extents(data: bytes | memoryview, offset: int) -> list[Extent]:
    """Parse the payload of EXTENTS, requested from `offset` on. Raises struct.error, or WireError for too many."""
    if len(data) > wire.EXTENTS_MAX * wire.EXTENT.size:
        raise wire.WireError(f"{len(data)} bytes of extents: at most {wire.EXTENTS_MAX} extents")
    extents = []
    for length, flags in wire.EXTENT.iter_unpack(data):
        extents.append(Extent(offset, length, bool(flags & wire.EXTENT_HOLE)))
        offset += length
    return extents


def parse_page(body: Any) -> tuple[list[Entry], int | None]:
    """One page of `list`: its entries, and the cursor of the next. Raises ProtocolError."""
    try:
        return [Entry(os.fsdecode(name), kind, size) for name, kind, size in body["entries"]], body["next"]
    except (LookupError, TypeError, ValueError) as error:
        raise _broken("list", error) from error


def parse_stat_body(body: Any) -> FileStat:
    """Parse the answer to `stat`. Raises ProtocolError."""
    try:
        return parse_stat(body["stat"])
    except (LookupError, TypeError, struct.error) as error:
        raise _broken("stat", error) from error


def _broken(verb: str, error: Exception) -> ProtocolError:
    return ProtocolError(errno.EPROTO, f"the daemon broke the protocol: its answer to {verb}: {error!r}")
