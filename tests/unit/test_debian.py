"""debian/ agrees with pyproject.toml, aiod/__init__.py and libaiod."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import aiod

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "debian"
NAMES = {
    "msgpack": "python3-msgpack",
    "prometheus-client": "python3-prometheus-client",
    "pyzmq": "python3-zmq",
    "systemd-python": "python3-systemd",
    "uvloop": "python3-uvloop",
}
"""Debian's names of the packages that the Debian packages use from Debian; the others are bundled."""


def paragraphs() -> dict[str, str]:
    """The paragraphs of debian/control, by package."""
    found = (DEBIAN / "control").read_text().split("\n\n")
    return {name[1]: text for text in found if (name := re.search(r"^(?:Package|Source): (.*)$", text, re.MULTILINE))}


def bounds(text: str) -> dict[str, str]:
    """The lower bounds in a Depends."""
    return dict(re.findall(r"(python3-[\w-]+) \(>= ([\d.]+)\)", text))


def requirements(*extras: str) -> dict[str, str]:
    """The lower bounds in pyproject.toml: of the client, or of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["optional-dependencies"][extra] for extra in extras] or [project["dependencies"]]
    return dict(each.split(">=") for requirements in lists for each in requirements)


def test_the_client_depends_on_what_pyproject_names() -> None:
    wanted = {NAMES[name]: bound for name, bound in requirements().items()}
    assert bounds(paragraphs()["python3-aiod-client"]) == wanted


def test_the_daemon_depends_on_what_pyproject_names_or_bundles_it() -> None:
    wanted = requirements("daemon", "metrics", "systemd")
    (bundled,) = re.findall(r"^BUNDLED='(.*?)'", (DEBIAN / "stage-python").read_text(), re.MULTILINE)
    assert set(bundled.split()) <= set(wanted)
    used = {NAMES[name]: bound for name, bound in wanted.items() if name not in bundled.split()}
    assert bounds(paragraphs()["aiod"]) == used


def test_the_changelog_has_the_version() -> None:
    assert (DEBIAN / "changelog").read_text().startswith(f"aiod ({aiod.__version__}) ")


def test_the_package_of_the_library_is_named_after_its_soname() -> None:
    (soname,) = re.findall(r"^LIBAIOD_SONAME := libaiod\.so\.(\d+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {f"libaiod{soname}", "libaiod-dev"} < set(paragraphs())
    (node,) = re.findall(r"^(\w+) \{$", (ROOT / "clients" / "c" / "libaiod.map").read_text(), re.MULTILINE)
    symbols = (DEBIAN / f"libaiod{soname}.symbols").read_text()
    assert symbols.splitlines()[0] == f"libaiod.so.{soname} libaiod{soname} #MINVER#"
    assert f"(symver){node} " in symbols
