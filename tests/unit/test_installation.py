"""The commands of an incomplete installation say what it lacks."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aiod.installation import lacking
from tests.patience import scaled

if TYPE_CHECKING:
    from pathlib import Path


def run_without(module: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `program` where `module` cannot be imported."""
    source = (
        "import sys, runpy\n"
        "class Lacking:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Lacking())\n"
        f"runpy.run_module({program!r}, run_name='__main__', alter_sys=True)\n"
    )
    command = [sys.executable, "-c", source, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)


@pytest.mark.parametrize(
    ("program", "name", "module"),
    [
        ("aiod", "aiod", "click"),
        ("aiod", "aiod", "pydantic"),
        ("aiod.ctl", "aiodctl", "click"),
        ("aiod.ctl", "aiodctl", "rich"),
    ],
)
def test_the_client_alone_names_the_extra(program: str, name: str, module: str) -> None:
    done = run_without(module, program, "--help")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"{name}: the Python package {module} is not installed. The daemon and aiodctl need: "
        "pip install 'aiod-io[daemon]'\n"
    )


def test_the_daemon_without_its_native_module_says_how_to_get_it(tmp_path: Path) -> None:
    config = tmp_path / "aiod.toml"
    config.write_text(f'runtime_dir = "/tmp/aiod-never-made"\n[exports.scratch]\npath = "{tmp_path}/files"\n')
    done = run_without("aiod._core", "aiod", "--config", str(config))
    assert done.returncode == 1
    assert done.stderr.startswith("aiod: aiod-io was installed without the daemon's native module")
    assert "Install a wheel, or a C++ compiler" in done.stderr


def test_an_error_of_the_program_stays_a_traceback() -> None:
    error = ImportError("cannot import name 'gone' from 'aiod.command'", name="aiod.command")
    with pytest.raises(ImportError, match="gone"):
        lacking(error)
