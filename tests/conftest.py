"""Fixtures: a real daemon, with its own processes and directories."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aiod.ctl.daemon import Address, ask, ask_until
from tests.forked_program import ForkedProgram, run_forked
from tests.patience import scaled
from tests.schedule import Schedule, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_EXPORT_KEYS: dict[str, Any] = json.loads(os.environ.get("AIOD_TESTS_EXPORTS", "{}"))
"""Keys of every export whose test does not set them: '{"direct": true, "io": "uring"}'."""

START_TIMEOUT_S = scaled(60.0)
STOP_TIMEOUT_S = scaled(60.0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Schedule:
    """Distribute the tests as tests/schedule.py says."""
    config.option.loadscopereorder = False  # the order is that of place()
    return Schedule(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the tests by folder, scale the time limit of each, and skip those that the keys of exports exclude."""
    items.sort(key=place)
    usual_s = float(config.getini("timeout"))
    for item in items:
        own = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(scaled(own.args[0] if own else usual_s)), append=False)
        cached = item.get_closest_marker("page_cache")
        if cached and _EXPORT_KEYS.get("direct"):
            item.add_marker(pytest.mark.skip(reason=f"with O_DIRECT: {cached.args[0]}"))


def pytest_collection_finish() -> None:
    """Hide the collected tests from the garbage collector: many a test collects, and would walk over all of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    """Poll until a condition is true; fails the test after `timeout_s`."""
    return wait_until


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Poll until `condition()` is true; fails the test with the message `what` after the timeout, which is scaled."""
    timeout_s = scaled(timeout_s)
    deadline_s = time.monotonic() + timeout_s
    while not _holds(condition):
        if time.monotonic() > deadline_s:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)


def _holds(condition: Callable[[], object]) -> bool:
    try:
        return bool(condition())
    except KeyError:  # an engine that is starting again has no statistics yet
        return False


class Daemon:
    """One `aiod` process with its configuration, its directories and its log."""

    export = "scratch"

    def __init__(self, base: Path, **sections: Any) -> None:
        """`sections`: more lines of the config, by section ("" is the top): {"engine.main": {"max_threads": 4}}."""
        self.base = base
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/tmp"))
        self.path = base / "scratch"
        self.path.mkdir(exist_ok=True)
        self.config_path = base / "aiod.toml"
        self.log_path = base / "aiod.log"
        self.endpoint = f"ipc://{self.runtime_dir}/aiod.sock"
        self.process: subprocess.Popen[bytes] | ForkedProgram | None = None
        self.write_config(sections)

    def write_config(self, sections: dict[str, Any]) -> None:
        """The minimal configuration, with `sections` merged into it."""
        merged: dict[str, Any] = {
            "": {"runtime_dir": str(self.runtime_dir), "log_level": "debug"},
            "exports.scratch": {"path": str(self.path)},
        }
        for name, keys in sections.items():
            merged.setdefault(name, {}).update(keys)
        for name, keys in merged.items():
            if name.startswith("exports."):
                merged[name] = _EXPORT_KEYS | keys
        lines = []
        for name, keys in merged.items():
            if name:
                lines.append(f"[{name}]")
            lines += [f"{key} = {_toml(value)}" for key, value in keys.items()]
        self.config_path.write_text("\n".join(lines) + "\n")

    def start(self, *, wait: bool = True, prefix: Sequence[str] = (), **popen: Any) -> None:
        """Start it; with the command `prefix` in front, if given. `wait` for its first answer."""
        arguments = ["--config", str(self.config_path)]
        with self.log_path.open("ab") as log:
            if prefix or popen:
                command = [*prefix, sys.executable, "-m", "aiod", *arguments]
                self.process = subprocess.Popen(command, stderr=log, stdout=log, **popen)
            else:
                self.process = ForkedProgram("aiod", arguments, stdout=log.fileno(), stderr=log.fileno())
        if wait:
            try:
                ask_until(self.address, "ping", START_TIMEOUT_S, START_TIMEOUT_S)
            except OSError as error:
                pytest.fail(f"the daemon does not answer: {error}\n{self.log}")

    def ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run aiodctl against it."""
        done = run_forked("aiod.ctl", ["--endpoint", self.endpoint, *arguments], scaled(60))
        if check and done.returncode:
            pytest.fail(f"aiodctl {arguments}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.log}")
        return done

    def json(self, *arguments: str) -> Any:
        """The output of `aiodctl --json`; of a verb without arguments, asked by this process, since that is faster."""
        if len(arguments) > 1:
            return json.loads(self.ctl("--json", *arguments).stdout)
        try:
            return ask(self.address, arguments[0], START_TIMEOUT_S)
        except OSError as error:
            pytest.fail(f"aiodctl {arguments}: {error}\n{self.log}")

    @property
    def address(self) -> Address:
        """Its address, as aiodctl uses it."""
        return Address(self.endpoint)

    @property
    def engine(self) -> dict[str, Any]:
        """Stats of the only engine."""
        (engine,) = self.json("stats")["engines"]
        return dict(engine)

    @property
    def pid(self) -> int:
        """Pid of the supervisor."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """Its log so far."""
        return self.log_path.read_text(errors="replace")

    def wait_logged(self, text: str) -> None:
        """Wait until the log contains `text`: another process may be about to write it."""
        wait_until(lambda: text in self.log, f"the log says: {text}")

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Signal it and wait; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal_number)
        return self.process.wait(STOP_TIMEOUT_S)

    def renew(self) -> None:
        """As after its start, but for its log: it runs, has no session, and its export is empty."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        wait_until(lambda: self.engine["state"] == "serving" and not self.engine["sessions"], "sessions have ended")
        for path in self.path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def destroy(self) -> None:
        """Kill all its processes, and remove its directories."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.runtime_dir, ignore_errors=True)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.fixture
def new_daemon(disk_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons, not yet started, that end with the test."""
    daemons: list[Daemon] = []

    def make(**sections: Any) -> Daemon:
        base = disk_path / f"daemon{len(daemons)}"
        base.mkdir()
        daemons.append(Daemon(base, **sections))
        return daemons[-1]

    yield make
    for daemon in daemons:
        daemon.destroy()


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """A running daemon for this test only."""
    made = new_daemon()
    made.start()
    return made


