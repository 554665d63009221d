"""A page of a directory's names, as REPLY to `list` has it: names and records of STAT in two columns."""

from __future__ import annotations

import os
import stat
from typing import Any, Final

from aiod_protocol.wire import STAT, WireError

_KIND_BITS: Final = 0o170000
"""As stat.S_IFMT(), which takes longer."""
_KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFBLK: "block"}


def kind_of(mode: int) -> str:
    """The kind of a file of `mode`: "file", "dir", "link", "block" or "other", also if it could not be examined."""
    return _KINDS.get(mode & _KIND_BITS, "other")


def split_page(column: Any, stats: Any) -> list[str]:
    """The names of a page. One that is not UTF-8 comes as os.fsdecode() has it.

    Raises WireError unless each of them ends with a zero byte, and has a record of STAT in `stats`.
    """
    if type(column) is not bytes or type(stats) is not bytes:
        raise WireError("a page's columns are not binary")
    if len(stats) != column.count(0) * STAT.size or column[-1:] not in (b"", b"\0"):
        raise WireError(f"{column.count(0)} names, and {len(stats)} bytes of records")
    return os.fsdecode(column[:-1]).split("\0") if column else []


def page_entries(names: bytes, stats: bytes) -> list[tuple[str | bytes, str, int]]:
    """The same page as (name, kind, size), for clients that know no records."""
    columns = zip(names.split(b"\0")[:-1], STAT.iter_unpack(stats), strict=True)
    return [(_text_of(name), kind_of(record[7]), record[0]) for name, record in columns]


def _text_of(name: bytes) -> str | bytes:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name
