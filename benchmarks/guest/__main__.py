"""python -m benchmarks.guest: how a burst of reads disturbs the pinned vcpu of a guest. Needs KVM of the hardware.

Each burst has a virtual machine of its own, so that every pool is cold. Its only vcpu is pinned to one CPU; its only
program (inside/burst.c) runs a busy loop that measures its own interruptions, first without I/O, then while a burst of
O_DIRECT reads is out. The ways to serve the disk take turns in each round. Meanwhile the threads of QEMU, and of the
server, are sampled for the CPUs that they may use.

`scripts/guest-kernel.sh build/guest` and `make nbdkit-plugin` come first. With --function-only the machine is emulated:
that shows that everything works, and measures nothing.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.guest import machine
from benchmarks.guest.qmp import Monitor
from benchmarks.nbd_peers import nbdkit_aiod
from benchmarks.own_daemon import own_daemon
from benchmarks.spawner.figures import quantile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BLOCK_BYTES: Final = 4096
BLOCKS: Final = (256 << 20) // BLOCK_BYTES
KVM: Final = Path("/dev/kvm")
NO_KVM_STATUS: Final = 3
_PATIENCE_S: Final = 120.0
_SAMPLED_MS: Final = 1000
"""How long an emulated guest runs after its burst at least: the workers end with it, and are to be seen before."""
WORKERS: Final = ("worker", "aiod-w")
"""How the names of the workers of QEMU (with debug-threads=on) and of aiod begin."""

console = Console(width=None if sys.stdout.isatty() else 150)
Figures = dict[str, float]


def lacks_kvm() -> str:
    """Why this machine cannot run guests by its hardware, as a sentence; empty if it can."""
    if not os.access(KVM, os.R_OK | os.W_OK):
        return f"{KVM} is missing, or may not be opened"
    if platform.machine() == "x86_64" and not {"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split()):
        return f"the CPUs have neither vmx nor svm: {KVM} is not that of the hardware"
    return ""


Way = Callable[[Path, Path], AbstractContextManager["Served"]]
"""Serves a file, with sockets in a directory."""


class Served(NamedTuple):
    """A disk: QEMU's arguments for it, and the processes that serve it beside QEMU."""

    arguments: list[str]
    pids: Callable[[], list[int]]
    qemu: str = machine.QEMU


@contextmanager
def threads_of(qemu: str, file: Path, _sockets: Path, *, by_vcpu: bool = False) -> Iterator[Served]:
    """The thread pool of QEMU itself. `by_vcpu`: the vcpu's thread submits, as in 2011, not QEMU's main loop."""
    drive = f"file={file},format=raw,if=none,id=disk,cache=none,aio=threads"
    device = f"virtio-blk-pci,drive=disk,ioeventfd={'off' if by_vcpu else 'on'}"
    yield Served(["-drive", drive, "-device", device], list, qemu)


@contextmanager
def aiod_nbd(file: Path, sockets: Path) -> Iterator[Served]:
    """The workers of aiod, by NBD."""
    socket = sockets / "nbd"
    with (
        own_daemon(sockets, file.parent, "direct = true\n") as daemon,
        nbdkit_aiod(daemon.endpoint, f"bench/{file.name}", socket, direct=True),
    ):
        blockdev = f"driver=nbd,node-name=disk,server.type=unix,server.path={socket},cache.direct=on"
        yield Served(["-blockdev", blockdev, "-device", "virtio-blk-pci,drive=disk"], daemon.pids)


@contextmanager
def aiod_vhost(file: Path, sockets: Path) -> Iterator[Served]:
    """The workers of aiod, by vhost-user-blk."""
    socket = sockets / "vhost"
    toml = f'direct = true\n[vhost.disk]\nsocket = "{socket}"\nexport = "bench"\npath = "{file.name}"\n'
    with own_daemon(sockets, file.parent, toml) as daemon:
        yield Served(machine.vhost_disk(socket), daemon.pids)


