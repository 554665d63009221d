"""The asyncio client: the names of `aiod_client`, awaited. Works on asyncio's own loop and on uvloop.

    async with aiod_client.aio.connect() as client, await client.open("scratch/disk.img") as f:
        await f.pread(4096, 0)

Everything belongs to the loop it was made on and may be used by any of its tasks. What the tasks of one turn of the
loop ask for travels in one message. A cancelled await cancels the request: one that had been sent may be executed
nevertheless, and its buffer is its own until the daemon has answered. Where an operation takes a `timeout` (seconds),
None stands for the client's own and math.inf for no limit.
"""

from aiod_client.aio.client import Client, Connecting, connect
from aiod_client.aio.file import File, RequestFuture

__all__ = ["Client", "Connecting", "File", "RequestFuture", "connect"]
