"""Hosts on this machine: each a network, a mount and a process namespace, joined by a switch. Needs root.

A host is a tree of processes below the first process of its process namespace. The kernel ends the tree when that
process ends, which is how a host loses power; it ends with the test, too, so that nothing is left behind.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

COMMANDS = ("ip", "nsenter", "unshare", "setpriv")
COMMAND_TIMEOUT_S = 60.0
_NETWORK = "10.77.0"


class HostError(Exception):
    """A command has failed, or does not end."""


def missing() -> list[str]:
    """Commands that this machine lacks."""
    return [command for command in COMMANDS if shutil.which(command) is None]


def run(*command: str) -> str:
    """Run a command; its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{' '.join(command)}: no end within {COMMAND_TIMEOUT_S:g} s") from error
    if done.returncode:
        raise HostError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class _Namespaces:
    """The namespaces of a process that does nothing."""

    def __init__(self, *kinds: str, prepare: str = "true") -> None:
        """`kinds`: options of unshare(1); `prepare`: commands of the shell, run in the namespaces."""
        script = f"{prepare} && echo $$ && exec sleep infinity"
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *kinds, "--", "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if not self._process.stdout.readline():
            raise HostError(f"namespaces: {self._process.stderr.read().strip()}")
        self.pid = self._inner() if "--fork" in kinds else self._process.pid

    def _inner(self) -> int:
        pid = self._process.pid
        return int(run("cat", f"/proc/{pid}/task/{pid}/children").split()[0])

    def end(self) -> None:
        """Kill the process, and with it all that is in its process namespace."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


class Switch:
    """A bridge in a network namespace of its own."""

    def __init__(self) -> None:
        self._namespaces = _Namespaces("--net")
        self.run("ip", "link", "add", "bridge", "type", "bridge")
        self.run("ip", "link", "set", "bridge", "up")

    def run(self, *command: str) -> str:
        """Run a command on the switch."""
        return run("nsenter", "-t", str(self._namespaces.pid), "-n", *command)

    def end(self) -> None:
        """Remove it."""
        self._namespaces.end()


class Host:
    """A host; off at first."""

    def __init__(self, switch: Switch, name: str, number: int, prepare: str = "true") -> None:
        """`number`: the last part of its address. `prepare`: commands of the shell that mount what is private."""
        self.name = name
        self.address = f"{_NETWORK}.{number}"
        self._switch = switch
        self._port = f"port{number}"
        self._hardware_address = f"02:00:00:00:00:{number:02x}"  # the same after a loss of power
        self._prepare = f"mount -t tmpfs tmpfs /run && {prepare}"
        self._namespaces: _Namespaces | None = None

    @property
    def prefix(self) -> list[str]:
        """The command that runs another one on this host."""
        assert self._namespaces is not None, f"{self.name} is off"
        return ["nsenter", "-t", str(self._namespaces.pid), "-m", "-n", "-p", "--"]

    def run(self, *command: str) -> str:
        """Run a command on the host; its output."""
        return run(*self.prefix, *command)

    def spawn(self, command: Sequence[str], log: Path) -> None:
        """Start a command on the host that lives as long as the host."""
        with log.open("ab") as file:
            subprocess.Popen([*self.prefix, "setsid", "--fork", *command], stdout=file, stderr=file).wait()

    def power_on(self) -> None:
        """Start the host, with its link."""
        self._namespaces = _Namespaces(
            *("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"), prepare=self._prepare
        )
        self._switch.run(
            *("ip", "link", "add", self._port, "type", "veth"),
            *("peer", "name", "eth0", "address", self._hardware_address, "netns", str(self._namespaces.pid)),
        )
        self._switch.run("ip", "link", "set", self._port, "master", "bridge", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "link", "set", "lo", "up")

    def power_off(self) -> None:
        """Kill every process of the host at once."""
        if self._namespaces is not None:
            self._namespaces.end()
            self._namespaces = None
            with contextlib.suppress(HostError):  # the kernel removes it with the namespace, sooner or later
                self._switch.run("ip", "link", "delete", self._port)

    def cut(self) -> None:
        """Cut its link."""
        self._switch.run("ip", "link", "set", self._port, "down")

    def mend(self) -> None:
        """Restore its link."""
        self._switch.run("ip", "link", "set", self._port, "up")

    def separate(self, other: Host) -> None:
        """Let no packet pass between this host and another one."""
        self._route("add", other)
        other._route("add", self)

    def join(self, other: Host) -> None:
        """Undo separate()."""
        self._route("del", other)
        other._route("del", self)

    def _route(self, verb: str, other: Host) -> None:
        self.run("ip", "route", verb, "blackhole", f"{other.address}/32")

    def freeze(self) -> None:
        """Stop every process of the host."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        self.run("sh", "-c", f"kill -{number} -1; true")


def try_host() -> None:
    """Start a host and power it off. Raises HostError where this machine lets us make none."""
    with switched() as switch:
        host = Host(switch, "trial", 200)
        try:
            host.power_on()
        finally:
            host.power_off()


@contextlib.contextmanager
def switched() -> Iterator[Switch]:
    """A switch, removed at the end."""
    switch = Switch()
    try:
        yield switch
    finally:
        switch.end()
