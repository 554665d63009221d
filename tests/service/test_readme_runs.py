"""Every command and fragment in README.md, and the tcp fragment of docs/administration.md, works as it is printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from zmq.auth import create_certificates, load_certificate

from aiod.config import load_config
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text()
BIN: Final = Path(sys.executable).parent

OF_A_SERVICE: Final = frozenset({"sudo", "aiodctl"})
"""Commands of an installed package, which tests/systemd tests."""


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The indented commands, without their comments."""
    outside = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    return [re.split(r"\s+#\s", line)[0].strip() for line in outside.splitlines() if line.startswith("    ")]


class Reader:
    """A user that types the commands of the README, with directories of their own."""

    def __init__(self, home: Path) -> None:
        (home / "run").mkdir(mode=0o700)
        self._home = home
        self._environment = os.environ | {"XDG_RUNTIME_DIR": str(home / "run"), "XDG_STATE_HOME": str(home)}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def types(self, command: str) -> None:
        """Run the command as the README prints it; a daemon stays in the background."""
        name, *arguments = command.replace("/tmp/my-aiod", f"{self._home}/my").split()
        if name == "export":
            key, _, value = arguments[0].partition("=")
            self._environment[key] = value
        elif name == "make":
            self._run("make", "--dry-run", *arguments)
            if arguments == ["demo"]:
                self._run(str(BIN / "python"), str(ROOT / "clients/python/examples/demo.py"))
        elif name == ".venv/bin/aiod" and "--check-config" not in arguments:
            self._stop()
            self._daemons.append(subprocess.Popen([BIN / "aiod", *arguments], cwd=self._home, env=self._environment))
        elif name.startswith(".venv/bin/"):
            if name.endswith("aiodctl"):
                self._run(str(BIN / "aiodctl"), "ping", "--wait", str(scaled(60)))
            self._run(str(BIN / Path(name).name), *arguments)
        else:
            assert name in OF_A_SERVICE, command

    def runs(self, program: str) -> None:
        """Run a Python program."""
        (self._home / "first.py").write_text(program)
        self._run(str(BIN / "python"), "first.py")

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command,
            cwd=ROOT if command[0] == "make" else self._home,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=scaled(100),
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def _stop(self) -> None:
        for daemon in self._daemons:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(scaled(60)) == 0
        self._daemons.clear()

    def close(self) -> None:
        """Stop the daemon."""
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()


@pytest.fixture
def reader(disk_path: Path) -> Iterator[Reader]:
    """A user with an empty home."""
    made = Reader(disk_path)
    yield made
    made.close()


def test_the_commands_and_programs_of_the_readme_run(reader: Reader, disk_path: Path) -> None:
    (configuration,) = blocks("toml")
    photos = disk_path / "photos"
    photos.mkdir()
    (disk_path / "my.toml").write_text(
        configuration.replace("/tmp/my-aiod", f"{disk_path}/my").replace("/srv/photos", str(photos))
    )
    typed = commands()
    assert ".venv/bin/aiodctl reload" in typed
    before = typed.index(".venv/bin/aiod --config my.toml --check-config")
    for command in typed[:before]:
        reader.types(command)
    for program in blocks("python"):
        reader.runs(program)
    for command in typed[before:]:
        reader.types(command)


def test_the_tcp_fragment_can_be_appended_to_the_configuration(tmp_path: Path) -> None:
    (fragment,) = blocks("toml", (ROOT / "docs" / "administration.md").read_text())
    Path(create_certificates(tmp_path, "storage")[1]).chmod(0o600)
    public = load_certificate(create_certificates(tmp_path, "me")[0])[0].decode()
    config = tmp_path / "aiod.toml"
    config.write_text(
        (ROOT / "conf" / "aiod.toml").read_text()
        + fragment.replace("/etc/aiod/", f"{tmp_path}/").replace('"..."', f'"{public}"').replace('"alice"', '"root"')
    )
    assert load_config(config).tcp.listen == "10.0.0.1:5570"
