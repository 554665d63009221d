"""Two network namespaces on this machine, joined by a pair of veth devices, or by delay.c where there is a delay."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER: Final = "10.77.0.1"
CLIENT: Final = "10.77.0.2"
_FLAGS: Final = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread", "-Wall", "-Wextra", "-Werror")
_TUN_MTU: Final = 65000
"""As long as the packets that a veth device carries whole (TCP segmentation offload)."""


class Link(NamedTuple):
    """The commands that run a program at either end of the link."""

    server: tuple[str, ...]
    client: tuple[str, ...]


def build_delay(directory: Path) -> Path:
    """Compile delay.c in `directory`. Raises CalledProcessError if the compiler fails."""
    program = directory / "delay"
    source = Path(__file__).parent / "delay.c"
    subprocess.run([os.environ.get("CC", "cc"), *_FLAGS, str(source), "-o", str(program)], check=True)
    return program


def _ip(*arguments: str) -> None:
    command = ["ip", *arguments]
    subprocess.run(command, check=True)


@contextmanager
def link(delay: Path, delay_us: int) -> Iterator[Link]:
    """A link whose packets arrive `delay_us` after they were sent, by the program `delay`; 0: by veth. Needs root."""
    server, client = f"aiod-b-{os.getpid()}-s", f"aiod-b-{os.getpid()}-c"
    ends = ((server, SERVER), (client, CLIENT))
    try:
        for namespace, _ in ends:
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        with _devices(delay, delay_us, server, client):
            for namespace, address in ends:
                _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "bench0")
                _ip("-n", namespace, "link", "set", "bench0", "up", *(["mtu", str(_TUN_MTU)] if delay_us else []))
            yield Link(("ip", "netns", "exec", server), ("ip", "netns", "exec", client))
    finally:
        for namespace, _ in ends:
            delete = ["ip", "netns", "del", namespace]
            subprocess.run(delete, check=False, stderr=subprocess.DEVNULL)


@contextmanager
def _devices(delay: Path, delay_us: int, server: str, client: str) -> Iterator[None]:
    """The device bench0 in both namespaces."""
    if not delay_us:
        _ip("link", "add", "bench0", "netns", server, "type", "veth", "peer", "name", "bench0", "netns", client)
        yield
        return
    command = [str(delay), server, client, str(delay_us)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - they are pipes
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("delay did not start")
        yield
        process.stdin.close()
