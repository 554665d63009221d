"""A daemon of one test's own: its process, its configuration, its directories."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiod_client.blocking.client import Client, connect
from aiod_client.errors import AiodError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiod_client.testing.faults import Fault

EXPORT: Final = "scratch"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
_RETRY_S: Final = 0.02


class DaemonError(RuntimeError):
    """The daemon is not installed, does not start or has ended; the message has its log."""


class PrivateDaemon:
    """A running daemon with one export, `scratch`. Made by run_daemon()."""

    def __init__(self, runtime_dir: Path, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        """The directory behind the export: the test may look at it, and change it, without the daemon."""
        self.endpoint = f"ipc://{runtime_dir}/aiod.sock"
        self._process = process
        self._log = runtime_dir / "aiod.log"

    @property
    def pid(self) -> int:
        """The process id of the supervisor."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What the daemon has logged so far."""
        return self._log.read_text(errors="replace")

    def connect(self, **options: Any) -> Client:
        """A blocking client, with `options` of aiod_client.connect(). For asyncio: aio.connect(daemon.endpoint)."""
        return connect(self.endpoint, **options)

    def kill_engine(self) -> None:
        """Kill the engine, as if it had crashed: the supervisor starts another one."""
        with self.connect(transport="zmq") as client:
            (engine,) = client.control("stats")["engines"]
        os.kill(engine["pid"], signal.SIGKILL)

    def _await_start(self) -> None:
        end_s = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._process.poll() is not None:
                raise DaemonError(f"aiod ended with status {self._process.returncode}:\n{self.log}")
            try:
                with self.connect(timeout=START_TIMEOUT_S) as client:
                    client.control("ping")
            except AiodError as error:
                if time.monotonic() > end_s:
                    raise DaemonError(f"aiod does not answer: {error}\n{self.log}") from error
                time.sleep(_RETRY_S)
            else:
                return

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def run_daemon(
    directory: str | Path | None = None, *, faults: Sequence[Fault] = (), export_options: str = "", config: str = ""
) -> Iterator[PrivateDaemon]:
    """Run a daemon that nobody else uses, until the end of the `with` block.

    `directory`: what it exports as "scratch"; None: a new one, which is removed at the end. `faults`: what goes wrong
    there. `export_options` and `config`: more lines of TOML for the section of the export, and for other sections.
    Raises DaemonError.
    """
    if importlib.util.find_spec("aiod") is None or importlib.util.find_spec("uvloop") is None:
        raise DaemonError(f"the daemon is not installed for {sys.executable}: pip install 'aiod-io[daemon]'")
    with contextlib.ExitStack() as stack:
        # The path of a socket has at most 107 bytes: not below TMPDIR.
        runtime_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-t-", dir="/tmp")))
        exported = Path(directory or stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-test-")))
        path = runtime_dir / "aiod.toml"
        path.write_text(_configuration(runtime_dir, exported.resolve(), faults, export_options, config))
        with (runtime_dir / "aiod.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - a module of this package
                [sys.executable, "-m", "aiod", "--config", str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        daemon = PrivateDaemon(runtime_dir, exported, process)
        stack.callback(daemon._stop)  # noqa: SLF001
        daemon._await_start()  # noqa: SLF001
        yield daemon


def _configuration(runtime_dir: Path, exported: Path, faults: Sequence[Fault], export_options: str, config: str) -> str:
    listed = ", ".join(fault.to_toml() for fault in faults)
    return "\n".join(
        [
            f'runtime_dir = "{runtime_dir}"',
            f"[exports.{EXPORT}]",
            f'path = "{exported}"',
            f"faults = [{listed}]",
            export_options,
            config,
            "",
        ]
    )
