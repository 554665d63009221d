"""The version stands in aiod/__init__.py alone; everything else is made from it."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import aiod
import aiod_client
from aiod_client.session import handshake

ROOT = Path(__file__).parents[2]
MADE_FROM_IT = ["CMakeLists.txt", "Makefile", "pyproject.toml", "scripts", "clients/c", "docs/man", "systemd", "conf"]


def files(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def test_pyproject_takes_the_version_from_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["scikit-build"]["metadata"]["version"]["input"] == "aiod/__init__.py"


def test_the_installed_distribution_has_the_version_of_the_package() -> None:
    assert metadata.version("aiod-io") == aiod.__version__


def test_the_client_names_the_version_in_hello() -> None:
    assert handshake.software() == f"aiod_client/{aiod.__version__} (Python)"


def test_the_client_has_the_version() -> None:
    assert aiod_client.__version__ == aiod.__version__


@pytest.mark.parametrize("place", MADE_FROM_IT)
def test_no_build_file_repeats_the_version(place: str) -> None:
    literal = re.compile(rf"(?<![\d.]){re.escape(aiod.__version__)}(?![\d.])")
    repeated = [str(file.relative_to(ROOT)) for file in files(place) if literal.search(file.read_text())]
    assert repeated == []


def test_the_changelog_has_no_release_after_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1:2] in ([], [aiod.__version__])
