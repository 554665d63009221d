"""The servers of one disk each: aiod, and qemu-storage-daemon with each of its ways to do I/O."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from benchmarks.listening import listening
from benchmarks.ring.programs import figures_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.own_daemon import OwnDaemon

ROOT: Final = Path(__file__).parents[2]
VHOST_BENCH: Final = ROOT / "build" / "vhost-bench"
AIOD_BENCH: Final = ROOT / "build" / "aiod-bench"


class Contender:
    """A server with the program that loads it."""

    def __init__(self, name: str, command: Callable[[bool], list[str]], pids: Callable[[], list[int]]) -> None:
        """`command`: the load generator's, given whether the driver polls for completions."""
        self.name = name
        self._command = command
        self._pids = pids

    def run(self, *, polls: bool, rw: str, block_bytes: int, depth: int, seconds: float) -> dict[str, Any]:
        """The figures of one run, with the server's CPU microseconds for each request."""
        load = ["--rw", rw, "--bs", str(block_bytes), "--depth", str(depth), "--seconds", str(seconds), "--json"]
        before_s = self._cpu_s()
        done = figures_of([*self._command(polls), *load], seconds)
        return done | {"server_cpu_us": (self._cpu_s() - before_s) / done["operations"] * 1e6}

    def _cpu_s(self) -> float:
        times = [psutil.Process(pid).cpu_times() for pid in self._pids()]
        return sum(one.user + one.system for one in times)


def by_vhost(name: str, socket: Path, pids: Callable[[], list[int]]) -> Contender:
    """A vhost-user-blk server."""
    return Contender(
        name, lambda polls: [str(VHOST_BENCH), "--socket", str(socket), *(["--poll"] if polls else [])], pids
    )


def by_ring(name: str, daemon: OwnDaemon, file: str) -> Contender:
    """The ring of aiod; its client polls before it sleeps, or sleeps at once."""
    command = [str(AIOD_BENCH), "--endpoint", daemon.endpoint, "--file", file]
    return Contender(name, lambda polls: [*command, *([] if polls else ["--no-spin"])], daemon.pids)


@contextmanager
def qemu_storage_daemon(file: Path, socket: Path, *, aio: str, direct: bool, queues: int = 1) -> Iterator[int]:
    """qemu-storage-daemon serving `file`; its pid. RuntimeError if it does not start."""
    address = f"addr.type=unix,addr.path={socket}"
    # without a lock, since the servers of a benchmark share the file
    options = f"aio={aio},cache.direct={'on' if direct else 'off'},discard=unmap,locking=off"
    command = [
        "qemu-storage-daemon",
        "--blockdev", f"driver=file,node-name=disk,filename={file},{options}",
        "--export", f"type=vhost-user-blk,id=disk,node-name=disk,writable=on,num-queues={queues},{address}",
    ]  # fmt: skip
    with listening(command, socket) as pid:
        yield pid
