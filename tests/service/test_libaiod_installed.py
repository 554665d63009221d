"""libaiod as `make install-libaiod` installs it: its symbols, its soname, and the example of libaiod(3)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import aiod_client
from tests.patience import scaled

if TYPE_CHECKING:
    from tests.conftest import Daemon

ROOT: Final = Path(__file__).parents[2]
HEADER: Final = ROOT / "clients" / "c" / "include" / "aiod.h"
PROGRAM: Final = """
#include <aiod.h>
#include <err.h>
#include <stdint.h>
int main(void)
{
%s
return 0;
}
"""


def run(*command: str | Path, **environment: str) -> str:
    """The output of a command."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", name="prefix")
def prefix_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix that it is installed in."""
    prefix = tmp_path_factory.mktemp("installed")
    run("make", "--silent", "install-libaiod", f"PREFIX={prefix}", "DESTDIR=")
    return prefix


def test_the_symbols_are_the_functions_of_aiod_h(prefix: Path) -> None:
    declared = re.findall(r"^(?:\w+ )+\**(aiod_\w+)\(", HEADER.read_text(), re.MULTILINE)
    lines = run("nm", "--dynamic", "--defined-only", prefix / "lib" / "libaiod.so").splitlines()
    exported = {line.split()[2] for line in lines if line.split()[1] == "T"}
    assert exported == {f"{name}@@AIOD_0" for name in declared}


def test_the_soname_has_the_version_of_the_binary_interface(prefix: Path) -> None:
    assert "Library soname: [libaiod.so.0]" in run("readelf", "--dynamic", "--wide", prefix / "lib" / "libaiod.so")
    assert (prefix / "lib" / "libaiod.so.0").exists()


@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.parametrize("kind", ["shared", "static"])
def test_the_example_of_the_manual_runs(
    prefix: Path, tmp_path: Path, shared_daemon: Daemon, kind: str, language: str
) -> None:
    page = (prefix / "share" / "man" / "man3" / "libaiod.3").read_text()
    (example,) = re.findall(r"^\.Sh EXAMPLES\n.*?^\.Bd .*?\n(.*?)^\.Ed", page, re.MULTILINE | re.DOTALL)
    source, program = tmp_path / "example.c", tmp_path / "example"
    source.write_text(PROGRAM % example.replace("\\e", "\\"))
    with (
        aiod_client.connect(shared_daemon.endpoint) as client,
        client.open("scratch/disk.img", "w+") as file,
    ):
        file.pwrite(bytes(4096), 0)
    flags = run("pkg-config", "--cflags", "--libs", "aiod", PKG_CONFIG_PATH=str(prefix / "lib" / "pkgconfig")).split()
    if kind == "static":
        flags = [str(prefix / "lib" / "libaiod.a") if flag == "-laiod" else flag for flag in flags]
    compiler = os.environ.get("CC", "cc") if language == "c" else os.environ.get("CXX", "c++")
    run(compiler, "-x", language, source, "-x", "none", *flags, "-o", program)
    run(program, LD_LIBRARY_PATH=str(prefix / "lib"), AIOD_ENDPOINT=shared_daemon.endpoint)
