"""Links in the documentation lead somewhere, and the paths and C names in it exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "clients" / "vectors").glob("*.md")]
)
BASES: Final = [ROOT, ROOT / "aiod", ROOT / "aiod/core", ROOT / "clients/python/aiod_client", ROOT / "tests"]
"""Where a path may begin: pages shorten those in tables, and say of which folder they are."""
MADE: Final = ("build/", "dist/", ".venv/", "benchmarks/results/")
"""Beginnings of paths that make creates."""

SOURCES: Final = ("aiod", "benchmarks", "clients", "conf", "protocol", "tests")
SOURCE_SUFFIXES: Final = {".c", ".cpp", ".def", ".h", ".hpp", ".pml", ".py", ".pyi", ".toml"}

_NAME: Final = re.compile(r"\b(?:aiod|AIOD)_\w*\w")
_DIAGRAM: Final = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PAGE: Final = re.compile(r"\bdocs/[\w/-]+\.(?:md|png)\b")
_FENCE: Final = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_PATH: Final = re.compile(r"[\w@.-]+(/[\w@.-]+)*/?")
_SUFFIX: Final = re.compile(r"\.(c|h|hpp|cpp|def|pml|py|pyi|md|sh|toml|service|png)$")
_FILE_NAMES: Final = {
    path.name
    for folder in ("aiod", "clients", "conf", "docs", "tests", "scripts", "benchmarks", "systemd", "protocol")
    for path in (ROOT / folder).rglob("*")
} | {path.name for path in ROOT.iterdir()}


def text_of(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of its headings, as forges make them."""
    headings = re.findall(r"^#+ +(.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in _LINK.findall(_CODE.sub("", text_of(page))):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        path = page.parent / place if place else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield target


def is_path(code: str) -> bool:
    """Whether `code` names something in the repository, by its form."""
    if not _PATH.fullmatch(code) or code.startswith(MADE):
        return False
    first, slash, _ = code.partition("/")
    if slash and any((base / first).is_dir() for base in BASES):
        return True
    return bool(_SUFFIX.search(code))


def exists(code: str, page: Path) -> bool:
    if "/" not in code:
        return code in _FILE_NAMES
    return any((base / code).exists() for base in [*BASES, page.parent])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_named_in_code_style_exists(page: Path) -> None:
    named = {code for code in _CODE.findall(text_of(page)) if is_path(code)}
    assert sorted(code for code in named if not exists(code, page)) == []


@pytest.fixture(scope="module")
def sources() -> str:
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.suffix in SOURCE_SUFFIXES]
    return "\n".join(path.read_text() for path in [*files, ROOT / "pyproject.toml"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_with_the_prefix_of_aiod_is_in_the_sources(page: Path, sources: str) -> None:
    code = " ".join([*_CODE.findall(text_of(page)), *_DIAGRAM.findall(page.read_text())])
    assert set(_NAME.findall(code)) - set(_NAME.findall(sources)) == set()


def test_every_page_that_the_sources_name_exists(sources: str) -> None:
    named = set(_PAGE.findall(sources))
    assert "docs/protocol.md" in named
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_a_missing_path_and_a_missing_heading_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One heading\n\n[a](page.md#one-heading) [b](page.md#other) [c](gone.md) `tests/unit/gone.py`\n")
    assert list(broken_links(page)) == ["page.md#other", "gone.md"]
    assert is_path("tests/unit/gone.py")
    assert not exists("tests/unit/gone.py", page)
