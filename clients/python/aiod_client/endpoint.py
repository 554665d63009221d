"""Where the daemon is found, whether anything listens there, and whose it is. Safe from any thread.

An endpoint that the user names is the user's choice. A default endpoint (DefaultEndpoint) may be a trap: any user can
create /tmp/aiod-UID before its owner does. So the client sends nothing there unless no other user can have created the
socket. It checks the owner and mode of the directory, and the uid of the listening process (SO_PEERCRED).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from aiod_client.errors import AiodError, DaemonUnreachableError, ProtocolError
from aiod_protocol.locations import FRONT_NAME, SYSTEM_DIR, default_runtime_dir, front_endpoint

log = logging.getLogger("aiod_client")

_IPC: Final = "ipc://"
_TCP: Final = "tcp://"
_ANY_HOST: Final = "tcp://*"
_TRANSPORTS: Final = (_IPC, _TCP)
_PORT_MAX: Final = 65535
_NEXT: Final = re.compile(r",\s*(?=(?:ipc|tcp)://|$)")
"""What is between two endpoints."""
_CREDENTIALS: Final = struct.Struct("iII")
"""pid, uid, gid: of SO_PEERCRED."""


class DefaultEndpoint(str):
    """An endpoint, or a socket's path, that no user has named: probe() and check_server() check its owner."""

    __slots__ = ()


def default_endpoint() -> str:
    """AIOD_ENDPOINT if set, else this user's daemon, else (where this user has none) the system's daemon.

    A directory that other users could have created, or may write to, is not used. Raises AiodError (EACCES) if there is
    no other.
    """
    if named := os.environ.get("AIOD_ENDPOINT"):
        return named
    distrusted: AiodError | None = None
    for directory in dict.fromkeys((default_runtime_dir(), SYSTEM_DIR)):
        if not _may_exist(f"{directory}/{FRONT_NAME}"):
            continue
        try:
            _check_directory(directory)
        except AiodError as error:
            log.warning("%s", error.strerror)
            distrusted = distrusted or error
        else:
            return DefaultEndpoint(front_endpoint(directory))
    if distrusted is not None:
        raise distrusted
    return DefaultEndpoint(front_endpoint(default_runtime_dir()))


def _may_exist(path: str) -> bool:
    """Whether there is a file at `path`, or this user may not know: then the error of connecting says more."""
    try:
        os.lstat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _check_directory(directory: str) -> int:
    """The uid of its owner. Raises AiodError (EACCES) if users other than root and this one can create sockets there.

    The system's directory belongs to the daemon's user, which root has chosen: only root can create it.
    """
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise _not_ours(directory, "is not a directory (symbolic links are not followed here)")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _not_ours(directory, f"is writable for other users (mode {stat.S_IMODE(status.st_mode):04o})")
    if status.st_uid not in {os.getuid(), 0}:
        parent = Path(directory).parent.stat()
        if parent.st_uid != 0 or parent.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _not_ours(directory, f"belongs to uid {status.st_uid}, and users other than root can have created it")
    return status.st_uid


def _not_ours(path: str, why: str) -> AiodError:
    return AiodError(errno.EACCES, f"{path} {why}: not used; set AIOD_ENDPOINT if this is your daemon nevertheless")


def check_server(path: str, kind: socket.SocketKind) -> None:
    """Raise AiodError (EACCES) if another user may listen at `path`, of a DefaultEndpoint, with a socket of `kind`.

    Raises OSError if no process listens there. Never waits.
    """
    directory = str(Path(path).parent)
    owner = _check_directory(directory)
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as connection:
        try:
            connection.connect(path)
        except BlockingIOError:
            return  # A process listens that the directory's owner has allowed; its backlog is full at the moment.
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid not in {os.getuid(), 0, owner}:
        raise _not_ours(path, f"is served by uid {uid}, which is neither you, nor root, nor the owner of {directory}")


def split(endpoint: str) -> tuple[str, ...]:
    """The endpoints of a list with commas between them. A path may have commas, too."""
    if not _NEXT.search(endpoint):
        return (endpoint,)  # maybe a DefaultEndpoint
    return tuple(dict.fromkeys(each.strip() for each in _NEXT.split(endpoint) if each.strip()))


