"""Invalid records of each operation: wrong flags, reserved fields, ranges that are too long."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from aiod_protocol.operations import PROPERTIES, Op, OpFlag, OpProperty
from aiod_protocol.wire import RANGE_BYTES_MAX, OpenFlag
from tests.service.records import record

RING_OPS = [op for op in Op if (OpProperty.PATH | OpProperty.RING_ONLY) & PROPERTIES[op]]
OPEN_FLAGS = int(OpenFlag.READ | OpenFlag.WRITE | OpenFlag.CREATE)
PAYLOAD_OPS = (Op.WRITE, Op.APPEND)
RANGE_OPS = (Op.DISCARD, Op.WRITE_ZEROES, Op.ALLOCATE, Op.EXTENTS, Op.COPY_RANGE, Op.PREFETCH, Op.READ)
ALLOWED_FLAGS = {
    Op.WRITE: OpFlag.FUA,
    Op.WRITE_ZEROES: OpFlag.FUA | OpFlag.UNMAP,
    Op.ALLOCATE: OpFlag.KEEP_SIZE,
}


def result(raw: Any, *arguments: int, payloads: tuple[bytes, ...] = (), **fields: int) -> int:
    """The result of one record."""
    done = raw.submit(record(1, *arguments, **fields), payloads=payloads)
    return int(done[1][0])


@pytest.mark.parametrize("op", [op for op in Op if op is not Op.IOCTL and op not in RING_OPS], ids=lambda op: op.name)
def test_flags_of_other_operations_are_refused(raw: Any, op: Op) -> None:
    handle, source = raw.handle("flags", OPEN_FLAGS), raw.handle("flags source", OPEN_FLAGS)
    fields = {"frame": source} if op is Op.COPY_RANGE else {}
    length = 0 if op in (Op.FLUSH, Op.SIZE, Op.STAT) else 1
    payloads = (b"x",) if op in PAYLOAD_OPS else ()
    for flags in [*range(16), 1 << 14]:
        answer = result(raw, op, handle, 0, length, flags=flags, payloads=payloads, **fields)
        if flags & ~int(ALLOWED_FLAGS.get(op, 0)):
            assert answer == -errno.EINVAL, flags
        else:
            assert answer >= 0, flags


@pytest.mark.parametrize("op", RING_OPS, ids=lambda op: op.name)
def test_operations_of_rings_are_refused_by_message(raw: Any, op: Op) -> None:
    """Only a ring has room for a path, or opens and closes files by itself."""
    names = raw.open("", flags=int(OpenFlag.NAMES))[0]
    assert names > 0
    payloads = (b"x",) if op is Op.WRITE_FILE else ()
    for handle in (names, raw.handle("paths", OPEN_FLAGS)):
        assert result(raw, op, handle, 0, 1, payloads=payloads) == -errno.EINVAL


@pytest.mark.parametrize("flags", [OpenFlag.NAMES | OpenFlag.READ, OpenFlag.NAMES | OpenFlag.CREATE | OpenFlag.WRITE])
def test_a_handle_for_names_is_opened_by_its_flag_alone(raw: Any, flags: OpenFlag) -> None:
    assert raw.open("", flags=int(flags))[0] == -errno.EINVAL
    assert raw.open("file", flags=int(OpenFlag.NAMES))[0] == -errno.EINVAL


@pytest.mark.parametrize("op", RANGE_OPS, ids=lambda op: op.name)
def test_ranges_beyond_the_largest_offset_are_refused(raw: Any, op: Op) -> None:
    handle, source = raw.handle("ranges", OPEN_FLAGS), raw.handle("ranges source", OPEN_FLAGS)
    fields = {"frame": source} if op is Op.COPY_RANGE else {}
    for offset, length in ((2**63 - 1, 1), (2**63, 0), (1, 2**63 - 1), (0, 2**64 - 1), (2**64 - 1, 2)):
        assert result(raw, op, handle, offset, length, **fields) in (-errno.EINVAL, -errno.EMSGSIZE), (offset, length)
    assert result(raw, op, handle, 2**63 - 1, 1, **fields) == -errno.EINVAL


def test_reserved_fields_must_be_zero(raw: Any) -> None:
    handle = raw.handle("zero", OPEN_FLAGS)
    for op in (Op.FLUSH, Op.SIZE, Op.STAT):
        assert result(raw, op, handle, 1, 0) == -errno.EINVAL
        assert result(raw, op, handle, 0, 1) == -errno.EINVAL
    assert result(raw, Op.TRUNCATE, handle, 1, 5) == -errno.EINVAL
    assert result(raw, Op.APPEND, handle, 1, 1, payloads=(b"x",)) == -errno.EINVAL
    assert result(raw, Op.SIZE, handle) == 0
    for op in Op:
        if op is not Op.COPY_RANGE:
            payloads = (b"x",) if op in (*PAYLOAD_OPS, Op.IOCTL) else ()
            length = 1 if payloads else 0
            assert result(raw, op, handle, 0, length, reserved=1, payloads=payloads) == -errno.EINVAL, op.name


def test_requests_longer_than_request_bytes_max_are_refused(raw: Any) -> None:
    handle, source = raw.handle("long", OPEN_FLAGS), raw.handle("long source", OPEN_FLAGS)
    assert result(raw, Op.WRITE_ZEROES, handle, 0, RANGE_BYTES_MAX + 1) == -errno.EMSGSIZE
    assert result(raw, Op.COPY_RANGE, handle, 0, RANGE_BYTES_MAX + 1, frame=source) == -errno.EMSGSIZE
    assert result(raw, Op.COPY_RANGE, handle, 0, RANGE_BYTES_MAX, frame=source) == 0
    assert result(raw, Op.DISCARD, handle, 0, 2**40) == 0
    big = bytes(4 * 2**20 + 1)
    for op in PAYLOAD_OPS:
        assert result(raw, op, handle, 0, len(big), payloads=(big,)) == -errno.EMSGSIZE, op.name
    assert result(raw, Op.SIZE, handle) == 0


def test_the_source_of_a_copy_must_be_a_handle_of_the_session(raw: Any) -> None:
    handle, blind = raw.handle("copy", OPEN_FLAGS), raw.handle("copy", int(OpenFlag.WRITE))
    assert result(raw, Op.COPY_RANGE, handle, 0, 1, frame=blind) == -errno.EBADF
    assert result(raw, Op.COPY_RANGE, handle, 0, 1, frame=blind + 1) == -errno.EBADF
    source_offset = 2**63 - 1
    high = source_offset >> 32
    assert (
        result(raw, Op.COPY_RANGE, handle, 0, 1, frame=handle, frame_offset=2**32 - 1, reserved=high) == -errno.EINVAL
    )


def test_a_payload_may_span_several_frames(raw: Any) -> None:
    handle = raw.handle("gathered", OPEN_FLAGS)
    done = raw.submit(
        record(1, Op.WRITE, handle, 0, 9, frame=0, frame_offset=1),
        record(2, Op.WRITE, handle, 100, 3, frame=2, frame_offset=2),
        payloads=(b"-one", b"two", b"th>ree"),
    )
    assert {cookie: count for cookie, (count, _) in done.items()} == {1: 9, 2: 3}
    assert result(raw, Op.READ, handle, 0, 9) == 9
    assert bytes(raw.frames[0]) == b"onetwoth>"
    assert result(raw, Op.READ, handle, 100, 3) == 3
    assert bytes(raw.frames[0]) == b">re"
