"""The kinds of a directory's entries: the documentation has the words of the core and of the client."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from aiod_client import Entry
from aiod_protocol.listings import kind_of

ROOT = Path(__file__).parents[2]


def words(text: str, pattern: str, quote: str) -> list[str]:
    (found,) = re.findall(pattern, text, re.DOTALL)
    return re.findall(rf"{quote}(\w+){quote}", found)


def test_the_documentation_names_the_kinds_that_a_listing_has() -> None:
    modes = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK, 0)
    kinds = list(dict.fromkeys(map(kind_of, modes)))
    assert kinds == ["file", "dir", "link", "block", "other"]
    assert words((ROOT / "docs" / "operations.md").read_text(), r"`kind` is\s(.*?)\.", "`") == kinds
    assert words(Entry.__doc__ or "", r"`kind` is\s(.*?)\.", '"') == kinds
    assert Entry._fields == ("name", "kind", "size")
