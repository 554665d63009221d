"""Fixtures: a real systemd in a container (systemd-box), with aiod installed from its Debian packages."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SYSTEMD_BOX = Path(__file__).with_name("systemd-box")
PYTHON = "/usr/bin/python3"
PACKAGE_TIMEOUT_S = scaled(400)
COMMAND_TIMEOUT_S = scaled(60)

CONFIG = Path("/etc/aiod/aiod.toml")
UNITS = Path("/etc/systemd/system")
PACKAGES = Path("/srv/packages")
MANUAL_INDEXER = "/usr/bin/mandb"
"""dpkg runs it after each package, for seconds of CPU time; what it makes is not tested."""
CGROUPS = [Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")]


class Box:
    """A machine with its own systemd; its files vanish with it."""

    def __init__(self, state: Path) -> None:
        """`state`: a directory for its state, of a short name."""
        self._environment = os.environ | {"SYSTEMD_BOX_DIR": str(state)}

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One of systemd-box's own commands."""
        return subprocess.run(
            [str(SYSTEMD_BOX), *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def run(
        self, *command: str, check: bool = True, stdin: str | None = None, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` there as root; fails the test with its output if it fails and `check` is set."""
        done = subprocess.run(
            [str(SYSTEMD_BOX), "exec", "--", *command],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.messages()}")
        return done

    def dpkg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run dpkg there: it compiles the modules, which takes a minute on a slow machine."""
        return self.run("dpkg", *arguments, timeout_s=PACKAGE_TIMEOUT_S)

    def write(self, path: Path, text: str) -> None:
        """Write a file there."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "write", str(path), stdin=text)

    def remove(self, path: Path) -> None:
        """Remove a file or a directory there."""
        self.run("rm", "-rf", str(path))

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run systemctl there."""
        return self.run("systemctl", *arguments, check=check)

    def shows(self, name: str, unit: str = "aiod") -> str:
        """A property of the unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).stdout.strip()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The records of the unit; `matches`: FIELD=VALUE."""
        done = self.run("journalctl", "--unit=aiod", "--output=json", "--quiet", *matches, check=False)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def messages(self, *matches: str) -> str:
        """The messages of the records, one per line."""
        return "\n".join(str(record["MESSAGE"]) for record in self.journal(*matches))

    def ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run aiodctl there, as root."""
        return self.run("aiodctl", *arguments, check=check)

    def json(self, *arguments: str) -> Any:
        """The output of `aiodctl --json`."""
        return json.loads(self.ctl("--json", *arguments).stdout)

    @property
    def engine(self) -> dict[str, Any]:
        """Stats of the only engine."""
        (engine,) = self.json("stats")["engines"]
        return dict(engine)

    def client(self, program: str, *, user: str = "worker", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python source that uses the client library, as `user`."""
        return self.run("runuser", "-u", user, "--", PYTHON, "-c", f"import aiod_client\n{program}", check=check)

    @contextlib.contextmanager
    def client_at_work(self, program: str) -> Iterator[ClientAtWork]:
        """Like `client`, but in the background; fails the test if the program fails."""
        command = [str(SYSTEMD_BOX), "exec", "--", "runuser", "-u", "worker", "--", PYTHON, "-c"]
        with subprocess.Popen(
            [*command, f"import aiod_client\n{program}"], env=self._environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield ClientAtWork(process)
                assert process.wait(COMMAND_TIMEOUT_S) == 0
            finally:
                process.kill()


class ClientAtWork:
    """A program that uses the daemon, and prints its progress."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def hears(self, line: str) -> None:
        """Wait until it prints `line`."""
        assert self._process.stdout is not None
        printed = []
        for each in self._process.stdout:
            printed.append(each)
            if each.strip() == line:
                return
        pytest.fail(f"the client has not said {line!r}, but {printed}")


@pytest.fixture(scope="session")
def _built(_may_boot: None) -> Path:
    """The directory with the Debian packages, built from the current sources."""
    if not Path(PYTHON).exists():
        pytest.skip(f"no {PYTHON}: the packages are for the system's own Python")
    flags = (f"-DCMAKE_{language}_FLAGS_RELEASE=-O0 -DNDEBUG" for language in ("C", "CXX"))
    unoptimised = {"DEB_BUILD_OPTIONS": "noopt", "SKBUILD_CMAKE_ARGS": ";".join(flags)}  # a third of the time less
    done = subprocess.run(
        ["make", "--silent", "deb"],
        cwd=ROOT,
        env=os.environ | unoptimised,
        capture_output=True,
        text=True,
        timeout=PACKAGE_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "build" / "packages"


@pytest.fixture(scope="session")
def packages(_built: Path) -> list[str]:
    """The Debian packages, where the box sees them."""
    return [str(PACKAGES / package.name) for package in sorted(_built.glob("*.deb"))]


@pytest.fixture(scope="session")
def _may_boot() -> None:
    """Skip the tests, before anything is built, where systemd cannot run in a container."""
    if os.getuid() != 0:
        pytest.skip("a systemd of its own needs root")
    namespaces = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "true"]
    refused = subprocess.run(namespaces, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if refused.returncode:
        pytest.skip(f"a systemd of its own needs namespaces: {refused.stderr.strip()}")
    if not [path for path in CGROUPS if (path / "cgroup.controllers").exists()]:
        pytest.skip(f"a systemd of its own needs cgroup2 at one of {', '.join(map(str, CGROUPS))}")


@pytest.fixture(scope="session")
def _booted(_may_boot: None, _built: Path) -> Iterator[Box]:
    with tempfile.TemporaryDirectory(prefix="aiod-box-", dir="/tmp") as state:
        box = Box(Path(state))
        up = box.control("up", "--bind-ro", f"{_built}:{PACKAGES}")
        try:
            assert up.returncode == 0, up.stdout + up.stderr
            box.run("ln", "--symbolic", "--force", "/bin/true", MANUAL_INDEXER)
            yield box
        finally:
            box.control("down", "--now")


@pytest.fixture(scope="session")
def _installed(_booted: Box, packages: list[str]) -> Box:
    """A box with the packages and two users: worker may use the daemon, stranger may not."""
    _booted.dpkg("--install", *packages)
    for user, groups in (("worker", "aiod"), ("stranger", "")):
        _booted.run("useradd", "--create-home", "--groups", groups, user)
    return _booted


@pytest.fixture
def box(_installed: Box) -> Iterator[Box]:
    """A box with aiod installed, but not running; `box.journal` begins with the test."""
    _installed.run("sh", "-c", "journalctl --rotate --quiet && journalctl --vacuum-time=1us --quiet")
    kept = _installed.run("cat", str(CONFIG)).stdout
    yield _installed
    _installed.systemctl("stop", "aiod", check=False)
    _installed.remove(UNITS / "aiod.service.d")
    _installed.write(CONFIG, kept)
    _installed.systemctl("daemon-reload")
    _installed.systemctl("reset-failed", "aiod", check=False)


@pytest.fixture
def service(box: Box) -> Box:
    """The box, with the service started."""
    box.systemctl("start", "aiod")
    return box


def set_up(box: Box, drop_in: str) -> None:
    """Stop the service, which systemd may be about to start again after a failure, and add a drop-in to its unit."""
    box.systemctl("stop", "aiod")
    box.write(UNITS / "aiod.service.d" / "test.conf", drop_in)
    box.systemctl("daemon-reload")


def wait_for_restart(box: Box, before: int) -> None:
    """Wait until systemd has started the service more than `before` times, and it answers."""
    wait_until(lambda: int(box.shows("NRestarts")) > before, "systemd restarts the service", 40)
    box.ctl("ping", "--wait", "30")
