"""The peers: qemu-nbd (aio=threads, the patch's own descendant) and nbdkit, driven by fio's nbd engine."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fio import Figures, fio, job
from benchmarks.listening import listening

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLUGIN = Path(__file__).parents[1] / "build" / "nbdkit-aiod-plugin.so"


@contextmanager
def qemu_nbd(file: Path, socket: Path, *, cache: str = "writeback") -> Iterator[str]:
    """qemu-nbd serving `file`, by default through the page cache; its NBD URI."""
    command = [
        "qemu-nbd", "--aio=threads", f"--cache={cache}", "--persistent", "--shared=8", "-f", "raw", "-k", str(socket),
        str(file),
    ]  # fmt: skip
    with listening(command, socket):
        yield f"nbd+unix:///?socket={socket}"


@contextmanager
def nbdkit(file: Path, socket: Path) -> Iterator[str]:
    """Nbdkit's file plugin serving `file`; its NBD URI."""
    with listening(["nbdkit", "-f", "-U", str(socket), "file", str(file)], socket):
        yield f"nbd+unix:///?socket={socket}"


@contextmanager
def nbdkit_aiod(endpoint: str, path: str, socket: Path, *, direct: bool = False) -> Iterator[str]:
    """nbdkit-aiod-plugin serving `path` of the daemon at `endpoint`; its NBD URI."""
    arguments = [path, f"endpoint={endpoint}", f"direct={str(direct).lower()}"]
    with listening(["nbdkit", "-f", "-U", str(socket), str(_PLUGIN), *arguments], socket):
        yield f"nbd+unix:///?socket={socket}"


def fio_nbd(uri: str, *, rw: str, block_bytes: int, depth: int, size: int, seconds: float) -> Figures:
    """One run of fio's nbd engine against `uri`."""
    return fio(
        "--ioengine=nbd", f"--uri={uri}", rw=rw, block_bytes=block_bytes, depth=depth, size=size, seconds=seconds
    )


def fio_flushing(uri: str, *, jobs: int, block_bytes: int, seconds: float) -> float:
    """Pairs of write and flush per second of `jobs` connections that flush after every write to their own block."""
    command = [
        "fio", "--name=aiod", "--ioengine=nbd", f"--uri={uri}", "--rw=write", f"--bs={block_bytes}", "--iodepth=1",
        "--fsync=1", f"--numjobs={jobs}", "--group_reporting", f"--size={block_bytes}",
        f"--offset_increment={block_bytes}", f"--runtime={seconds}", "--time_based", "--output-format=json",
    ]  # fmt: skip
    return float(job(command)["write"]["iops"])
