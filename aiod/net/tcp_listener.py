"""Listening tcp sockets."""

from __future__ import annotations

import socket
from typing import Final

_BACKLOG: Final = 512


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening socket on `host` (a name, an address, or "*" for all addresses) and `port` (0: any free one).

    Raises OSError with a message.
    """
    try:
        found = socket.getaddrinfo(
            None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # For "*" prefer the socket that accepts IPv4 as well.
        family, kind, protocol, _, address = max(found, key=lambda each: host == "*" and each[0] == socket.AF_INET6)
        listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on tcp {host}:{port}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "*"))
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on tcp {host}:{port}: {error.strerror or error}") from error
    return listener


def port_of(listener: socket.socket) -> int:
    """The port of `listener`."""
    return int(listener.getsockname()[1])


def endpoint_of(listener: socket.socket) -> str:
    """The endpoint of `listener`, as libzmq writes it."""
    host, port = listener.getsockname()[:2]
    return f"tcp://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"tcp://{host}:{port}"
