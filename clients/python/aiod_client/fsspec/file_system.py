"""The file system: every method of fsspec's that a daemon can do in fewer requests than fsspec's own version.

What fsspec calls from a program without an event loop runs in fsspec's own loop, in another thread. `open()`,
`cat_file()`, `pipe_file()` and `info()` are called most, and the blocking client does them in the caller's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fsspec.asyn import AsyncFileSystem, get_loop, sync, sync_wrapper
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike, stringify_path, tokenize

from aiod_client import lazy
from aiod_client.base_client import TIMEOUT_S
from aiod_client.fsspec import infos, ranges, transfers
from aiod_client.fsspec.files import StreamedFile, open_file
from aiod_client.requests.whole_files import directory_of, temporary_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from aiod_client import aio
    from aiod_client.blocking.client import Client
    from aiod_client.fsspec.infos import Info
    from aiod_client.records import Entry
    from aiod_client.ring.attach import Transport

_CREATES: Final = frozenset("wxa")
T = TypeVar("T")

_TOGETHER_MAX: Final = 64
"""How many files fsspec's own loops have under way at once: an engine lets 256 messages about names wait."""
_STREAMS_MAX: Final = 8
"""How many of them are streams, which have parts in memory."""


class AiodFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The exports of a daemon. A path is EXPORT/PATH; the directory "" has the exports.

    Nothing is connected before the first use. Instances may be pickled and used after a fork.
    """

    _pid: int
    _loop: asyncio.AbstractEventLoop | None
    protocol = "aiod"
    root_marker = ""

    def __init__(  # noqa: PLR0913 - connect()'s, and its own
        self,
        endpoint: str | None = None,
        *,
        key: str | None = None,
        server_key: str | None = None,
        direct: bool = False,
        transport: Transport = "auto",
        timeout: float | None = TIMEOUT_S,
        reconnect_timeout: float | None = None,
        prefer: str | Sequence[str] | None = None,
        host_timeout: float | None = None,
        auto_mkdir: bool = True,
        **options: Any,
    ) -> None:
        """The arguments up to `host_timeout`, but for `direct`, are those of connect().

        `direct` bypasses the page cache (O_DIRECT). With `auto_mkdir` a file that is created in a directory that does
        not exist creates that, as in an object store. `options` are fsspec's.
        """
        options["batch_size"] = options.get("batch_size") or _TOGETHER_MAX
        super().__init__(**options)
        self.direct = direct
        self.auto_mkdir = auto_mkdir
        self.settings = lazy.settings(
            endpoint, key, server_key, transport, timeout, reconnect_timeout, prefer, host_timeout
        )

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop for calls that are not awaited. A forked child gets one of its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._loop = None if self.asynchronous else get_loop()
        return self._loop

    @property
    def client(self) -> Client:
        """The process's blocking client."""
        return lazy.blocking_client(self.settings)

    async def _client(self) -> aio.Client:
        return await lazy.awaited_client(self.settings)

    def close(self) -> None:
        """Close this process's connections to the daemon. The next use connects again."""
        lazy.close(self.settings)

    @property
    def fsid(self) -> str:
        """The same for instances that mean the same files."""
        return f"aiod_{tokenize(self.settings.endpoint)}"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        stripped = super()._strip_protocol(stringify_path(path))
        return stripped.lstrip("/")

    # ---- names ------------------------------------------------------------------------------------------------------

    async def _info(self, path: str, **_: Any) -> Info:
        path = self._strip_protocol(path)
        if not path:
            return infos.of_root()
        client = await self._client()
        with _as_missing(path):
            return infos.of_stat(path, await client.stat(path))

    def info(self, path: str, **_: Any) -> Info:
        """Name, size, type, times and the like; raises FileNotFoundError."""
        path = self._strip_protocol(path)
        if not path:
            return infos.of_root()
        with _as_missing(path):
            return infos.of_stat(path, self.client.stat(path))

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: FBT001, FBT002
        path = self._strip_protocol(path)
        found = await self._list(path)
        return found if detail else [info["name"] for info in found]

    async def _list(self, path: str) -> list[Info]:
        client = await self._client()
        if not path:
            return [{**infos.of_root(), "name": name} for name in await _exports(client)]
        try:
            entries = await client.list(path)
        except NotADirectoryError:
            return [await self._info(path)]
        return [await self._examine(client, f"{path}/{entry.name}", entry) for entry in entries]

    @staticmethod
    async def _examine(client: aio.Client, name: str, entry: Entry) -> Info:
        """The info of an entry: the listing has it, but for what a symbolic link leads to."""
        if entry.stat is not None and entry.kind != "link":
            return infos.of_stat(name, entry.stat)
        try:
            return infos.of_stat(name, await client.stat(name))
        except OSError:  # gone, a link that leads nowhere, or a name that no request can have
            return infos.of_entry(name, entry)

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:  # noqa: FBT001, FBT002
        path = self._strip_protocol(path)
        client = await self._client()
        if create_parents and "/" in path:
            await self._makedirs(directory_of(path), exist_ok=True)
        await client.mkdir(path)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:  # noqa: FBT001, FBT002
        path = self._strip_protocol(path)
        if "/" in path:
            await (await self._client()).makedirs(path, exist_ok=exist_ok)
        elif await self._info(path) and not exist_ok:  # only the daemon's configuration makes exports
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    async def _rmdir(self, path: str) -> None:
        await (await self._client()).rmdir(self._strip_protocol(path))

    rmdir = sync_wrapper(_rmdir)

    async def _rm_file(self, path: str, **_: Any) -> None:
        await (await self._client()).remove(self._strip_protocol(path))

    async def _rm(
        self,
        path: str | list[str],
        recursive: bool = False,  # noqa: FBT001, FBT002
        batch_size: int | None = None,  # noqa: ARG002 - fsspec's
        maxdepth: int | None = None,
        **_: Any,
    ) -> None:
        client = await self._client()
        for each in reversed(await self._expand_path(path, maxdepth=maxdepth)):
            if not await self._isdir(each):
                await client.remove(each)
            elif recursive:
                await client.rmtree(each)
            else:
                raise IsADirectoryError(f"{each} is a directory: give recursive=True to remove it with its files")

    async def _mv(self, path1: str, path2: str, recursive: bool = True, maxdepth: int | None = None, **_: Any) -> None:  # noqa: FBT001, FBT002
        old, new = self._strip_protocol(path1), self._strip_protocol(path2)
        if old == new:
            return
        client = await self._client()
        if await self._isdir(new):
            new = f"{new}/{old.rpartition('/')[2]}"
        try:
            await self._creating(new, lambda: client.rename(old, new))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            await self._copy(old, new, recursive=recursive, maxdepth=maxdepth, on_error="raise")
            await self._rm(old, recursive=recursive)

    mv = sync_wrapper(_mv)

    async def _mv_file(self, path1: str, path2: str, **_: Any) -> None:
        await self._mv(path1, path2)

    def created(self, path: str) -> datetime:
        """When the inode changed last: no file system tells more to everybody."""
        return datetime.fromtimestamp(self.info(path)["created"], tz=UTC)

    def modified(self, path: str) -> datetime:
        """When the content changed last."""
        return datetime.fromtimestamp(self.info(path)["mtime"], tz=UTC)

    # ---- whole files and ranges -------------------------------------------------------------------------------------

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        client = await self._client()
        if start is None and end is None and not self.direct:
            return await client.read_file(path)
        async with await client.open(path, direct=self.direct) as file:
            size = await file.size() if ranges.needs_size((start, end)) else 0
            return await file.pread(*ranges.resolve((start, end), size))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """The bytes of a file, or of a slice of it."""
        path = self._strip_protocol(path)
        if start is None and end is None and not self.direct:
            return self.client.read_file(path)
        with self.client.open(path, direct=self.direct) as file:
            size = file.size() if ranges.needs_size((start, end)) else 0
            return file.pread(*ranges.resolve((start, end), size))

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,  # noqa: ARG002 - reads that are close to each other are one message anyway
        batch_size: int | None = None,  # noqa: ARG002
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        if not isinstance(paths, list):
            raise TypeError("cat_ranges: paths is not a list")
        starts, ends = (each if isinstance(each, Iterable) else [each] * len(paths) for each in (starts, ends))
        client = await self._client()
        names = [self._strip_protocol(path) for path in paths]
        wanted = list(zip(starts, ends, strict=True))
        found = await ranges.read_all(lambda path: client.open(path, direct=self.direct), names, wanted)
        if on_error == "raise":
            for result in found:
                if isinstance(result, BaseException):
                    raise result
        return found

    async def _pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_: Any) -> None:
        path = self._strip_protocol(path)
        client = await self._client()
        if self.direct:
            async with self._replacing(path, exclusive=mode == "create") as file:
                await file.pwrite(value, 0)
            return
        await self._creating(path, lambda: client.write_file(path, value, exclusive=mode == "create"))

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_: Any) -> None:
        """Replace a file; with the mode "create" there must be none."""
        path = self._strip_protocol(path)
        exclusive = mode == "create"
        if self.direct:
            sync(self.loop, self._pipe_file, path, value, mode)
            return
        try:
            self.client.write_file(path, value, exclusive=exclusive)
        except FileNotFoundError:
            if not self._may_create(path, "w"):
                raise
        else:
            return
        self.client.makedirs(directory_of(path), exist_ok=True)
        self.client.write_file(path, value, exclusive=exclusive)

    async def _cp_file(self, path1: str, path2: str, **_: Any) -> None:
        old, new = self._strip_protocol(path1), self._strip_protocol(path2)
        client = await self._client()
        if await self._isdir(old):
            await self._makedirs(new, exist_ok=True)
            return
        async with await client.open(old, direct=self.direct) as source, self._replacing(new) as target:
            size = await source.size()
            try:
                await target.copy_range(source, 0, 0, size)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                await transfers.relay(source, target)

    # ---- local files ------------------------------------------------------------------------------------------------

    async def _put(self, *arguments: Any, batch_size: int | None = None, **named: Any) -> Any:
        return await super()._put(*arguments, batch_size=batch_size or _STREAMS_MAX, **named)

    async def _get(self, *arguments: Any, batch_size: int | None = None, **named: Any) -> Any:
        return await super()._get(*arguments, batch_size=batch_size or _STREAMS_MAX, **named)

    async def _put_file(
        self, lpath: str, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **_: Any
    ) -> None:
        if os.path.isdir(lpath):  # noqa: PTH112, ASYNC240 - as fsspec's own _put() does
            await self._makedirs(rpath, exist_ok=True)
            return
        with await asyncio.to_thread(open, lpath, "rb") as source:
            callback.set_size(os.fstat(source.fileno()).st_size)
            async with self._replacing(self._strip_protocol(rpath), exclusive=mode == "create") as file:
                await transfers.upload(source, file, callback)

    async def _get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        rpath = self._strip_protocol(rpath)
        client = await self._client()
        if await self._isdir(rpath):
            os.makedirs(lpath, exist_ok=True)  # noqa: PTH103 - as fsspec's own _get() does
            return
        async with await client.open(rpath, direct=self.direct) as file:
            callback.set_size(await file.size())
            if isfilelike(lpath):
                await transfers.download(file, lpath, callback)
                return
            with await asyncio.to_thread(open, lpath, "wb") as target:
                await transfers.download(file, target, callback)

    # ---- open files -------------------------------------------------------------------------------------------------

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,  # noqa: FBT001, FBT002
        cache_options: Any = None,  # noqa: ARG002 - the page cache is the cache
        **_: Any,
    ) -> Any:
        path = self._strip_protocol(path)
        try:
            return open_file(self, path, mode, block_size, autocommit=autocommit)
        except FileNotFoundError:
            if not self._may_create(path, mode):
                raise
        self.makedirs(directory_of(path), exist_ok=True)
        return open_file(self, path, mode, block_size, autocommit=autocommit)

    async def open_async(self, path: str, mode: str = "rb", **_: Any) -> StreamedFile:
        """Open a file to be awaited: read, write, seek, tell, close."""
        path = self._strip_protocol(path)
        if "b" not in mode:
            raise ValueError(f"open_async {path}: mode {mode!r} is not binary")
        client = await self._client()

        def opened() -> Awaitable[aio.File]:
            return client.open(path, mode.replace("b", ""), direct=self.direct)

        file = await (self._creating(path, opened) if _CREATES.intersection(mode) else opened())
        return StreamedFile(self, path, mode, file, await file.size())

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:  # noqa: FBT001, FBT002
        """Create an empty file; one that exists is emptied, or with `truncate=False` gets the time of now."""
        path = self._strip_protocol(path)
        if not truncate and self.client.exists(path):
            self.client.touch(path)
            return
        with self._open(path, "wb"):
            pass

    # ---- directories on demand, and names at the end ----------------------------------------------------------------

    def _may_create(self, path: str, mode: str) -> bool:
        return self.auto_mkdir and "/" in path and bool(_CREATES.intersection(mode))

    async def _creating(self, path: str, create: Callable[[], Awaitable[T]]) -> T:
        """Await what create() returns; with `auto_mkdir`, once more after making the directory of `path`."""
        try:
            return await create()
        except FileNotFoundError:
            if not self._may_create(path, "w"):
                raise
        await self._makedirs(directory_of(path), exist_ok=True)
        return await create()

    @contextlib.asynccontextmanager
    async def _replacing(self, path: str, *, exclusive: bool = False) -> AsyncIterator[aio.File]:
        """A new file, which gets the name `path` at the end, or is removed after an exception."""
        client = await self._client()
        temporary = temporary_name(path)
        file = await self._creating(path, lambda: client.open(temporary, "x", direct=self.direct))
        try:
            async with file:
                yield file
            await client.rename(temporary, path, replace=not exclusive)
        except BaseException:
            with contextlib.suppress(OSError):
                await client.remove(temporary)
            raise


async def _exports(client: aio.Client) -> list[str]:
    return [export["name"] for export in (await client.control("exports"))["exports"]]


@contextlib.contextmanager
def _as_missing(path: str) -> Iterator[None]:
    """Raise the one error that fsspec knows of a path that leads nowhere."""
    try:
        yield
    except NotADirectoryError as error:
        raise infos.missing(path) from error
