"""A slow disk that fails some reads and writes: nbdkit's error and delay filters, mounted by nbdfuse."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

from tests.service.faulty_disk import end, wait_for
from tests.service.file_systems import unmount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ERROR_RATE = "1%"
DELAY = "1ms"
NEEDS = ("nbdkit", "nbdfuse")


@contextlib.contextmanager
def failing_disk(base: Path, size_bytes: int) -> Iterator[Path]:
    """The file of `size_bytes` that it is seen as; what it stores is in `base`."""
    image, socket, point = base / "image", base / "socket", base / "mounted"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    # fmt: off
    server = subprocess.Popen(
        ["nbdkit", "--foreground", "--exit-with-parent", "--unix", str(socket), "--filter=error", "--filter=delay",
         "file", str(image), "error=EIO", f"error-rate={ERROR_RATE}", f"delay-read={DELAY}", f"delay-write={DELAY}"],
        stderr=subprocess.DEVNULL,
    )
    # fmt: on
    try:
        wait_for(socket, server)
        path = point / "nbd"
        mount = subprocess.Popen(["nbdfuse", str(path), "--unix", str(socket)], stderr=subprocess.PIPE, text=True)
        try:
            wait_for(path, mount)
            yield path
        finally:
            unmount(point)
            end(mount)
    finally:
        server.terminate()
        end(server)
