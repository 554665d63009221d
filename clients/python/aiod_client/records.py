"""What the daemon tells of files: the results of stat(), extents() and list()."""

from __future__ import annotations

import errno
import os
import posixpath
import struct
from typing import Any, Final, Generic, NamedTuple, TypeVar

from aiod_client.errors import ProtocolError
from aiod_protocol import wire
from aiod_protocol.listings import kind_of, split_page

_STAT_BYTES: Final = wire.STAT.size
_SIZE_AND_MODE: Final = struct.Struct("<Q48xI20x")
"""Of the record of STAT."""
_NOT_EXAMINED: Final = bytes(_STAT_BYTES)
"""The record of a name that the daemon could not examine."""
_UNPACK_STAT: Final = wire.STAT.unpack_from
_RECORD_OF_STAT: Final = wire.STAT.unpack
_NEW_TUPLE: Final = tuple.__new__


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

    @property
    def kind(self) -> str:
        """As Entry.kind."""
        return kind_of(self.mode)


class Extent(NamedTuple):
    """A part of a file that is all data or all hole (it reads as zeroes)."""

    offset: int
    length: int
    hole: bool


class _NameKindSize(NamedTuple):
    name: str
    kind: str
    size: int


class Entry(_NameKindSize):
    """One name of a directory: a tuple (name, kind, size), with the properties of the name besides.

    A `name` that is not UTF-8 comes as os.fsdecode() has it; no request can name it. `kind` is "file", "dir", "link",
    "block" or "other".
    """

    _record: bytes | None = None

    @property
    def stat(self) -> FileStat | None:
        """The properties of the name itself, also of a symbolic link. None: it could not be examined, or
        the daemon is an older one that sends none.
        """
        record = self._record
        return None if record is None or record == _NOT_EXAMINED else FileStat._make(wire.STAT.unpack(record))

    @property
    def mtime_ns(self) -> int | None:
        """When the content has changed last (ns since 1970); None as `stat`."""
        found = self.stat
        return None if found is None else found.mtime_ns


class Source(NamedTuple):
    """Where the entries of a page come from."""

    client: Any
    timeout: float | None
    directory: str
    records: bytes
    """Empty: an older daemon sends none."""


class BaseDirEntry:
    """One name of a directory, as scandir() of either client gives it; the properties come with the listing."""

    __slots__ = ("_at", "_source", "kind", "name", "size")

    def __init__(self, source: Source, name: str, kind: str, size: int, at: int) -> None:
        """`at`: where the record of the name is."""
        self._source = source
        self._at = at
        self.name = name
        """One that is not UTF-8 comes as os.fsdecode() has it; no request can name it."""
        self.kind = kind
        """As Entry.kind: that of a symbolic link is "link"."""
        self.size = size
        """Bytes; of a symbolic link those of its target's name."""

    @property
    def path(self) -> str:
        """The name after the path that was given to scandir()."""
        return posixpath.join(self._source.directory, self.name)

    def __fspath__(self) -> str:
        """The path."""
        return self.path

    def __repr__(self) -> str:
        """The name and the kind."""
        return f"<aiod_client.DirEntry {self.name!r} {self.kind}>"

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.kind == "link"

    @property
    def mtime_ns(self) -> int | None:
        """When the content has changed last (ns since 1970); None as Entry.stat."""
        found = self._own_stat()
        return None if found is None else found.mtime_ns

    def _own_stat(self) -> FileStat | None:
        """The properties of the name itself; None: the daemon could not examine it, or is older."""
        records = self._source.records
        if not records:
            return None
        found = FileStat._make(_UNPACK_STAT(records, self._at))
        return found if found.mode else None


EntryType = TypeVar("EntryType", bound=BaseDirEntry)


class Page(NamedTuple, Generic[EntryType]):
    """A part of a directory."""

    entries: list[EntryType]
    following: int | None
    """The cursor of the next page."""


def parse_stat(data: bytes | memoryview) -> FileStat:
    """Parse the payload of STAT. Raises struct.error."""
    return _NEW_TUPLE(FileStat, _RECORD_OF_STAT(data))  # as FileStat._make(), without another call in Python


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
        if "names" in body:
            return _entries(body["names"], body["stats"]), body["next"]
        return [Entry(os.fsdecode(name), kind, size) for name, kind, size in body["entries"]], body["next"]
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise _broken("list", error) from error


def parse_dir_entries(
    kind: type[EntryType], client: Any, timeout: float | None, directory: str, body: Any
) -> Page[EntryType]:
    """One page of `list` as entries of `kind`. Raises ProtocolError."""
    try:
        following: int | None = body["next"]
        if "names" not in body:
            old = Source(client, timeout, directory, b"")
            return Page(
                [kind(old, os.fsdecode(name), what, size, 0) for name, what, size in body["entries"]], following
            )
        names, records = split_page(body["names"], body["stats"]), body["stats"]
        source = Source(client, timeout, directory, records)
        places = range(0, len(records), _STAT_BYTES)
        columns = zip(names, places, _SIZE_AND_MODE.iter_unpack(records), strict=True)
        return Page([kind(source, name, kind_of(mode), size, at) for name, at, (size, mode) in columns], following)
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise _broken("list", error) from error


def _entries(column: bytes, stats: bytes) -> list[Entry]:
    entries = []
    for number, name in enumerate(split_page(column, stats)):
        record = stats[number * _STAT_BYTES : (number + 1) * _STAT_BYTES]
        size, mode = _SIZE_AND_MODE.unpack(record)
        entry = Entry(name, kind_of(mode), size)
        entry._record = record  # noqa: SLF001 - one module
        entries.append(entry)
    return entries


def parse_stat_body(body: Any) -> FileStat:
    """Parse the answer to `stat`. Raises ProtocolError."""
    try:
        return parse_stat(body["stat"])
    except (LookupError, TypeError, struct.error) as error:
        raise _broken("stat", error) from error


def _broken(verb: str, error: Exception) -> ProtocolError:
    return ProtocolError(errno.EPROTO, f"the daemon broke the protocol: its answer to {verb}: {error!r}")


class Counters(NamedTuple):
    """What a client has done so far, over all its sessions."""

    requests_by_ring: int = 0
    """Requests done by rings."""
    messages: int = 0
    """Requests sent by message, each part and each OPEN, CLOSE or directory operation counted."""
    retries: int = 0
    """Requests that were sent again because their engine had gone without an answer."""
    pauses: int = 0
    """How often a session has lost its engine and looked for another."""
    failovers: int = 0
    """How often a session has continued at another daemon."""

    def plus(self, other: Counters) -> Counters:
        """The sums."""
        return Counters(*map(sum, zip(self, other, strict=True)))
