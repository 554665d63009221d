"""The contenders, the cells that each can measure, and how each is run."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.matrix import clients, servers
from benchmarks.matrix.cells import ASYNCIO, BLOCKING, THREADS, C
from benchmarks.ring.in_python import SYSTEM_PYTHON
from benchmarks.ring.page_cache import Cached, NotCached, PageCache
from benchmarks.ring.turns import Contender, Measured

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.matrix.cells import Cell
    from benchmarks.matrix.clients import Done
    from benchmarks.matrix.servers import Served
    from benchmarks.own_daemon import OwnDaemon

AIOD: Final = "aiod, ring"
"""For each language, the contender that the others are compared with."""
AIOD_ZMQ: Final = "aiod, ZeroMQ"
AIOD_FIO: Final = "aiod, fio's engine"
ECHO: Final = "pyzmq echo"
LIMITS: Final = ("fio psync", "fio io_uring", "os.pread")
"""Contenders that make the system calls in the client's process, without a daemon."""
EXPORTS: Final = ("first", "second")
"""aiod's exports by engine; O_DIRECT has "direct"."""


class Place:
    """The place of a run: the daemon, the files, short paths for sockets."""

    def __init__(self, daemon: OwnDaemon, files: Path, sockets: Path) -> None:
        self.daemon = daemon
        self.sockets = sockets
        self.cached = files / EXPORTS[0] / "cached"
        self.cached_too = files / EXPORTS[1] / "cached"
        self.direct = files / EXPORTS[0] / "direct"

    def file(self, cell: Cell) -> Path:
        """Path of the file of a cell."""
        return self.direct if cell.cache == "direct" else self.cached

    def exported(self, cell: Cell) -> list[str]:
        """The same file in aiod's name space: EXPORT/PATH."""
        if cell.cache == "direct":
            return ["direct/direct"]
        return [f"{export}/cached" for export in EXPORTS[: cell.engines]]

    def page_cache(self, cell: Cell) -> PageCache:
        """The state of the page cache that the cell requires."""
        return NotCached(self.direct) if cell.cache == "direct" else Cached(self.cached)


class Peer(NamedTuple):
    """A program or library that is measured."""

    name: str
    languages: tuple[str, ...]
    install: str
    """The command that installs it; empty: it is installed."""
    found: Callable[[], bool]
    can: Callable[[Cell], bool]
    serve: Callable[[Place, Cell], AbstractContextManager[Served]]
    drive: Callable[[Place, Cell, Served, float], Done]

    def contender(self, place: Place, cell: Cell) -> Contender:
        """The callable for its turns in that cell."""

        def run(seconds: float) -> Measured:
            if not self.found():
                raise RuntimeError(f"not installed: {self.install}")
            with self.serve(place, cell) as served:
                done = self.drive(place, cell, served, seconds)
            return done.measured(served.spent)

        return Contender(cell.key, self.name, run, place.page_cache(cell))


def contenders(place: Place, cell: Cell) -> list[Contender]:
    """All contenders that can measure the cell."""
    return [peer.contender(place, cell) for peer in PEERS if cell.language in peer.languages and peer.can(cell)]


# ---- installed contenders


