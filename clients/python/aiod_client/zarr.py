"""aiod as a store of Zarr: the keys below a directory EXPORT/PATH of a daemon.

    import zarr
    from aiod_client.zarr import AiodStore

    array = zarr.create_array(AiodStore("scratch/array.zarr"), shape=(4096, 4096), chunks=(512, 512), dtype="f4")

A value is a file, read and written by one request; a reader finds the former value or the new one, whole. A directory
whose last key is deleted goes, too, so that what is listed is what has been set. Needs the extra `zarr`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, default_buffer_prototype

from aiod_client import lazy
from aiod_client.base_client import TIMEOUT_S
from aiod_client.requests.whole_files import directory_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import BufferPrototype

    from aiod_client import aio
    from aiod_client.blocking.client import Client
    from aiod_client.records import Entry
    from aiod_client.ring.attach import Transport

T = TypeVar("T")

_TRIES: Final = 16
"""How often a value is written while others delete its directory, as their own last key of it goes."""

_TEMPORARY: Final = re.compile(r"\.aiod-[0-9a-f]{16}")
"""The name of a file that is being written."""


class AiodStore(Store):  # type: ignore[misc]  # optional, so unknown to the type checker
    """The keys below `root`, "EXPORT" or "EXPORT/PATH". Nothing is connected before the first use; may be pickled.

    zarr.open() and its like await it in Zarr's own loop. The synchronous methods use the blocking client in the
    caller's thread.
    """

    _is_open: bool
    supports_writes: bool = True
    supports_deletes: bool = True
    supports_listing: bool = True

    def __init__(  # noqa: PLR0913 - connect()'s, and its own
        self,
        root: str,
        *,
        endpoint: str | None = None,
        key: str | None = None,
        server_key: str | None = None,
        transport: Transport = "auto",
        timeout: float | None = TIMEOUT_S,
        reconnect_timeout: float | None = None,
        prefer: str | Sequence[str] | None = None,
        host_timeout: float | None = None,
        read_only: bool = False,
    ) -> None:
        """The arguments from `endpoint` to `host_timeout` are those of connect()."""
        super().__init__(read_only=read_only)
        self.root = os.fspath(root).removeprefix("aiod://").strip("/")
        self.settings = lazy.settings(
            endpoint, key, server_key, transport, timeout, reconnect_timeout, prefer, host_timeout
        )

    def with_read_only(self, read_only: bool = False) -> Self:  # noqa: FBT001, FBT002 - Zarr's
        """The same store with this setting; not opened yet."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__, _read_only=read_only, _is_open=False)
        return other

    def __eq__(self, other: object) -> bool:
        """Whether it means the same keys of the same daemon."""
        return isinstance(other, type(self)) and (self.root, self.settings) == (other.root, other.settings)

    def __hash__(self) -> int:
        """Of what __eq__() compares."""
        return hash((self.root, self.settings))

    def __str__(self) -> str:
        """The URL."""
        return f"aiod://{self.root}"

    def __repr__(self) -> str:
        """The URL."""
        return f"AiodStore('{self}')"

    # ---- opening ----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        client = await self._client()
        if self.read_only:
            await client.stat(self.root)
        else:
            await _make_directories(client, self.root)
        await super()._open()

    async def _opened(self) -> aio.Client:
        if not self._is_open:
            await self._ensure_open()
        return await self._client()

    async def _client(self) -> aio.Client:
        return await lazy.awaited_client(self.settings)

    def _opened_sync(self) -> Client:
        client = lazy.blocking_client(self.settings)
        if not self._is_open:
            if self.read_only:
                client.stat(self.root)
            else:
                _make_directories_sync(client, self.root)
            self._is_open = True
        return client

    def _path(self, key: str) -> str:
        key = key.strip("/")
        return f"{self.root}/{key}" if key else self.root

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The value, or a part of it; None: there is none."""
        client = await self._opened()
        path = self._path(key)
        try:
            if byte_range is None:
                data = await client.read_file(path)
            else:
                async with await client.open(path) as file:
                    size = await file.size() if _needs_size(byte_range) else 0
                    data = await file.pread(*_span(byte_range, size))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As get(), without an event loop."""
        client = self._opened_sync()
        path = self._path(key)
        try:
            if byte_range is None:
                data = client.read_file(path)
            else:
                with client.open(path) as file:
                    size = file.size() if _needs_size(byte_range) else 0
                    data = file.pread(*_span(byte_range, size))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """The parts of values, in order."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        try:
            return stat.S_ISREG((await (await self._opened()).stat(self._path(key))).mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    async def getsize(self, key: str) -> int:
        """The bytes of a value. Raises FileNotFoundError."""
        try:
            found = await (await self._opened()).stat(self._path(key))
        except NotADirectoryError as error:
            raise FileNotFoundError(key) from error
        if not stat.S_ISREG(found.mode):
            raise FileNotFoundError(key)
        return found.size

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def set(self, key: str, value: Buffer) -> None:
        """Replace a value."""
        client, path, data = await self._opened(), self._path(key), self._checked(value)
        await _creating(client, path, lambda: client.write_file(path, data))

    def set_sync(self, key: str, value: Buffer) -> None:
        """As set(), without an event loop."""
        client, path, data = self._opened_sync(), self._path(key), self._checked(value)
        for _ in range(_TRIES):
            try:
                client.write_file(path, data)
            except FileNotFoundError:
                _make_directories_sync(client, directory_of(path))
            else:
                return
        client.write_file(path, data)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Set a value unless there is one: no other writer comes between."""
        client, path, data = await self._opened(), self._path(key), self._checked(value)
        with contextlib.suppress(FileExistsError):
            await _creating(client, path, lambda: client.write_file(path, data, exclusive=True))

    def _checked(self, value: Buffer) -> Any:
        self._check_writable()
        if not isinstance(value, Buffer):
            raise TypeError(f"the value is a {type(value).__name__}: a Buffer is wanted")
        return value.as_buffer_like()

    # ---- deleting ---------------------------------------------------------------------------------------------------

    async def delete(self, key: str) -> None:
        """Delete a value, or all below a prefix; nothing happens if there is none."""
        self._check_writable()
        client, path = await self._opened(), self._path(key)
        try:
            await client.remove(path)
        except IsADirectoryError:
            await client.rmtree(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        await self._prune(client, path)

    def delete_sync(self, key: str) -> None:
        """As delete(), without an event loop."""
        self._check_writable()
        client, path = self._opened_sync(), self._path(key)
        try:
            client.remove(path)
        except IsADirectoryError:
            client.rmtree(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        with contextlib.suppress(OSError):  # not empty, or gone
            while (path := directory_of(path)) != self.root:
                client.rmdir(path)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all below a prefix. Raises ValueError if it is a value's key."""
        self._check_writable()
        client, path = await self._opened(), self._path(prefix)
        if path == self.root:
            await _empty(client, path)
            return
        try:
            await client.rmtree(path)
        except FileNotFoundError:
            return
        except NotADirectoryError as error:
            if await self.exists(prefix):
                raise ValueError(f"delete_dir: {prefix!r} is the key of a value") from error
            return
        await self._prune(client, path)

    async def _prune(self, client: aio.Client, path: str) -> None:
        """Remove the directories above `path` that have become empty."""
        with contextlib.suppress(OSError):  # not empty, or gone
            while (path := directory_of(path)) != self.root:
                await client.rmdir(path)

    # ---- listing ----------------------------------------------------------------------------------------------------

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """The keys below `prefix`, from the root of the store on."""
        client = await self._opened()
        todo = [prefix.strip("/")]
        while todo:
            at = todo.pop()
            for entry in await _entries(client, self._path(at)):
                name = f"{at}/{entry.name}" if at else entry.name
                if entry.kind == "dir":
                    todo.append(name)
                else:
                    yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names in the directory `prefix`."""
        for entry in await _entries(await self._opened(), self._path(prefix)):
            yield entry.name


def _needs_size(wanted: ByteRequest) -> bool:
    """Whether the span depends on the size of the value. Raises TypeError for what is no ByteRequest."""
    if not isinstance(wanted, RangeByteRequest | OffsetByteRequest | SuffixByteRequest):
        raise TypeError(f"Unexpected byte_range, got {wanted}.")
    return not isinstance(wanted, RangeByteRequest)


def _span(wanted: ByteRequest, size: int) -> tuple[int, int]:
    """The length and offset of a part of a value of `size` bytes."""
    if isinstance(wanted, RangeByteRequest):
        return max(0, wanted.end - wanted.start), wanted.start
    first = wanted.offset if isinstance(wanted, OffsetByteRequest) else max(0, size - wanted.suffix)
    return max(0, size - first), first


async def _entries(client: aio.Client, path: str) -> list[Entry]:
    """What is in a directory, but for files that are being written; nothing if there is none."""
    try:
        return [entry for entry in await client.list(path) if not _TEMPORARY.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


async def _creating(client: aio.Client, path: str, create: Callable[[], Awaitable[T]]) -> T:
    """Await what create() returns, and make the directory of `path` when it is missing."""
    for _ in range(_TRIES):
        try:
            return await create()
        except FileNotFoundError:
            await _make_directories(client, directory_of(path))
    return await create()


async def _make_directories(client: aio.Client, path: str) -> None:
    """Make a directory and those above it, where they are missing."""
    if "/" in path:
        await client.makedirs(path, exist_ok=True)
    else:
        await client.stat(path)  # an export


def _make_directories_sync(client: Client, path: str) -> None:
    if "/" in path:
        client.makedirs(path, exist_ok=True)
    else:
        client.stat(path)


async def _empty(client: aio.Client, path: str) -> None:
    """Remove all below a directory, which others may do, too."""
    for entry in await client.list(path):
        with contextlib.suppress(FileNotFoundError):
            await (client.rmtree if entry.kind == "dir" else client.remove)(f"{path}/{entry.name}")
