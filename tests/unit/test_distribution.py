"""What the sdist and the wheel contain. `make dist-check` builds, installs and uses them."""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import aiod
from tests.patience import scaled

ROOT = Path(__file__).parents[2]
DIST_INFO = f"aiod_io-{aiod.__version__}.dist-info"


def built(what: str, directory: Path, settings: dict[str, str]) -> Path:
    """The only file that the build backend makes in `directory`."""
    source = f"from scikit_build_core import build\nbuild.build_{what}({str(directory)!r}, {settings!r})"
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(120), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = directory.iterdir()
    return file


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in the sdist."""
    with tarfile.open(built("sdist", tmp_path_factory.mktemp("sdist"), {})) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel without native modules, which takes no compiler."""
    return zipfile.ZipFile(
        built("wheel", tmp_path_factory.mktemp("wheel"), {"wheel.cmake": "false", "wheel.py-api": "py3"})
    )


def test_the_sdist_contains_what_git_does_not_ignore(sdist: set[str]) -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60), check=False)
    if listed.returncode:
        pytest.skip("not a clone")
    wanted = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    assert sdist - {"PKG-INFO"} == {name for name in wanted if not name.startswith(".ci/")}


def test_the_sdist_has_what_its_own_build_needs(sdist: set[str]) -> None:
    needed = ["CMakeLists.txt", "LICENSE", "Makefile", "README.md", "aiod/core/module.cpp", "clients/c/include/aiod.h"]
    needed += ["clients/python/aiod_client/_ring.cpp", "debian/rules", "pyproject.toml", "scripts/build-wheel.sh"]
    assert set(needed) <= sdist


def test_the_wheel_has_no_sources_of_the_native_modules(wheel: zipfile.ZipFile) -> None:
    suffixes = {Path(name).suffix for name in wheel.namelist() if not name.startswith(DIST_INFO)}
    assert suffixes <= {".py", ".pyi", ".typed", ".toml"}
    assert {name.partition("/")[0] for name in wheel.namelist()} == {"aiod", "aiod_client", "aiod_protocol", DIST_INFO}


def test_the_wheel_has_every_module(wheel: zipfile.ZipFile) -> None:
    for place in ("aiod", "clients/python/aiod_client", "protocol/aiod_protocol"):
        modules = {str(module.relative_to((ROOT / place).parent)) for module in (ROOT / place).rglob("*.py")}
        assert modules <= set(wheel.namelist())


def test_the_metadata_tells_what_it_is(wheel: zipfile.ZipFile) -> None:
    metadata = email.message_from_bytes(wheel.read(f"{DIST_INFO}/METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("aiod-io", aiod.__version__)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# aiod")  # type: ignore[union-attr]
    assert {url.partition(",")[0] for url in metadata.get_all("Project-URL", [])} == {
        "Changelog",
        "Documentation",
        "Homepage",
    }
    classifiers = metadata.get_all("Classifier", [])
    assert [each for each in classifiers if each.startswith("Programming Language :: Python :: 3.1")] == [
        f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)
    ]
    needed = {each.partition(">")[0] for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each}
    assert needed == {"msgpack", "pyzmq"}


def test_the_wheel_has_the_commands_and_the_licence(wheel: zipfile.ZipFile) -> None:
    commands = wheel.read(f"{DIST_INFO}/entry_points.txt").decode()
    assert "aiod=aiod.__main__:main" in commands.replace(" ", "")
    assert "aiodctl=aiod.ctl.__main__:main" in commands.replace(" ", "")
    assert f"{DIST_INFO}/licenses/LICENSE" in wheel.namelist()