def ways_of(more_qemus: Sequence[str]) -> dict[str, Way]:
    """The ways to serve the disk, by name. `more_qemus`: programs beside the QEMU of this machine."""
    qemus = {"QEMU's threads": machine.QEMU} | {f"threads of {qemu}": qemu for qemu in more_qemus}
    ways: dict[str, Way] = {}
    for name, qemu in qemus.items():
        ways[name] = partial(threads_of, qemu)
        ways[f"{name}, vcpu submits"] = partial(threads_of, qemu, by_vcpu=True)
    ways["aiod, NBD"] = aiod_nbd
    ways["aiod, vhost-user-blk"] = aiod_vhost
    return ways


def make_file(path: Path) -> Path:
    """A disk whose blocks begin with their numbers."""
    rest = bytes(BLOCK_BYTES - 8)
    with path.open("wb") as file:
        for number in range(BLOCKS):
            file.write(number.to_bytes(8, "little") + rest)
        os.fsync(file.fileno())
    return path


class Run(NamedTuple):
    """What one guest said, and how many workers served it, by the CPUs that they might use ("0-1")."""

    idle: Figures
    burst: Figures
    workers: dict[str, int]

    @property
    def worker_count(self) -> int:
        """All workers."""
        return sum(self.workers.values())


class Setting(NamedTuple):
    """What all guests have in common."""

    program: Path
    cpu: int
    reads: int
    window_ms: int
    kvm: bool


def workers_of(pid: int) -> dict[int, str]:
    """The workers of a process, with the kernel's list of the CPUs that each may use."""
    workers = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
            if status["Name"].startswith(WORKERS):
                workers[int(task.name)] = status["Cpus_allowed_list"]
    return workers


def pin_and_start(socket: Path, cpu: int) -> None:
    """Pin the only vcpu of the machine behind the monitor's socket, and let it run. OSError if QEMU does not answer."""
    with Monitor(socket) as monitor:
        (vcpu,) = monitor.vcpu_threads()
        os.sched_setaffinity(vcpu, {cpu})
        monitor.ask("cont")


def boot(served: Served, setting: Setting, seed: int) -> Run:
    """One guest, from its start to its end. RuntimeError with its console if it does not do its work."""
    environment = {"READS": setting.reads, "WINDOW_MS": setting.window_ms, "BLOCKS": BLOCKS, "SEED": seed}
    workers: dict[int, str] = {}
    with tempfile.TemporaryDirectory(prefix="aiod-b-") as directory:
        socket = Path(directory) / "qmp"
        arguments = ["-S", "-qmp", f"unix:{socket},server=on,wait=off", *served.arguments]
        with machine.guest(setting.program, arguments, environment, cpus=1, kvm=setting.kvm, qemu=served.qemu) as guest:
            try:
                pin_and_start(socket, setting.cpu)
            except OSError as error:
                raise RuntimeError(f"{served.qemu} did not start:\n{guest.console}") from error
            end_s = time.monotonic() + _PATIENCE_S
            while guest.running and time.monotonic() < end_s:
                for pid in (guest.process.pid, *served.pids()):
                    workers |= workers_of(pid)
                time.sleep(0.01)
            said = guest.console
    return Run(figures_in(said, "idle"), figures_in(said, "burst"), Counter(workers.values()))


def figures_in(said: str, name: str) -> Figures:
    """The figures of a line "guest: NAME {...}". RuntimeError with all that was said if there is none."""
    for line in said.splitlines():
        _, found, figures = line.partition(f"guest: {name} ")
        if found:
            return dict(json.loads(figures))
    raise RuntimeError(f"the guest did not end its work:\n{said}")


