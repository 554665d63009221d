"""Messages of the descriptor store, where the supervisor keeps a descriptor of each file that an engine has open.

The next engine inherits these descriptors, as a service inherits those of systemd's descriptor store. A stored
descriptor is a second open file description of the same file, and nobody flushes through it. The kernel reports a
failed write-back once to each open file description; so an error that the engine had read but not passed on when it
died is reported again through the stored one. It also keeps the inode in memory, and with it an error that nobody has
read, and it stays valid when the name is gone.

Messages on a SOCK_SEQPACKET pair, msgpack arrays. From the engine: `["keep", token, handle, record]` with the
descriptor, `["drop", token, handle]`, `["end", token]`; from its workers (core/ops/flush.h) `["poisoned", dev, ino]`
when a flush of a file has failed. To a new engine: all of the "keep" and "poisoned" messages, then `["all"]`.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Final, NamedTuple

import msgpack

MESSAGE_BYTES_MAX: Final = 16 * 1024

Message = tuple[list[Any], int]
"""A message, and the descriptor that came with it (-1: none)."""


class StoredDescriptor(NamedTuple):
    """One descriptor in the store."""

    token: bytes
    """Token of the session that opened the file."""
    handle: int
    fd: int
    principal: str
    """User or key of the session (Peer.principal)."""
    pid: int
    """Process of the client, -1 where it is unknown."""
    export: str
    flags: int
    """Flags of the open: READ, WRITE, APPEND and DIRECT."""
    dev: int
    ino: int


def pack(stored: StoredDescriptor) -> bytes:
    """Pack the "keep" message of `stored`."""
    token, handle, _, *record = stored
    return packed("keep", token, handle, record)


def kept_by_workers(token: bytes, principal: str, pid: int, export: str) -> tuple[bytes, bytes]:
    """The parts of the "keep" messages about files of `export` that workers send (core/ops/notices.c).

    The token, and the record up to the export: handle, flags, device and inode are added.
    """
    record = StoredDescriptor(token, 0, -1, principal, pid, export, 0, 0, 0)[3:]
    head = bytes([0x90 + len(record)])  # msgpack: the head of a short array
    return packed_one(token), head + b"".join(packed_one(member) for member in (principal, pid, export))


def packed_one(member: Any) -> bytes:
    """Pack a member of a message."""
    data: bytes = msgpack.packb(member, use_bin_type=True)
    return data


def packed(*message: Any) -> bytes:
    """Pack any other message."""
    data: bytes = msgpack.packb(message, use_bin_type=True)
    return data


def unpack(message: list[Any], fd: int) -> StoredDescriptor:
    """The descriptor of a "keep" message, which came with `fd`."""
    _, token, handle, record = message
    return StoredDescriptor(token, handle, fd, *record)


def receive(end: socket.socket) -> Message | None:
    """The next message; None at end of file. Raises BlockingIOError where `end` does not block."""
    data, fds, _, _ = socket.recv_fds(end, MESSAGE_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        for fd in fds:
            os.close(fd)
        return None
    return msgpack.unpackb(data), fds[0] if fds else -1
