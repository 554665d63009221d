"""Copies a real tree of files through a daemon of its own: the standard library of the running Python.

Starts `aiod` with the embedded default configuration in directories of its own, writes every file in batches, flushes,
reads all files back, compares them by SHA-256, shows `aiodctl stats` and `aiodctl threads`, and stops the daemon. The
exit status is 0 only if every file matches.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

import aiod_client

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_FILES = 64
BLOCK_BYTES = 256 * 1024
BIN = Path(sys.executable).parent

console = Console()


class Source(NamedTuple):
    """A file to copy."""

    path: Path
    name: str
    """The name in the export, which is one directory."""
    size: int


LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "tests"}
"""Directories that are no part of the library, or most of its size."""


def sources() -> list[Source]:
    """All regular files of the standard library, its tests excepted."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name not in LEFT_OUT and not name.startswith("config-")]
        for name in files:
            path = Path(directory) / name
            if path.is_file() and not path.is_symlink():
                flat = str(path.relative_to(root)).replace("%", "%25").replace("/", "%2F")
                found.append(Source(path, flat, path.stat().st_size))
    return sorted(found)


def blocks(size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of each block."""
    return ((offset, min(BLOCK_BYTES, size - offset)) for offset in range(0, size, BLOCK_BYTES))


def write_all(client: aiod_client.Client, files: list[Source], progress: Progress) -> dict[str, str]:
    """Write every file in batches, then flush it; returns the SHA-256 of the data written, by name."""
    digests = {}
    task = progress.add_task("writing", total=sum(source.size for source in files))
    pending: deque[tuple[Source, aiod_client.File, list[Any]]] = deque()

    def finish() -> None:
        source, file, futures = pending.popleft()
        for future in futures:
            future.result()
        file.flush()
        file.close()
        progress.update(task, advance=source.size)

    for source in files:
        data = source.path.read_bytes()
        digests[source.name] = hashlib.sha256(data).hexdigest()
        file = client.open(f"scratch/{source.name}", "w")
        batch = [("write", data[offset : offset + length], offset) for offset, length in blocks(len(data))]
        pending.append((source, file, file.submit(batch)))
        if len(pending) >= OPEN_FILES:
            finish()
    while pending:
        finish()
    return digests


def read_all(client: aiod_client.Client, files: list[Source], progress: Progress) -> dict[str, str]:
    """Read every file back in batches; returns the SHA-256 of the data read, by name."""
    digests = {}
    task = progress.add_task("reading back", total=sum(source.size for source in files))
    pending: deque[tuple[Source, aiod_client.File, list[Any]]] = deque()

    def finish() -> None:
        source, file, futures = pending.popleft()
        digest = hashlib.sha256()
        for future in futures:
            digest.update(future.result())
        digests[source.name] = digest.hexdigest()
        file.close()
        progress.update(task, advance=source.size)

    for source in files:
        file = client.open(f"scratch/{source.name}")
        batch = [("read", length, offset) for offset, length in blocks(file.size())]
        pending.append((source, file, file.submit(batch)))
        if len(pending) >= OPEN_FILES:
            finish()
    while pending:
        finish()
    return digests


@contextmanager
def own_daemon(base: Path) -> Iterator[dict[str, str]]:
    """A daemon with the embedded default configuration below `base`; yields the environment of its clients."""
    environment = os.environ | {
        "AIOD_ENDPOINT": f"ipc://{base}/run/aiod.sock",
        "XDG_STATE_HOME": str(base / "state"),
    }
    environment.pop("AIOD_CONFIG", None)
    process = subprocess.Popen([BIN / "aiod"], env=environment)
    try:
        subprocess.run([BIN / "aiodctl", "ping", "--wait", "30"], env=environment, check=True)
        yield environment
    finally:
        process.terminate()
        status = process.wait(60)
    console.print(f"the daemon has stopped with exit status {status}")
    if status:
        sys.exit(f"the daemon did not stop cleanly: exit status {status}")


def copy_all(endpoint: str, files: list[Source]) -> int:
    """Copy the files through the daemon and back; returns how many do not match."""
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    began_s = time.monotonic()
    with aiod_client.connect(endpoint) as client, Progress(*columns, console=console) as progress:
        written = write_all(client, files, progress)
        read = read_all(client, files, progress)
    wrong = [source.name for source in files if written[source.name] != read.get(source.name)]
    for name in wrong:
        console.print(f"DIFFERS: {name}", style="red")
    size = sum(source.size for source in files)
    console.print(
        f"{len(files) - len(wrong)} of {len(files)} files match by SHA-256 "
        f"({size / 2**20:.1f} MiB written, flushed and read back in {time.monotonic() - began_s:.1f} s)"
    )
    return len(wrong)


def main() -> int:
    """Run the demo; returns its exit status."""
    files = sources()
    # /tmp may be memory, /var/tmp is a real file system. The path must be short enough for a socket.
    with (
        tempfile.TemporaryDirectory(prefix="aiod-demo-", dir="/var/tmp") as base,
        own_daemon(Path(base)) as environment,
    ):
        console.print(f"copying {len(files)} files of {sysconfig.get_path('stdlib')}")
        wrong = copy_all(environment["AIOD_ENDPOINT"], files)
        for verb in ("stats", "threads"):
            console.print(f"\n$ aiodctl {verb}")
            subprocess.run([BIN / "aiodctl", verb], env=environment, check=True)
    return 1 if wrong or not files else 0


sys.exit(main())
