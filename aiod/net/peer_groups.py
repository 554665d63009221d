"""The groups of the peer of a unix socket, from the kernel (SO_PEERGROUPS)."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import struct
from typing import Final

_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_GID: Final = struct.Struct("I")
_BYTES_MAX: Final = 1024  # what Python lets getsockopt return: 256 groups


def groups_of(connection: socket.socket) -> frozenset[int]:
    """The gids of the peer at its connect(), with the primary one. Any thread.

    For a peer with more than 256 groups, this asks the user database, which may block.
    """
    _, uid, gid = credentials_of(connection)
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _BYTES_MAX)
    except OSError as error:
        return frozenset({gid, *_by_database(uid, gid)}) if error.errno == errno.ERANGE else frozenset({gid})
    return frozenset({gid, *(group for (group,) in _GID.iter_unpack(packed))})


def credentials_of(connection: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid of the peer at its connect()."""
    pid, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid, gid


def groups_at(fd: int, pid: int, uid: int, gid: int) -> frozenset[int]:
    """The gids of the peer that connected as `pid`, `uid` and `gid`; its descriptor in libzmq is `fd`.

    libzmq may have closed it meanwhile, and the number may have been reused: then only the primary group is known.
    """
    try:
        duplicate = os.dup(fd)
    except OSError:
        return frozenset({gid})
    try:
        connection = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return frozenset({gid})
    with connection:
        try:
            same = connection.family == socket.AF_UNIX and credentials_of(connection) == (pid, uid, gid)
            return groups_of(connection) if same else frozenset({gid})
        except OSError:
            return frozenset({gid})


def _by_database(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return []
