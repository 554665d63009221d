"""A private aiod daemon for a benchmark, in a temporary directory."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class OwnDaemon:
    """A running daemon: its endpoint, CPU time and memory."""

    def __init__(self, endpoint: str, process: psutil.Process) -> None:
        self.endpoint = endpoint
        self._process = process

    def pids(self) -> list[int]:
        """Ids of all its processes."""
        return [self._process.pid, *(child.pid for child in self._process.children(recursive=True))]

    def resident_bytes(self) -> int:
        """RSS, summed over its processes."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids())

    def peak_bytes(self) -> int:
        """Highest RSS so far, summed over its processes."""
        return sum(_status_bytes(pid, "VmHWM") for pid in self.pids())

    def ctl(self, *arguments: str) -> Any:
        """The document that `aiodctl --json` prints."""
        command = [sys.executable, "-m", "aiod.ctl", "--endpoint", self.endpoint, "--json", *arguments]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def _status_bytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def own_daemon(runtime_dir: Path, export: Path, more_toml: str = "", prefix: Sequence[str] = ()) -> Iterator[OwnDaemon]:
    """Run `aiod` with the directory `export` as the export `bench`, and the sections of `more_toml`.

    `prefix` is a command that runs a program, such as ip netns exec.
    """
    config = runtime_dir / "aiod.toml"
    head = f'runtime_dir = "{runtime_dir}"\nlog_level = "warning"\n[exports.bench]\npath = "{export}"\n'
    config.write_text(head + more_toml)
    endpoint = f"ipc://{runtime_dir}/aiod.sock"
    process = subprocess.Popen([*prefix, sys.executable, "-m", "aiod", "--config", str(config)])
    try:
        daemon = OwnDaemon(endpoint, psutil.Process(process.pid))
        daemon.ctl("ping", "--wait", "30")
        yield daemon
    finally:
        process.terminate()
        process.wait()