def _command(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _package(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


@functools.cache
def _has_libnbd() -> bool:
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-c", "import nbd"], capture_output=True, check=False)
    except OSError:
        return False
    return not done.returncode


# ---- capabilities


def _anything(_: Cell) -> bool:
    return True


def _plain(cell: Cell) -> bool:
    """Cells with several handles, engines or a worker limit apply to aiod only."""
    return cell.handles == cell.engines == 1 and not cell.workers


def _plain_or_workers(cell: Cell) -> bool:
    return cell.handles == cell.engines == 1


def _through_the_cache(cell: Cell) -> bool:
    return _plain(cell) and cell.cache == "cached"


def _one_at_a_time(cell: Cell) -> bool:
    return _plain(cell) and (cell.depth == 1 or cell.language == THREADS)


def _one_client_reads(cell: Cell) -> bool:
    """A few cells: what fio itself costs shows in them."""
    return _plain(cell) and cell.what.reads_percent == 100 and cell.clients == 1


def _echo_can(cell: Cell) -> bool:
    return _through_the_cache(cell) and cell.what.reads_percent == 100 and cell.clients == 1


# ---- servers


def _aiod(place: Place, cell: Cell) -> AbstractContextManager[Served]:
    return servers.aiod(place.daemon, place.exported(cell), cell.workers)


def _nobody(place: Place, cell: Cell) -> AbstractContextManager[Served]:
    return servers.nobody(str(place.file(cell)))


def _nbdkit(place: Place, cell: Cell) -> AbstractContextManager[Served]:
    socket = place.sockets / "nbdkit.sock"
    command = ["nbdkit", "-f", "-U", str(socket), "file", str(place.file(cell))]
    return servers.program(servers.Program(command, socket, f"nbd+unix:///?socket={socket}"))


def _qemu_nbd(aio: str) -> Callable[[Place, Cell], AbstractContextManager[Served]]:
    def serve(place: Place, cell: Cell) -> AbstractContextManager[Served]:
        socket = place.sockets / "qemu-nbd.sock"
        cache = "none" if cell.cache == "direct" else "writeback"
        command = [
            "qemu-nbd", f"--aio={aio}", f"--cache={cache}", "--persistent", "--shared=0", "-f", "raw", "-k",
            str(socket), str(place.file(cell)),
        ]  # fmt: skip
        return servers.program(servers.Program(command, socket, f"nbd+unix:///?socket={socket}"))

    return serve


def _nbd_server(place: Place, cell: Cell) -> AbstractContextManager[Served]:
    socket, pid_file, config = (place.sockets / name for name in ("nbd.sock", "nbd.pid", "nbd.conf"))
    config.write_text(
        f"[generic]\nunixsock = {socket}\nlistenaddr = 127.0.0.1\nport = 10999\n"
        f"[file]\nexportname = {place.file(cell)}\nflush = true\n"
    )
    command = ["nbd-server", "-C", str(config), "-p", str(pid_file)]
    return servers.program(servers.Program(command, socket, f"nbd+unix:///file?socket={socket}", pid_file))


def _echo(place: Place, cell: Cell) -> AbstractContextManager[Served]:
    socket = place.sockets / "echo.sock"
    command = [sys.executable, "-m", "benchmarks.echo", f"ipc://{socket}", str(cell.what.block_bytes)]
    return servers.program(servers.Program(command, socket, f"ipc://{socket}"))


# ---- clients


def _aiod_bench(place: Place, cell: Cell, served: Served, seconds: float) -> Done:
    return clients.by_aiod_bench(cell, served, seconds, place.daemon.endpoint)


def _fio(engine: str) -> Callable[[Place, Cell, Served, float], Done]:
    return lambda _, cell, served, seconds: clients.by_fio(cell, served, seconds, engine)


def _aiod_by_fio(place: Place, cell: Cell, served: Served, seconds: float) -> Done:
    engine = f"external:{clients.FIO_ENGINE}"
    return clients.by_fio(cell, served, seconds, engine, f"--endpoint={place.daemon.endpoint}")


def _aiod_python(transport: str) -> Callable[[Place, Cell, Served, float], Done]:
    def drive(place: Place, cell: Cell, served: Served, seconds: float) -> Done:
        options = {"endpoint": place.daemon.endpoint, "transport": transport}
        return clients.by_python(cell, served, seconds, _kind(cell, "aiod", **options))

    return drive


def _python(
    library: str, style: str = "", python: str = sys.executable, **options: Any
) -> Callable[[Place, Cell, Served, float], Done]:
    def drive(_: Place, cell: Cell, served: Served, seconds: float) -> Done:
        kind = _kind(cell, library, **options)
        return clients.by_python(cell, served, seconds, kind | ({"style": style} if style else {}), python)

    return drive


def _kind(cell: Cell, library: str, **options: Any) -> dict[str, Any]:
    style = {BLOCKING: "blocking", THREADS: "threads", ASYNCIO: "uvloop"}[cell.language]
    return {"style": style, "library": library, "options": options}


def _here() -> bool:
    return True


_PIP: Final = "pip install"

PEERS: Final = (
    Peer(AIOD, (C,), "make build/aiod-bench", clients.AIOD_BENCH.exists, _anything, _aiod, _aiod_bench),
    Peer(AIOD_FIO, (C,), "make fio-engine", clients.FIO_ENGINE.exists, _one_client_reads, _aiod, _aiod_by_fio),
    Peer("fio psync", (C,), "apt-get install fio", _command("fio"), _plain_or_workers, _nobody, _fio("psync")),
    Peer("fio io_uring", (C,), "apt-get install fio", _command("fio"), _plain, _nobody, _fio("io_uring")),
    Peer("nbdkit", (C,), "apt-get install nbdkit fio", _command("nbdkit"), _through_the_cache, _nbdkit, _fio("nbd")),
    *(
        Peer(
            f"qemu-nbd, {aio}", (C,), "apt-get install qemu-utils fio", _command("qemu-nbd"), _plain, _qemu_nbd(aio),
            _fio("nbd"),
        )
        for aio in ("threads", "io_uring")
    ),
    Peer(
        "nbd-server", (C,), "apt-get install nbd-server fio", _command("nbd-server"), _through_the_cache, _nbd_server,
        _fio("nbd"),
    ),
    Peer(AIOD, (BLOCKING, ASYNCIO, THREADS), "", _here, _plain, _aiod, _aiod_python("ring")),
    Peer(AIOD_ZMQ, (BLOCKING, ASYNCIO, THREADS), "", _here, _plain, _aiod, _aiod_python("zmq")),
    Peer("os.pread", (BLOCKING, THREADS), "", _here, _one_at_a_time, _nobody, _python("pread")),
    Peer("ThreadPoolExecutor", (BLOCKING,), "", _here, _plain, _nobody, _python("executor")),
    Peer(
        "libnbd on nbdkit", (BLOCKING,), "apt-get install python3-libnbd nbdkit", _has_libnbd, _through_the_cache,
        _nbdkit, _python("libnbd", python=SYSTEM_PYTHON),
    ),
    Peer(ECHO, (BLOCKING,), f"{_PIP} pyzmq", _package("zmq"), _echo_can, _echo, _python("echo")),
    Peer(
        "run_in_executor, uvloop", (ASYNCIO,), f"{_PIP} uvloop", _package("uvloop"), _plain, _nobody,
        _python("executor"),
    ),
    Peer("run_in_executor, asyncio", (ASYNCIO,), "", _here, _plain, _nobody, _python("executor", "asyncio")),
    Peer("aiofiles", (ASYNCIO,), f"{_PIP} aiofiles", _package("aiofiles"), _through_the_cache, _nobody,
         _python("aiofiles")),
    *(
        Peer(
            f"caio, {title}", (ASYNCIO,), f"{_PIP} caio", _package("caio"), _through_the_cache, _nobody,
            _python("caio", context=context),
        )
        for title, context in (("threads", "thread_aio"), ("Linux AIO", "linux_aio"), ("io_uring", "linux_uring"))
    ),
)  # fmt: skip
