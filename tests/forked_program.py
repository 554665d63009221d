"""Starts the daemon and aiodctl by fork from a process that has imported their modules: imports are most of a start.

What runs is what `python -m aiod` and `python -m aiod.ctl` run, in a process of its own; engines are started as ever.
tests/forking.py is the process that forks.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.forking import REQUEST_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOCK = threading.Lock()
"""Held from a request to its reply."""


class ForkedProgram:
    """A process that runs a module as its program; has the methods of subprocess.Popen that tests use."""

    def __init__(self, module: str, arguments: Sequence[str], *, stdout: int, stderr: int) -> None:
        """`stdout`, `stderr`: its descriptors 1 and 2."""
        program = {"run": module, "arguments": arguments, "environment": dict(os.environ), "cwd": str(Path.cwd())}
        self.pid = _ask(program, [stdout, stderr])
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """Its exit status, negative for a signal's number; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its exit status, as from poll(). Raises TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if not poller.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self.returncode = _ask({"reap": self.pid})
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it was waited for."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, as send_signal() does."""
        self.send_signal(signal.SIGKILL)


def run_forked(module: str, arguments: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a module as a program and capture its output, as subprocess.run() does; kills it after `timeout_s`."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        program = ForkedProgram(module, arguments, stdout=output.fileno(), stderr=errors.fileno())
        try:
            status = program.wait(timeout_s)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess([module, *arguments], status, output.read(), errors.read())


def _ask(request: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
    """The answer of the process that forks: a pid or an exit status."""
    message = json.dumps(request).encode()
    if len(message) > REQUEST_MAX:
        raise ValueError(f"{len(message)} bytes of arguments and environment")
    with _LOCK:
        socket.send_fds(_link(), [message], descriptors)
        reply = _link().recv(64)
    if not reply:
        raise RuntimeError("the process that forks has ended: its standard error says why")
    return int(json.loads(reply))


@functools.cache
def _link() -> socket.socket:
    """The socket to the process that forks, started with the first request; it ends with this process."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        subprocess.Popen([sys.executable, "-m", "tests.forking", str(its.fileno())], pass_fds=[its.fileno()])
    return mine
