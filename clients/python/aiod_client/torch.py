"""Map-style data sets for PyTorch's DataLoader, whose batches are read by one request.

    from torch.utils.data import DataLoader
    from aiod_client.torch import RecordDataset

    numbers = RecordDataset("scratch/numbers.f4", 4 * 128, lambda record: torch.frombuffer(record, dtype=torch.float32))
    for batch in DataLoader(numbers, batch_size=256, shuffle=True, num_workers=4):
        ...

A worker process connects when it reads first, however it was started: fork, forkserver or spawn. PyTorch is not
imported: to it a data set is any object with these methods.
"""

from __future__ import annotations

import asyncio
import errno
import operator
import os
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from aiod_client import lazy
from aiod_client.base_client import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiod_client.blocking.file import File
    from aiod_client.ring.attach import Transport

Item = TypeVar("Item")

_TOGETHER_MAX: Final = 64
"""How many files of a batch are read at once."""


class _Dataset(Generic[Item]):
    """What both data sets have in common: the connection, and how they treat indices."""

    def __init__(self, transform: Callable[[Any], Item] | None, settings: lazy.Settings) -> None:
        self.transform = transform
        self.settings = settings

    def __len__(self) -> int:
        """The number of items."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Item:
        """One item."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """The items of a batch, in order. DataLoader calls it."""
        count = len(self)
        places = [_place(index, count) for index in indices]
        items = self._read(places)
        return items if self.transform is None else [self.transform(item) for item in items]

    def _read(self, places: Sequence[int]) -> list[Any]:
        raise NotImplementedError


def _place(index: int, count: int) -> int:
    """The place of an index, which may be negative. Raises IndexError."""
    place = operator.index(index)
    if not -count <= place < count:
        raise IndexError(f"item {place} of {count}")
    return place % count


class FileDataset(_Dataset[Item]):
    """Each item is the content of a file: bytes, or what `transform` makes of them."""

    def __init__(  # noqa: PLR0913 - its own, and connect()'s
        self,
        paths: Sequence[str],
        transform: Callable[[bytes], Item] | None = None,
        *,
        endpoint: str | None = None,
        key: str | None = None,
        server_key: str | None = None,
        transport: Transport = "auto",
        timeout: float | None = TIMEOUT_S,
        reconnect_timeout: float | None = None,
        prefer: str | Sequence[str] | None = None,
        host_timeout: float | None = None,
    ) -> None:
        """`paths` are EXPORT/PATH; the other arguments are those of connect()."""
        super().__init__(
            transform,
            lazy.settings(endpoint, key, server_key, transport, timeout, reconnect_timeout, prefer, host_timeout),
        )
        self.paths = paths

    def __len__(self) -> int:
        """The number of files."""
        return len(self.paths)

    def _read(self, places: Sequence[int]) -> list[bytes]:
        paths = [self.paths[place] for place in places]
        if len(paths) == 1:
            return [lazy.blocking_client(self.settings).read_file(paths[0])]
        return lazy.in_background(self._read_together(paths))

    async def _read_together(self, paths: Sequence[str]) -> list[bytes]:
        client = await lazy.awaited_client(self.settings)
        found: list[bytes] = []
        for first in range(0, len(paths), _TOGETHER_MAX):
            found += await asyncio.gather(*(client.read_file(path) for path in paths[first : first + _TOGETHER_MAX]))
        return found


class RecordDataset(_Dataset[Item]):
    """Each item is a record of a file of records of one size: writable memory, or what `transform` makes of it."""

    def __init__(  # noqa: PLR0913 - its own, and connect()'s
        self,
        path: str,
        record_bytes: int,
        transform: Callable[[memoryview], Item] | None = None,
        *,
        offset: int = 0,
        count: int | None = None,
        endpoint: str | None = None,
        key: str | None = None,
        server_key: str | None = None,
        transport: Transport = "auto",
        timeout: float | None = TIMEOUT_S,
        reconnect_timeout: float | None = None,
        prefer: str | Sequence[str] | None = None,
        host_timeout: float | None = None,
    ) -> None:
        """The `count` records of `record_bytes` at `offset` of the file EXPORT/PATH; None: those up to its end.

        The other arguments are those of connect().
        """
        super().__init__(
            transform,
            lazy.settings(endpoint, key, server_key, transport, timeout, reconnect_timeout, prefer, host_timeout),
        )
        if record_bytes < 1:
            raise ValueError(f"record_bytes is {record_bytes}: a record has at least one byte")
        self.path, self.record_bytes, self.offset = path, record_bytes, offset
        self._count = count
        self._opened: tuple[int, File] | None = None

    def __len__(self) -> int:
        """The number of records."""
        if self._count is None:
            self._count = max(0, self._file().size() - self.offset) // self.record_bytes
        return self._count

    def _file(self) -> File:
        """The file, opened by this process."""
        if self._opened is None or self._opened[0] != os.getpid() or self._opened[1].closed:
            self._opened = os.getpid(), lazy.blocking_client(self.settings).open(self.path)
        return self._opened[1]

    def _read(self, places: Sequence[int]) -> list[memoryview]:
        size = self.record_bytes
        memory = memoryview(bytearray(size * len(places)))
        records = [memory[first : first + size] for first in range(0, len(memory), size)]
        futures = self._file().submit(
            [("read_into", record, self.offset + place * size) for place, record in zip(places, records, strict=True)]
        )
        for place, future in zip(places, futures, strict=True):
            if future.result() != size:
                raise OSError(errno.ENODATA, f"{self.path} ends within record {place}")
        return records

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open file: another process opens its own."""
        return self.__dict__ | {"_opened": None}

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._opened is not None and self._opened[0] == os.getpid():
            self._opened[1].close()
        self._opened = None
