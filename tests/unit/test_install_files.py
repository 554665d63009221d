"""What `make install` does without a build: files below PREFIX, and units that name what is there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.patience import scaled

ROOT = Path(__file__).parents[2]


def install_files(**variables: str) -> None:
    given = [f"{name}={value}" for name, value in variables.items()]
    environment = {name: value for name, value in os.environ.items() if name not in {"DESTDIR", "PREFIX", "SYSCONFDIR"}}
    command = ["make", "--silent", "install-files", *given]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=scaled(60), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_prefix_has_everything_and_its_units_name_it(tmp_path: Path) -> None:
    install_files(PREFIX=str(tmp_path))
    assert (tmp_path / "etc" / "aiod" / "aiod.toml").read_text() == (ROOT / "conf" / "aiod.toml").read_text()
    unit = (tmp_path / "lib" / "systemd" / "system" / "aiod.service").read_text()
    assert f"ExecStart={tmp_path}/bin/aiod --config {tmp_path}/etc/aiod/aiod.toml\n" in unit
    assert "CONFIGURATION_DIRECTORY" not in unit
    instance = (tmp_path / "lib" / "systemd" / "system" / "aiod@.service").read_text()
    assert f"--config {tmp_path}/etc/aiod/%i.toml\n" in instance


def test_for_usr_the_configuration_is_in_etc(tmp_path: Path) -> None:
    install_files(PREFIX="/usr", DESTDIR=str(tmp_path))
    assert (tmp_path / "etc" / "aiod" / "aiod.toml").exists()
    unit = (tmp_path / "usr" / "lib" / "systemd" / "system" / "aiod.service").read_text()
    assert unit == (ROOT / "systemd" / "aiod.service").read_text()


def test_a_configuration_that_is_there_stays(tmp_path: Path) -> None:
    mine = tmp_path / "etc" / "aiod" / "aiod.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# mine\n")
    install_files(PREFIX=str(tmp_path))
    assert mine.read_text() == "# mine\n"
