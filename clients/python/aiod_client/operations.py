"""Makes a request of an operation's arguments, and checks them; docs/operations.md defines the operations.

All functions raise TypeError for arguments of the wrong type and for a read into read-only memory, BufferError for a
buffer that is not C-contiguous, OSError (EINVAL) for invalid ranges.
"""

from __future__ import annotations

import errno
import functools
import math
import operator
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod_client.errors import refused_here
from aiod_client.requests.batch_steps import make_requests
from aiod_client.requests.payload import Pieces
from aiod_client.requests.pending import Request, ViewRequest
from aiod_client.requests.timeouts import seconds
from aiod_protocol.operations import PROPERTIES, Op, OpFlag, OpProperty, op_name
from aiod_protocol.wire import RANGE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OFFSET_MAX: Final = (1 << 63) - 1

# Looked up once: in Python 3.11 a look at an IntEnum's member costs as much as a call.
_READ: Final = int(Op.READ)
_WRITE: Final = int(Op.WRITE)
_FUA: Final = int(OpFlag.FUA)


class Source(Protocol):
    """The source of a copy_range: a File."""

    def source_handle(self, link: Any) -> int:
        """The handle in the session `link`; OSError (EXDEV) if the file is of another session."""


def read_request(handle: int, length: int, offset: int) -> Request:
    """A read into new bytes."""
    if type(length) is not int or type(offset) is not int:
        length, offset = operator.index(length), operator.index(offset)
    if length < 0 or offset < 0 or offset + length > OFFSET_MAX:
        raise _bad_range("read", length, offset)
    return Request(_READ, handle, offset, length, None, length)


def read_view_request(handle: int, length: int, offset: int) -> Request:
    """A read whose result is a memoryview."""
    length, offset = operator.index(length), operator.index(offset)
    _check_range("read", length, offset)
    return ViewRequest(_READ, handle, offset, length, None, length)


def read_into_request(handle: int, buffer: Any, offset: int) -> Request:
    """A read into `buffer` (writable, contiguous)."""
    into = _writable(buffer)
    offset = operator.index(offset)
    _check_range("read", len(into), offset)
    return Request(_READ, handle, offset, len(into), into, len(into))


def readv_request(handle: int, buffers: Iterable[Any], offset: int) -> Request:
    """A read into several buffers, one after the other."""
    into = Pieces([_writable(buffer) for buffer in buffers])
    offset = operator.index(offset)
    _check_range("read", len(into), offset)
    return Request(_READ, handle, offset, len(into), into, len(into))


def write_request(handle: int, data: Any, offset: int, fua: bool = False) -> Request:  # noqa: FBT001, FBT002 - in tuples
    """A write of `data` (bytes-like, C-contiguous); with `fua` it is durable when it completes."""
    payload: bytes | memoryview = data if type(data) is bytes else _bytes_of(data)
    length = len(payload)
    if type(offset) is not int:
        offset = operator.index(offset)
    if offset < 0 or offset + length > OFFSET_MAX:
        raise _bad_range("write", length, offset)
    return Request(_WRITE, handle, offset, length, payload, length, _FUA if fua else 0)


def writev_request(handle: int, buffers: Iterable[Any], offset: int, fua: bool = False) -> Request:  # noqa: FBT001, FBT002
    """A write of several buffers, one after the other."""
    payload = Pieces([_bytes_of(buffer) for buffer in buffers])
    offset = operator.index(offset)
    _check_range("write", len(payload), offset)
    return Request(_WRITE, handle, offset, len(payload), payload, len(payload), _FUA if fua else 0)


def append_request(handle: int, data: Any) -> Request:
    """A write at the end of the file; its result is the offset of its first byte."""
    payload = _bytes_of(data)
    return Request(Op.APPEND, handle, 0, len(payload), payload, len(payload))


def whole_request(op: Op, handle: int) -> Request:
    """A request without arguments: flush, size, stat."""
    return Request(op, handle, 0, 0, None, 0)


def range_request(op: Op, handle: int, offset: int, length: int, flags: int = 0) -> Request:
    """A request about a range, without a payload: discard, extents, prefetch."""
    offset, length = operator.index(offset), operator.index(length)
    _check_range(op_name(op), length, offset)
    return Request(op, handle, offset, length, None, 0, flags)


def write_zeroes_request(
    handle: int,
    offset: int,
    length: int,
    unmap: bool = False,  # noqa: FBT001, FBT002 - in tuples
    fua: bool = False,  # noqa: FBT001, FBT002
) -> Request:
    """A write of zeroes over a range; with `unmap` its space may be deallocated."""
    flags = (OpFlag.UNMAP if unmap else 0) | (OpFlag.FUA if fua else 0)
    return range_request(Op.WRITE_ZEROES, handle, offset, length, int(flags))


def truncate_request(handle: int, size: int) -> Request:
    """A change of the file's size to `size` bytes."""
    size = operator.index(size)
    _check_range("truncate", size, 0)
    return Request(Op.TRUNCATE, handle, 0, size, None, 0)


def allocate_request(handle: int, offset: int, length: int, keep_size: bool = False) -> Request:  # noqa: FBT001, FBT002
    """A reservation of space for a range."""
    return range_request(Op.ALLOCATE, handle, offset, length, int(OpFlag.KEEP_SIZE) if keep_size else 0)


