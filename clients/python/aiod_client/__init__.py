"""The Python client of aiod: file I/O carried out by a daemon, for programs that must not stall.

    import aiod_client

    with aiod_client.connect() as client, client.open("scratch/disk.img", "w+") as f:
        f.pwrite(b"data", 0)
        f.flush()
        assert f.pread(4, 0) == b"data"

`aiod_client.aio` has the same names to be awaited. Errors are OSError subclasses with the errno; the protocol's and the
connection's own are AiodError.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aiod_client import fileobj, ops
from aiod_client.blocking.client import Client, connect
from aiod_client.blocking.file import File
from aiod_client.blocking.file_lock import FileLock
from aiod_client.blocking.future import RequestFuture
from aiod_client.blocking.names import DirEntry
from aiod_client.errors import (
    AiodError,
    DaemonUnreachableError,
    LockLostError,
    ProtocolError,
    SessionLostError,
    written,
)
from aiod_client.records import Counters, Entry, Extent, FileStat
from aiod_client.requests.whole_files import FileContent
from aiod_client.ring.attach import Transport
from aiod_client.session.handshake import version
from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from aiod_client import aio

    __version__: str

__all__ = [
    "AiodError",
    "Client",
    "Counters",
    "DaemonUnreachableError",
    "DirEntry",
    "Entry",
    "Extent",
    "File",
    "FileContent",
    "FileLock",
    "FileStat",
    "LockLostError",
    "ProtocolError",
    "Reason",
    "RequestFuture",
    "SessionLostError",
    "Transport",
    "__version__",
    "aio",
    "connect",
    "fileobj",
    "ops",
    "written",
]


if not TYPE_CHECKING:  # a type checker would take every name for there

    def __getattr__(name: str) -> Any:
        if name == "aio":  # asyncio costs megabytes and milliseconds: only for programs that await
            return importlib.import_module("aiod_client.aio")
        if name == "__version__":
            return version()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
