"""ZMTP by hand, for connections that no library makes."""

from __future__ import annotations

import socket
import struct

from tests.patience import scaled


def zmtp_connection(endpoint: str, identity: bytes = b"") -> socket.socket:
    """A connection to `endpoint` after a DEALER's handshake (ZMTP 3.0, NULL)."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(scaled(60))
    connection.connect(endpoint.removeprefix("ipc://"))
    greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
    connection.sendall(greeting)
    ready = b"".join(
        (
            b"\x05READY",
            b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER",
            b"\x08Identity" + struct.pack(">I", len(identity)) + identity,
        )
    )
    connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
    received = b""
    while len(received) < len(greeting) + 2 or len(received) < len(greeting) + 2 + received[len(greeting) + 1]:
        part = connection.recv(4096)
        assert part, "the peer hung up during the handshake"
        received += part
    return connection


def send_frame(connection: socket.socket, frame: bytes) -> None:
    """A message of one short frame."""
    connection.sendall(bytes([0, len(frame)]) + frame)


def wait_for_end(connection: socket.socket) -> None:
    """Read until the peer closes the connection. Raises TimeoutError."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
