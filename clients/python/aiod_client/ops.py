"""The operations of a batch, with the types of their results: for File.submit_each(), and for File.submit().

    from aiod_client import ops

    data, size = f.submit_each(ops.read(4096, 0), ops.size())
    data.result()  # bytes
    size.result()  # int

Each is the tuple that File.submit() describes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

    from aiod_client.operations import Source
    from aiod_client.records import Extent, FileStat

R_co = TypeVar("R_co", covariant=True)


class Operation(tuple[Any, ...], Generic[R_co]):
    """An operation with a result of type R_co: its name and its arguments."""

    __slots__ = ()


def read(length: int, offset: int) -> Operation[bytes]:
    """As File.pread()."""
    return Operation(("read", length, offset))


def read_view(length: int, offset: int) -> Operation[memoryview]:
    """As File.pread_view()."""
    return Operation(("read_view", length, offset))


def read_into(buffer: Buffer, offset: int) -> Operation[int]:
    """As File.pread_into()."""
    return Operation(("read_into", buffer, offset))


def readv(buffers: Iterable[Buffer], offset: int) -> Operation[int]:
    """As File.preadv()."""
    return Operation(("readv", buffers, offset))


def write(data: Buffer, offset: int, *, fua: bool = False) -> Operation[int]:
    """As File.pwrite()."""
    return Operation(("write", data, offset, fua))


def writev(buffers: Iterable[Buffer], offset: int, *, fua: bool = False) -> Operation[int]:
    """As File.pwritev()."""
    return Operation(("writev", buffers, offset, fua))


def append(data: Buffer) -> Operation[int]:
    """As File.append()."""
    return Operation(("append", data))


def flush() -> Operation[int]:
    """As File.flush(): of the writes that had completed before, not of those of its batch. Its result is 0."""
    return Operation(("flush",))


def size() -> Operation[int]:
    """As File.size()."""
    return Operation(("size",))


def stat() -> Operation[FileStat]:
    """As File.stat()."""
    return Operation(("stat",))


def truncate(nbytes: int) -> Operation[int]:
    """As File.truncate(). Its result is 0."""
    return Operation(("truncate", nbytes))


def discard(offset: int, length: int) -> Operation[int]:
    """As File.discard(). Its result is 0."""
    return Operation(("discard", offset, length))


def write_zeroes(offset: int, length: int, *, unmap: bool = False, fua: bool = False) -> Operation[int]:
    """As File.write_zeroes(). Its result is 0."""
    return Operation(("write_zeroes", offset, length, unmap, fua))


def allocate(offset: int, length: int, *, keep_size: bool = False) -> Operation[int]:
    """As File.allocate(). Its result is 0."""
    return Operation(("allocate", offset, length, keep_size))


def extents(offset: int, length: int) -> Operation[list[Extent]]:
    """As File.extents(), but at most 1024 of them."""
    return Operation(("extents", offset, length))


def prefetch(offset: int, length: int) -> Operation[int]:
    """As File.prefetch(). Its result is 0."""
    return Operation(("prefetch", offset, length))


def copy_range(source: Source, source_offset: int, offset: int, length: int) -> Operation[int]:
    """As File.copy_range(), but a copy of more than 1 GiB within one file must not reach past its end."""
    return Operation(("copy_range", source, source_offset, offset, length))


def ioctl(number: int, argument: Buffer = b"") -> Operation[tuple[int, bytes]]:
    """As File.ioctl()."""
    return Operation(("ioctl", number, argument))
