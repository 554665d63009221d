"""The asyncio client: the names of `aiod_client`, awaited. Works on asyncio's own loop and on uvloop.

    async with aiod_client.aio.connect() as client, await client.open("scratch/disk.img") as f:
        await f.pread(4096, 0)

Everything belongs to the loop that it was created on, and any task of that loop may use it. The requests of one turn of
the loop travel in one message. A cancelled await cancels the request: a request that was sent may be executed
nevertheless, and its buffer must not be changed until the daemon has answered. `timeout` is in seconds; None: the
client's; math.inf: no limit.
"""

from aiod_client.aio import files
from aiod_client.aio.client import Client, Connecting, connect
from aiod_client.aio.file import File, RequestFuture
from aiod_client.aio.file_lock import FileLock
from aiod_client.aio.names import DirEntry

__all__ = ["Client", "Connecting", "DirEntry", "File", "FileLock", "RequestFuture", "connect", "files"]
