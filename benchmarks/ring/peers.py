"""The servers and files of the contenders: the daemon, and NBD servers that start when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.nbd_peers import nbdkit, qemu_nbd

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from benchmarks.own_daemon import OwnDaemon

CACHED = "cached"
DIRECT = "direct"
"""The file for O_DIRECT; it is an export with `direct = true` as well."""


class Peers:
    """The servers and files, shared by all scenarios."""

    def __init__(self, stack: ExitStack, daemon: OwnDaemon, sockets: Path, files: Path) -> None:
        """`stack` ends the servers; `sockets` has a short path."""
        self.daemon = daemon
        self.cached = files / CACHED
        self.direct = files / DIRECT
        self._stack = stack
        self._sockets = sockets
        self._uris: dict[str, str] = {}

    def nbdkit(self) -> str:
        """The NBD URI of nbdkit serving the cached file. RuntimeError or OSError if it does not start."""
        if "nbdkit" not in self._uris:
            self._uris["nbdkit"] = self._stack.enter_context(nbdkit(self.cached, self._sockets / "nbdkit.sock"))
        return self._uris["nbdkit"]

    def qemu_nbd(self) -> str:
        """The NBD URI of qemu-nbd serving the cached file."""
        if "qemu-nbd" not in self._uris:
            self._uris["qemu-nbd"] = self._stack.enter_context(qemu_nbd(self.cached, self._sockets / "qemu-nbd.sock"))
        return self._uris["qemu-nbd"]

    def qemu_nbd_direct(self) -> str:
        """The NBD URI of qemu-nbd serving the other file with O_DIRECT."""
        if "direct" not in self._uris:
            socket = self._sockets / "qemu-direct.sock"
            self._uris["direct"] = self._stack.enter_context(qemu_nbd(self.direct, socket, cache="none"))
        return self._uris["direct"]