def measure(ways: dict[str, Way], setting: Setting, file: Path, rounds: int) -> dict[str, list[Run]]:
    """Guests of all ways in turn."""
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for seed in track(range(1, rounds + 1), "rounds", console=console, transient=True):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory(prefix="aiod-b-") as sockets, way(file, Path(sockets)) as served:
                runs[name].append(boot(served, setting, seed))
    return runs


def show(runs: dict[str, list[Run]], setting: Setting) -> None:
    """The table of a terminal."""
    title = f"bursts of {setting.reads} O_DIRECT reads of a vcpu pinned to CPU {setting.cpu}; µs"
    table = Table("", title=title)
    headings = ("guests", "idle: longest gap, p50", "p99", "burst: longest gap, p50", "p99", "max", "in submit, p50")
    for heading in (*headings, "burst done, p50", "workers", "confined"):
        table.add_column(heading, justify="right")
    for name, ones in runs.items():
        idle = [one.idle["longest_gap_us"] for one in ones]
        gaps = [one.burst["longest_gap_us"] for one in ones]
        numbers = (
            len(ones), statistics.median(idle), quantile(idle, 0.99), statistics.median(gaps), quantile(gaps, 0.99),
            max(gaps), statistics.median(one.burst["submit_us"] for one in ones),
            statistics.median(one.burst["done_us"] for one in ones),
            statistics.median(one.worker_count for one in ones),
            statistics.median(one.workers.get(str(setting.cpu), 0) for one in ones),
        )  # fmt: skip
        table.add_row(name, *(f"{number:,.0f}" for number in numbers))
    console.print(table)


def show_function(runs: dict[str, list[Run]], setting: Setting) -> None:
    """What worked, without a figure of speed."""
    for name, ones in runs.items():
        for one in ones:
            allowed = ", ".join(f"{count} on CPUs {cpus}" for cpus, count in sorted(one.workers.items()))
            console.print(
                f"{name}: the guest read and verified its burst, with its vcpu on CPU {setting.cpu}; "
                f"workers, and the CPUs that they might use: {allowed or 'none seen'}"
            )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=31, show_default=True, help="Guests of each way.")
@click.option("--reads", default=64, show_default=True, help="Reads of a burst; at most 256.")
@click.option("--window-ms", default=50, show_default=True, help="How long the loops run.")
@click.option("--qemu", multiple=True, help="Another QEMU whose threads take part, e.g. one without the patch.")
@click.option("--function-only", is_flag=True, help="Emulate the machine, once for each way; measure nothing.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the disk is made; not a tmpfs.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(
    rounds: int,
    reads: int,
    window_ms: int,
    qemu: tuple[str, ...],
    function_only: bool,  # noqa: FBT001 - click passes it by name
    directory: str,
    output: Path | None,
) -> None:
    """Measure how bursts disturb a guest's pinned vcpu. Exit status 3: this machine has no KVM of its hardware."""
    if not function_only and (problem := lacks_kvm()):
        console.print(
            f"There is no usable KVM here: {problem}. Nothing is measured, since figures of an emulated machine say "
            "nothing. --function-only shows that all of it works; python -m benchmarks.guest.bursts needs no KVM.",
            soft_wrap=True,
        )
        sys.exit(NO_KVM_STATUS)
    if problem := machine.missing():
        raise click.ClickException(problem)
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        program = machine.compile_init(Path(__file__).parent / "inside" / "burst.c", data / "init")
        window_ms = max(window_ms, _SAMPLED_MS) if function_only else window_ms
        setting = Setting(program, min(os.sched_getaffinity(0)), reads, window_ms, kvm=not function_only)
        runs = measure(ways_of(qemu), setting, make_file(data / "disk"), 1 if function_only else rounds)
    if function_only:
        show_function(runs, setting)
        return
    show(runs, setting)
    path = output or Path(__file__).parent.parent / "results" / f"guest-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {name: [one._asdict() for one in ones] for name, ones in runs.items()}
    path.write_text(json.dumps({"runs": figures, "kernel": platform.release()}, indent=2) + "\n")
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