def check(endpoint: str) -> None:
    """Raise AiodError (EINVAL) unless `endpoint` is one that this client can connect to."""
    if not endpoint.startswith(_TRANSPORTS):
        raise AiodError(errno.EINVAL, f"endpoint {endpoint!r}: write ipc:///path/of/socket or tcp://host:port")
    if is_tcp(endpoint) and (wrong := _wrong_address(endpoint.removeprefix(_TCP))):
        raise AiodError(errno.EINVAL, f"endpoint {endpoint!r}: {wrong}")


def _wrong_address(address: str) -> str:
    """What is wrong with HOST:PORT; "": nothing."""
    host, _, port = address.rpartition(":")
    if "," in address:
        return f"write {_TCP} before each endpoint of a list, also before {address.partition(',')[2]!r}"
    if not host or not port.isdecimal() or not 0 < int(port) <= _PORT_MAX:
        return f"write {_TCP}host:port, with a port from 1 to {_PORT_MAX}"
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return f"write an IPv6 address in brackets, as {_TCP}[{host}]:{port}"
    return ""


def is_tcp(endpoint: str) -> bool:
    """Whether the endpoint is, or may be, another host's."""
    return endpoint.startswith(_TCP)


def of_engine(front: str, engine: str) -> str:
    """The endpoint for `engine`, the answer to LOCATE at `front`: "*" in it stands for the host of `front`.

    A socket is the one beside() `front`.

    Raises ProtocolError for another transport: a daemon on another host must not name local sockets.
    """
    transport = _IPC if front.startswith(_IPC) else _TCP
    if not engine.startswith(transport):
        raise ProtocolError(errno.EPROTO, f"the daemon at {front} names an engine at {engine!r}")
    if transport == _TCP and engine.startswith(_ANY_HOST):
        return front.rpartition(":")[0] + engine.removeprefix(_ANY_HOST)
    if transport == _IPC:
        engine = _IPC + beside(front, engine.removeprefix(_IPC))
    return DefaultEndpoint(engine) if isinstance(front, DefaultEndpoint) else engine


def beside(endpoint: str, path: str) -> str:
    """`path`, of a socket of the daemon at `endpoint`, as this process sees it.

    In a container the daemon's directory may be mounted in another place than that of which the daemon knows.
    """
    if not endpoint.startswith(f"{_IPC}/") or not path.startswith("/"):
        return path
    sibling = Path(endpoint.removeprefix(_IPC)).with_name(Path(path).name)
    return str(sibling) if _may_exist(str(sibling)) else path


def probe(endpoint: str) -> None:
    """Raise DaemonUnreachableError at once if nothing listens at `endpoint`; never waits.

    Raises AiodError (EACCES) if it is a DefaultEndpoint and another user may listen there. libzmq itself would try
    again and again without a message. Checks ipc only: for other transports the answer to HELLO tells.
    """
    if not endpoint.startswith(_IPC):
        return
    path = endpoint.removeprefix(_IPC)
    try:
        if isinstance(endpoint, DefaultEndpoint):
            check_server(path, socket.SOCK_STREAM)
        else:
            _connect(path)
    except AiodError:
        raise
    except PermissionError as error:
        raise DaemonUnreachableError(
            errno.ECONNREFUSED,
            f"the aiod at {endpoint} is not for this user ({error.strerror}): become a member of the group of its"
            " directory, or set AIOD_ENDPOINT",
        ) from error
    except OSError as error:
        raise DaemonUnreachableError(
            errno.ECONNREFUSED,
            f"no aiod at {endpoint} ({error.strerror or error}): start aiod, or set AIOD_ENDPOINT",
        ) from error


def _connect(path: str) -> None:
    # libzmq writes "@name" for the abstract name space.
    address = "\0" + path[1:] if path.startswith("@") else path
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection,
        contextlib.suppress(BlockingIOError),  # A process listens; its backlog is full at the moment.
    ):
        connection.connect(address)