def copy_range_request(handle: int, source: int, source_offset: int, offset: int, length: int) -> Request:
    """A copy from the handle `source`."""
    request = range_request(Op.COPY_RANGE, handle, offset, length)
    request.source, request.source_offset = source, operator.index(source_offset)
    _check_range("copy_range from", request.length, request.source_offset)
    # The daemon checks this, too; but it sees only the parts of a long copy, which may not overlap.
    overlap = abs(request.source_offset - request.offset) < request.length
    if source == handle and overlap and request.length > RANGE_BYTES_MAX:
        raise refused_here(errno.EINVAL, f"{request} from {request.source_offset} of the same file: the ranges overlap")
    return request


def copies_itself_in_parts(copy: Request) -> bool:
    """Whether a later part of `copy` may read, behind the end of its source, what an earlier part has written there."""
    return copy.source == copy.handle and copy.length > RANGE_BYTES_MAX


def ioctl_request(handle: int, number: int, argument: Any = b"") -> Request:
    """An ioctl that the export lists; its result is the return value, and the argument as the kernel has left it."""
    payload, number = _bytes_of(argument), operator.index(number)
    if not 0 <= number < 1 << 32:
        raise refused_here(errno.EINVAL, f"ioctl {number:#x}: the number must fit 32 bits")
    return Request(Op.IOCTL, handle, number, len(payload), payload, len(payload))


_SPECIAL: Final[dict[str, Callable[..., Request]]] = {
    "read": read_request,
    "read_into": read_into_request,
    "readv": readv_request,
    "write": write_request,
    "writev": writev_request,
    "append": append_request,
    "write_zeroes": write_zeroes_request,
    "truncate": truncate_request,
    "allocate": allocate_request,
    "copy_range": copy_range_request,
    "ioctl": ioctl_request,
    "read_view": read_view_request,
}
_PLAIN: Final[dict[str, Callable[..., Request]]] = {
    op_name(op): functools.partial(range_request if OpProperty.RANGE in properties else whole_request, op)
    for op, properties in PROPERTIES.items()
    if not properties & (OpProperty.PATH | OpProperty.RING_ONLY)
}
_MAKERS: Final = _PLAIN | _SPECIAL
_TRANSFERS: Final[dict[Any, Callable[..., Request]]] = {"read": read_request, "write": write_request}
_TRANSFER_ITEMS: Final = 3


def from_tuple(handle: int, item: Any, link: Any) -> Request:
    """The request that `("read", length, offset)`, `("write", data, offset)` and so on describe, in the session `link`.

    Raises ValueError for an unknown operation besides what the functions above raise.
    """
    operation, *arguments = item
    maker = _MAKERS.get(operation)
    if maker is None:
        raise ValueError(f"unknown operation {operation!r}: one of {', '.join(_MAKERS)}")
    if maker is copy_range_request and arguments:
        arguments[0] = arguments[0].source_handle(link)
    return maker(handle, *arguments)


def from_tuples(handle: int, batch: Iterable[Any], link: Any, timeout_s: float | None) -> list[Request]:
    """The requests of a whole batch, with a deadline if `timeout_s` is given. Raises as from_tuple()."""
    deadline_s = math.inf if timeout_s is None else time.monotonic() + seconds(timeout_s)
    if make_requests is not None:
        made: list[Request] = make_requests(
            Request, handle, batch, deadline_s, lambda item: from_tuple(handle, item, link)
        )
        return made
    requests = [
        # The two that there are most of, without the steps that only others need.
        maker(handle, item[1], item[2])
        if type(item) is tuple and len(item) == _TRANSFER_ITEMS and (maker := _TRANSFERS.get(item[0])) is not None
        else from_tuple(handle, item, link)
        for item in batch
    ]
    if timeout_s is not None:
        for request in requests:
            request.deadline_s = deadline_s
    return requests


def _check_range(operation: str, length: int, offset: int) -> None:
    if length < 0 or offset < 0 or offset + length > OFFSET_MAX:
        raise _bad_range(operation, length, offset)


def _writable(buffer: Any) -> memoryview:
    into = _bytes_of(buffer)
    if into.readonly:
        raise TypeError(f"cannot read into {type(buffer).__name__}: the buffer is read-only")
    return into


def _view_of(data: Any) -> memoryview:
    """Numpy cannot describe a datetime64 in the buffer protocol, but has a view of its bytes."""
    try:
        return memoryview(data)
    except ValueError:
        if not hasattr(data, "view"):
            raise
        return memoryview(data.view("u1"))


def _bytes_of(data: Any) -> memoryview:
    view = _view_of(data)
    if view.nbytes == 0:
        return memoryview(b"" if view.readonly else bytearray())  # cast() refuses a shape with zeros in it
    if not view.c_contiguous:
        name = type(data).__name__
        raise BufferError(f"{name} is not C-contiguous: copy it first, with bytes() or numpy.ascontiguousarray()")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _bad_range(operation: str, length: int, offset: int) -> OSError:
    return refused_here(
        errno.EINVAL,
        f"{operation} of {length} bytes at {offset}: neither may be negative, and their sum must not exceed 2**63 - 1",
    )