@pytest.fixture(scope="module", name="_module_daemon")
def module_daemon_fixture() -> Iterator[Daemon]:
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    made = Daemon(base)
    yield made
    made.destroy()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def renewed_daemon(_module_daemon: Daemon) -> Daemon:
    """A running daemon that the tests of a file share: it serves one of them after the other, as if it were new.

    A start takes 0.2 s of CPU time. A test may kill its engine, and stop it.
    """
    _module_daemon.renew()
    return _module_daemon


@pytest.fixture
def disk_path() -> Iterator[Path]:
    """A directory on a real file system: /tmp may be a tmpfs, where RWF_NOWAIT does not work."""
    path = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


_shared: list[Daemon] = []


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[Daemon]:
    """A running daemon shared by all tests that do not change its state. Each module finds its export empty."""
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    made = Daemon(base)
    made.start()
    _shared.append(made)
    yield made
    _shared.clear()
    made.destroy()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _emptied_export() -> None:
    """Remove what other modules have left in the export of the shared daemon."""
    for entry in (entry for daemon in _shared for entry in daemon.path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide a daemon of the machine's user from the tests, and disable reconnection unless a test enables it."""
    settings = ("ENDPOINT", "CONFIG", "KEY", "SERVER_KEY", "PREFER", "HOST_TIMEOUT")
    for name in ("XDG_RUNTIME_DIR", *(f"AIOD_{each}" for each in settings)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIOD_RECONNECT_TIMEOUT", "0")


def alive(pid: int) -> bool:
    """Whether a process with that pid exists and is not a zombie."""
    return _state(Path(f"/proc/{pid}")) not in {"Z", None}


def listens(path: Path) -> bool:
    """Whether a process listens on a unix socket: its path exists as soon as it is bound, and refuses connections."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def freeze(pid: int) -> None:
    """Send SIGSTOP, and wait until all its threads have stopped, which takes a moment."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: {_state(thread) for thread in Path(f"/proc/{pid}/task").iterdir()} == {"T"}, f"{pid} stops")


def _state(process: Path) -> str | None:
    """The state letter of ps; None: the process has gone."""
    try:
        return (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process that may have gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
