"""An NBD server over a daemon's file: nbdkit with nbdkit-aiod-plugin, as `make nbdkit-plugin` builds it."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.conftest import listens, wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
PLUGIN: Final = ROOT / "build" / "nbdkit-aiod-plugin.so"


def build_plugin() -> None:
    """Build the plugin, unless it is there."""
    subprocess.run(["make", "--silent", "nbdkit-plugin"], cwd=ROOT, check=True)


@contextlib.contextmanager
def nbd_server(endpoint: str, path: str, *arguments: str) -> Iterator[str]:
    """Serve `path` of the daemon at `endpoint`. Yields the NBD URI."""
    with tempfile.TemporaryDirectory(prefix="aiod-nbd-", dir="/tmp") as directory:
        socket = Path(directory) / "nbd.sock"
        command = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", str(socket), str(PLUGIN), path]
        with subprocess.Popen([*command, f"endpoint={endpoint}", *arguments]) as server:
            try:
                wait_until(lambda: listens(socket) or server.poll() is not None, "nbdkit's socket")
                assert server.poll() is None
                yield f"nbd+unix:///?socket={socket}"
            finally:
                server.terminate()
                server.wait(scaled(60.0))
