"""A disk that fails and stalls on demand: a real server, nbdkit, mounted as a file by nbdfuse.

Faults are switched on by making a file, and off by removing it. A stall is a gate, not a time: what has reached the
disk waits there until the test opens it. Every command that arrives is in nbdkit's log, so that a test can count them.

nbdfuse passes on reads, writes (FUSE cuts them at 1 MiB), flushes, FALLOC_FL_ZERO_RANGE and FALLOC_FL_PUNCH_HOLE; a
FUA write arrives as a write and a flush. nbdkit's error filter has no error for flush: the storage below, a shell
script for each command, does that, and holds the gates.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import listens
from tests.patience import scaled
from tests.service.file_systems import run, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2**20
SIZE_BYTES = 8 * MIB
START_TIMEOUT_S = scaled(60.0)
STOP_TIMEOUT_S = scaled(10.0)

FAULTS = ("pread", "pwrite", "zero", "trim")
"""Commands that nbdkit's error filter can fail."""

# The variables are set in front of each script; nbdkit gives the command, the client's handle, count and offset.
_GET_SIZE = "stat --format=%s $image"
_HOLD = "while [ -e $faults/hold-{0} ]; do sleep 0.01; done"
_PREAD = f"{_HOLD.format('pread')}; dd if=$image bs=1M skip=$4 count=$3 iflag=count_bytes,skip_bytes status=none"
_PWRITE = f"""
{_HOLD.format("pwrite")}
if [ -e $faults/bad-from ] && [ $(($3 + $4)) -gt "$(cat $faults/bad-from)" ]; then echo EIO bad blocks >&2; exit 1; fi
dd of=$image bs=1M seek=$4 conv=notrunc oflag=seek_bytes iflag=fullblock status=none"""
_FLUSH = f"""
{_HOLD.format("flush")}
if [ -e $faults/flush ]; then echo EIO flush failed >&2; exit 1; fi"""
_ZERO = "fallocate --keep-size --punch-hole --offset $4 --length $3 $image"


class FaultyDisk:
    """`path`: the disk, a file of SIZE_BYTES; `image`: what it has stored, to be read behind its back."""

    def __init__(self, base: Path) -> None:
        """Made by faulty_disk()."""
        self.base = base
        self.point = base / "mounted"
        self.path = self.point / "nbd"
        self.image = base / "image"
        self._faults = base / "faults"
        self._log = base / "log"

    @contextlib.contextmanager
    def failing(self, command: str) -> Iterator[None]:
        """Fail all commands of that name with EIO meanwhile: flush, or one of FAULTS."""
        assert command in (*FAULTS, "flush")
        with self._marked(command):
            yield

    @contextlib.contextmanager
    def holding(self, command: str) -> Iterator[None]:
        """Stall all commands of that name (pread, pwrite, flush) meanwhile."""
        assert command in ("pread", "pwrite", "flush")
        with self._marked(f"hold-{command}"):
            yield

    @contextlib.contextmanager
    def bad_from(self, offset: int) -> Iterator[None]:
        """Fail writes beyond `offset` with EIO; they write nothing."""
        with self._marked("bad-from", str(offset)):
            yield

    def arrived(self, command: str) -> int:
        """Number of commands of that name (Read, Write, Flush, Zero, Trim) so far."""
        return len(re.findall(rf"{command} id=\d+ .*\.\.\.$", self._log.read_text(), re.MULTILINE))

    @contextlib.contextmanager
    def _marked(self, name: str, content: str = "") -> Iterator[None]:
        marker = self._faults / name
        written = marker.with_suffix(".new")
        written.write_text(content)
        written.rename(marker)
        try:
            yield
        finally:
            marker.unlink()

    @contextlib.contextmanager
    def _serve(self) -> Iterator[Path]:
        """Run nbdkit; its socket."""
        for directory in (self._faults, self.point):
            directory.mkdir()
        self._log.touch()
        with self.image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        variables = f"image={shlex.quote(str(self.image))}; faults={shlex.quote(str(self._faults))}; "
        scripts = {
            "get_size": _GET_SIZE,
            "pread": _PREAD,
            "pwrite": _PWRITE,
            "flush": _FLUSH,
            "zero": _ZERO,
            "trim": _ZERO,
        }
        faults = [f"error-{name}-rate=100%" for name in FAULTS]
        faults += [f"error-{name}-file={self._faults / name}" for name in FAULTS]
        socket = self.base / "socket"
        server = subprocess.Popen(
            [
                "nbdkit",
                "--foreground",
                "--exit-with-parent",
                "--unix",
                str(socket),
                "--filter=log",
                "--filter=error",
                "eval",
            ]
            + [f"{name}={variables}{script}" for name, script in scripts.items()]
            + [f"logfile={self._log}", *faults],
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(socket, server)
            yield socket
        finally:
            for marker in self._faults.iterdir():  # a script must not wait for ever
                marker.unlink()
            server.terminate()
            end(server)

    @contextlib.contextmanager
    def served(self) -> Iterator[FaultyDisk]:
        """Both servers; the file is at `path` meanwhile."""
        with self._serve() as socket:
            mount = subprocess.Popen(
                ["nbdfuse", str(self.path), "--unix", str(socket)], stderr=subprocess.PIPE, text=True
            )
            try:
                wait_for(self.path, mount)
                yield self
            finally:
                unmount(self.point)
                end(mount)


def end(process: subprocess.Popen[Any]) -> None:
    """Wait for its end; kill it if a process still has the disk open."""
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(path: Path, process: subprocess.Popen[Any]) -> None:
    """Wait until `process` has made the file `path`; if that is a socket, until it listens there."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while not (listens(path) if path.is_socket() else path.exists()):
        if process.poll() is not None or time.monotonic() > end_s:
            process.kill()
            pytest.skip(f"the faulty disk does not start: {process.communicate()[1]!r}")
        time.sleep(0.01)


@contextlib.contextmanager
def faulty_disk(base: Path) -> Iterator[FaultyDisk]:
    """A faulty disk with its files in `base`; skips the test with a reason where this machine cannot provide one."""
    for command in ("nbdkit", "nbdfuse"):
        run(command, "--version")
    with FaultyDisk(base).served() as disk:
        yield disk
