"""Listening unix sockets. An existing file at the path is replaced, so the caller must hold a lock."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

_BACKLOG: Final = 512


def listen(endpoint: str) -> socket.socket:
    """A listening socket at `endpoint` (ipc://PATH). Raises OSError with a message."""
    path = path_of(endpoint)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        Path(path).unlink(missing_ok=True)
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {endpoint}: {error.strerror or error}") from error
    return listener


def stop_listening(listener: socket.socket, endpoint: str) -> None:
    """Close the socket, and remove its name."""
    listener.close()
    Path(path_of(endpoint)).unlink(missing_ok=True)


def path_of(endpoint: str) -> str:
    """PATH of ipc://PATH."""
    return endpoint.removeprefix("ipc://")
