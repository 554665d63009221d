"""The kinds of a directory's entries: the documentation has the words of the core and of the client."""

from __future__ import annotations

import re
from pathlib import Path

from aiod_client import Entry

ROOT = Path(__file__).parents[2]


def words(text: str, pattern: str, quote: str) -> list[str]:
    (found,) = re.findall(pattern, text, re.DOTALL)
    return re.findall(rf"{quote}(\w+){quote}", found)


def test_the_documentation_names_the_kinds_that_a_listing_has() -> None:
    core = words((ROOT / "aiod" / "core" / "module.cpp").read_text(), r"kinds\[\] = \{(.*?)\};", '"')
    assert len(core) == len(set(core)) > 1
    assert words((ROOT / "docs" / "operations.md").read_text(), r"`kind` is\s(.*?)\.", "`") == core
    source = (ROOT / "clients" / "python" / "aiod_client" / "records.py").read_text()
    assert words(source, r'kind: str\n    """(.*?)\."""', '"') == core
    assert Entry._fields == ("name", "kind", "size")
