"""What an engine has the supervisor keep, for the engine that comes after it: a witness of each open file.

A witness is the file opened once more, which nobody flushes: the kernel tells each open file once of a failed
write-back, so one that the dead engine was told of, and did not live to pass on, is told again on the witness. It keeps
the inode in memory too, and an error that nobody was told of with it; and it is there still when the name is not.

Messages on a SOCK_SEQPACKET pair, msgpack arrays: `["keep", token, handle, record]` with the descriptor, `["drop",
token, handle]`, `["end", token]` from the engine, and from its workers (core/ops/flush.h) `["poisoned", dev, ino]` when
a flush of a file has failed; to a new engine the first of these for all there are, the last one, and `["all"]`.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Final, NamedTuple

import msgpack

MESSAGE_BYTES_MAX: Final = 16 * 1024

Message = tuple[list[Any], int]
"""The message, and the descriptor that came with it (-1: none)."""


class Witness(NamedTuple):
    """One of them."""

    token: bytes
    """Of the session."""
    handle: int
    fd: int
    who: str
    """Whose session it is (Peer.who)."""
    pid: int
    """Of its client, -1 where that is unknown."""
    export: str
    flags: int
    """That it was opened with, of READ, WRITE, APPEND and DIRECT."""
    dev: int
    ino: int


def pack(witness: Witness) -> bytes:
    """The message that keeps it."""
    token, handle, _, *record = witness
    return packed("keep", token, handle, record)


def packed(*message: Any) -> bytes:
    """Another message."""
    data: bytes = msgpack.packb(message, use_bin_type=True)
    return data


def unpack(message: list[Any], fd: int) -> Witness:
    """The witness of a "keep"."""
    _, token, handle, record = message
    return Witness(token, handle, fd, *record)


def receive(end: socket.socket) -> Message | None:
    """The next message; None: the other end is gone. Raises BlockingIOError where `end` does not block."""
    data, fds, _, _ = socket.recv_fds(end, MESSAGE_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        for fd in fds:
            os.close(fd)
        return None
    return msgpack.unpackb(data), fds[0] if fds else -1
