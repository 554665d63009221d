"""Open files of the file system: io's buffered files with what fsspec adds, and a file to be awaited."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from aiod_client.fileobj import BUFFER_BYTES
from aiod_client.requests.whole_files import temporary_name

if TYPE_CHECKING:
    from types import TracebackType

    from aiod_client import aio
    from aiod_client.blocking.client import Client
    from aiod_client.blocking.file import File


class FileSystem(Protocol):
    """What an open file needs of its file system, which imports this module."""

    direct: bool

    @property
    def client(self) -> Client:
        """The process's blocking client."""

    def open(self, path: str, mode: str) -> Any:
        """Open a file."""


_WHOLE_FILES: Final = frozenset("wx")
"""Modes that a transaction can hold back: the file is written under another name, and renamed."""


def open_file(
    fs: FileSystem, path: str, mode: str, block_size: int | None, *, autocommit: bool, perm: int = 0o666
) -> Reader | Writer | Updater:
    """Open `path` as AbstractFileSystem.open() does; without `autocommit` it gets its name by commit()."""
    kind = mode.replace("b", "")
    if not autocommit and kind in _WHOLE_FILES:
        target = temporary_name(path)
        file = fs.client.open(target, "x", perm, direct=fs.direct)
    elif not autocommit and kind != "r":
        raise ValueError(f"open {path}: mode {mode!r} changes a file in place, which a transaction cannot take back")
    else:
        target = path
        file = fs.client.open(path, kind, perm, direct=fs.direct)
    opened: Reader | Writer | Updater
    size = BUFFER_BYTES if block_size is None or block_size <= 0 else max(block_size, 2)
    if "+" in kind:
        opened = Updater(file.raw, size)
    elif kind == "r":
        opened = Reader(file.raw, size)
    else:
        opened = Writer(file.raw, size)
    opened.of(fs, path, mode, file, target)
    return opened


class _Opened:
    """What fsspec wants of an open file, beside io's own methods."""

    fs: FileSystem
    path: str
    _mode: str
    _file: File
    _target: str
    closed: bool

    def of(self, fs: FileSystem, path: str, mode: str, file: File, target: str) -> None:
        """Note what was opened; `target` is another name than `path` until commit()."""
        self.fs, self.path, self._mode, self._file, self._target = fs, path, mode, file, target

    @property
    def mode(self) -> str:
        """The mode, as fsspec was given it: rb, wb, ..."""
        return self._mode

    @property
    def full_name(self) -> str:
        """The URL."""
        return f"aiod://{self.path}"

    @property
    def size(self) -> int:
        """The file's size now, without the bytes that are still in the buffer."""
        return self._file.size()

    @property
    def autocommit(self) -> bool:
        """Whether the file has its name already."""
        return self._target == self.path

    def commit(self) -> None:
        """Give the file its name. It replaces another file of that name, unless it was opened with mode x."""
        if self.autocommit:
            return
        self.close()
        self.fs.client.rename(self._target, self.path, replace="x" not in self._mode)
        self._target = self.path

    def discard(self) -> None:
        """Remove a file that did not get its name."""
        if self.autocommit:
            return
        with contextlib.suppress(OSError):
            self.close()
        self.fs.client.remove(self._target)

    def close(self) -> None:
        """Of io's class."""
        super().close()  # type: ignore[misc]  # the mixin comes before io's class

    def tell(self) -> int:
        """Of io's class."""
        return super().tell()  # type: ignore[misc, no-any-return]

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        """Open it again at the same position: a file that is read, and no other."""
        if self._mode not in {"r", "rb"} or self.closed:
            raise TypeError(f"cannot pickle {self.path}, open with mode {self._mode!r}: only open files that are read")
        return _reopen, (self.fs, self.path, self._mode, self.tell())


def _reopen(fs: FileSystem, path: str, mode: str, position: int) -> Any:
    file = fs.open(path, mode)
    file.seek(position)
    return file


class Reader(_Opened, io.BufferedReader):
    """A file that is read."""


class Writer(_Opened, io.BufferedWriter):
    """A file that is written or appended to."""


class Updater(_Opened, io.BufferedRandom):  # type: ignore[override, unused-ignore]  # typeshed's mode is writable
    """A file that is read and written."""


class StreamedFile:
    """A file to be awaited, with a position, and without a buffer. Of open_async()."""

    def __init__(self, fs: FileSystem, path: str, mode: str, file: aio.File, size: int) -> None:
        """`size` is the file's when it was opened."""
        self.fs, self.path, self.mode, self.size = fs, path, mode, size
        self.loc = size if "a" in mode else 0
        self._file = file

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._file.closed

    async def read(self, length: int | None = -1) -> bytes:
        """Read `length` bytes from the position on, fewer only at the end of the file; None or -1: up to there."""
        if length is None or length < 0:
            length = max(0, await self._file.size() - self.loc)
        data = await self._file.pread(length, self.loc)
        self.loc += len(data)
        return data

    async def write(self, data: Any) -> int:
        """Write all of `data` at the position, in append mode at the end of the file."""
        if "a" in self.mode:
            self.loc = await self._file.append(data) + memoryview(data).nbytes
            return memoryview(data).nbytes
        done = await self._file.pwrite(data, self.loc)
        self.loc += done
        return done

    def tell(self) -> int:
        """The position."""
        return self.loc

    async def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position, as io's files do."""
        base = (0, self.loc, await self._file.size() if whence == io.SEEK_END else 0)[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}: before the beginning of {self.path}")
        self.loc = base + offset
        return self.loc

    async def flush(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - fsspec's name and order
        """Nothing: each write has reached the daemon when it returns. `force` is fsspec's."""

    async def close(self) -> None:
        """Close the file."""
        await self._file.close()

    async def __aenter__(self) -> Self:
        """The file; it is closed at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        await self.close()
