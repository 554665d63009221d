"""Where the daemon is found, and whether anything listens there. Safe from any thread."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Final

from aiod_client.errors import AiodError, DaemonUnreachableError, ProtocolError

SYSTEM_DIR: Final = "/run/aiod"
FRONT_NAME: Final = "aiod.sock"

_IPC: Final = "ipc://"
_TCP: Final = "tcp://"
_ANY_HOST: Final = "tcp://*"
_TRANSPORTS: Final = (_IPC, _TCP)


def default_runtime_dir() -> str:
    """The directory of this user's daemon: XDG_RUNTIME_DIR/aiod, /run/aiod for root, else /tmp/aiod-UID."""
    if xdg := os.environ.get("XDG_RUNTIME_DIR"):
        return str(Path(xdg) / "aiod")
    uid = os.getuid()
    return SYSTEM_DIR if uid == 0 else f"/tmp/aiod-{uid}"  # noqa: S108 - the daemon makes it with mode 0700


def front_endpoint(runtime_dir: str) -> str:
    """The front endpoint of the daemon whose sockets are in `runtime_dir`."""
    return f"{_IPC}{runtime_dir}/{FRONT_NAME}"


def default_endpoint() -> str:
    """AIOD_ENDPOINT if set, else this user's daemon, else (where this user has none) the system's daemon."""
    if named := os.environ.get("AIOD_ENDPOINT"):
        return named
    own = front_endpoint(default_runtime_dir())
    system = front_endpoint(SYSTEM_DIR)
    if not Path(own.removeprefix(_IPC)).exists() and Path(system.removeprefix(_IPC)).exists():
        return system
    return own


def check(endpoint: str) -> None:
    """Raise AiodError (EINVAL) unless `endpoint` is of a kind that this client can connect to."""
    if not endpoint.startswith(_TRANSPORTS):
        raise AiodError(errno.EINVAL, f"endpoint {endpoint!r}: write ipc:///path/of/socket or tcp://host:port")


def of_engine(front: str, engine: str) -> str:
    """The engine's endpoint that LOCATE at `front` was answered with: "*" stands for the host that was asked.

    Raises ProtocolError for one of another transport: a daemon elsewhere does not say which local sockets to use.
    """
    transport = _IPC if front.startswith(_IPC) else _TCP
    if not engine.startswith(transport):
        raise ProtocolError(errno.EPROTO, f"the daemon at {front} names an engine at {engine!r}")
    if transport == _TCP and engine.startswith(_ANY_HOST):
        return front.rpartition(":")[0] + engine.removeprefix(_ANY_HOST)
    return engine


def probe(endpoint: str) -> None:
    """Raise DaemonUnreachableError at once if nothing listens at `endpoint`; never waits.

    libzmq itself would go on trying in silence. Says nothing about other transports than ipc: the answer to HELLO does.
    """
    if not endpoint.startswith(_IPC):
        return
    path = endpoint.removeprefix(_IPC)
    # "@name" is libzmq's word for the abstract name space.
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        try:
            connection.connect(address)
        except BlockingIOError:
            pass  # Somebody listens; the backlog is full at the moment.
        except OSError as error:
            raise DaemonUnreachableError(
                errno.ECONNREFUSED,
                f"no aiod at {endpoint} ({error.strerror or error}): start aiod, or set AIOD_ENDPOINT",
            ) from error
