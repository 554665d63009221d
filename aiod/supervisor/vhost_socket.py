"""The listening socket of a disk for a guest. It stays while its engine is replaced: a VMM that connects then waits."""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path
from typing import Final

_BACKLOG: Final = 16
_MODE: Final = 0o666
"""Everyone may connect; the engine refuses users that the export does not admit."""


class VhostSocket:
    """Main loop thread only."""

    def __init__(self, path: str) -> None:
        """Nothing listens yet."""
        self.path = path
        self._listener: socket.socket | None = None

    def listen(self) -> socket.socket:
        """The listening socket, from the first call on. Raises OSError with a message."""
        if self._listener is None:
            self._listener = _listen(self.path)
        return self._listener

    def close(self) -> None:
        """Close it, and remove its name."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            Path(self.path).unlink(missing_ok=True)


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(path)
        listener.bind(path)
        Path(path).chmod(_MODE)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror or error}") from error
    return listener


def _remove_stale(path: str) -> None:
    """Remove a socket that no process listens on. Another daemon's is left alone."""
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "another kind of file has this name")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "another process listens there")
