"""A GlusterFS of one process: its FUSE mount over a directory. It identifies its files, and can be killed.

Needs root and glusterfs; the test is skipped, with the reason, where one is missing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import freeze, wait_until
from tests.service.file_systems import run, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator

_VOLUME = """
volume store
    type storage/posix
    option directory {brick}
end-volume
volume locks
    type features/locks
    subvolumes store
end-volume
volume cached
    type performance/write-behind
    option flush-behind off
    subvolumes locks
end-volume
"""


class OneBrick:
    """`path` is the mount, `brick` the directory below it."""

    def __init__(self, base: Path) -> None:
        """Keep everything in `base`."""
        self.path = base / "mounted"
        self.brick = base / "brick"
        self._volume = base / "volume"
        self._pid_file = base / "pid"
        self._log = base / "log"
        for directory in (self.path, self.brick):
            directory.mkdir()
        self._volume.write_text(_VOLUME.format(brick=self.brick))

    def mount(self) -> None:
        """Start the process, and wait until the mount answers."""
        files = (f"--volfile={self._volume}", f"--pid-file={self._pid_file}", f"--log-file={self._log}")
        run("glusterfs", *files, "--attribute-timeout=0", "--entry-timeout=0", str(self.path))
        wait_until(lambda: os.path.ismount(self.path), "the mount")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the process meanwhile (SIGSTOP): what is asked of the mount hangs in the kernel, and ends afterwards."""
        freeze(self._pid)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process: the mount is dead, and still there."""
        pid = self._pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or _is_zombie(pid), "the server has ended")

    @property
    def _pid(self) -> int:
        return int(self._pid_file.read_text())

    def unmount(self) -> None:
        """Remove the mount, dead or not."""
        unmount(self.path)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextlib.contextmanager
def one_brick(base: Path) -> Iterator[OneBrick]:
    """Mounted; unmounted at the end."""
    run("glusterfs", "--version")
    if not Path("/dev/fuse").exists():
        pytest.skip("no FUSE on this machine")
    made = OneBrick(base)
    made.mount()
    try:
        yield made
    finally:
        with contextlib.suppress(OSError, ValueError):
            made.kill()
        # all of them: a dead mount that a failed test has left below another one, too
        while subprocess.run(["umount", "--lazy", str(made.path)], capture_output=True, check=False).returncode == 0:
            pass
