"""The bpftrace scripts with a real engine, where the kernel allows it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPTS = Path(__file__).parents[2] / "monitoring" / "bpftrace"


class Script:
    """A running bpftrace script."""

    def __init__(self, name: str, pid: int, output: Path) -> None:
        self._output = output
        command = ["bpftrace", "-p", str(pid), str(SCRIPTS / name)]
        with output.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)

    @property
    def text(self) -> str:
        """Its output so far."""
        return self._output.read_text()

    def prints(self, text: str) -> bool:
        """Whether `text` is in its output within a second."""
        until = time.monotonic() + 1.0
        while text not in self.text:
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def end(self) -> str:
        """Interrupt it, and return its whole output."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(scaled(120))
        return self.text


@pytest.fixture
def trace(disk_path: Path, wait_until: Callable[..., None]) -> Iterator[Callable[[str, int], Script]]:
    """Starts a script for an engine. Its probes are attached some time later, which nothing tells."""
    if os.getuid() != 0 or shutil.which("bpftrace") is None:
        pytest.skip("needs root and bpftrace")
    command = ["bpftrace", "-e", 'BEGIN { printf("works"); exit(); }']
    if "works" not in subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False).stdout:
        pytest.skip("the kernel does not allow bpftrace")
    made: list[Script] = []

    def start(name: str, pid: int) -> Script:
        script = Script(name, pid, disk_path / name)
        made.append(script)
        wait_until(lambda: "Attaching" in script.text or script.process.poll() is not None, "it starts", 60)
        return script

    yield start
    for script in made:
        if script.process.poll() is None:
            script.process.kill()
            script.process.wait(scaled(60))


def test_spawn_chains_shows_new_workers(new_daemon: Callable[..., Any], trace: Callable[[str, int], Script]) -> None:
    daemon = new_daemon()
    daemon.start()
    script = trace("spawn-chains.bt", daemon.engine["pid"])
    for number in range(1, 64):  # one more worker each time, until one comes after the probes are attached
        daemon.ctl("pool", "main", "--min", str(number))
        if script.prints(" min "):
            break
    text = script.end()
    assert "main" in text
    assert " min " in text, text


def test_who_waits_shows_the_clients_of_an_engine(daemon: Any, trace: Callable[[str, int], Script]) -> None:
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/x", "w") as file:
        (known,) = daemon.json("clients")["clients"]
        text = ""
        for count in (1_000, 10_000, 100_000):  # it prints at its end: more writes until some come after it is attached
            script = trace("who-waits.bt", daemon.engine["pid"])
            for number in range(count):
                file.pwrite(b"x" * 4096, number % 100)
            text = script.end()
            if f"[{known['id']}, write]" in text:
                return
    pytest.fail(text)
