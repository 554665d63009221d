"""Valid and invalid arguments, and the errors for the invalid ones."""

from __future__ import annotations

import array
import errno
from pathlib import PurePosixPath
from typing import Any

import pytest

from aiod_client.operations import OFFSET_MAX, from_tuple, read_into_request, read_request, write_request
from aiod_client.requests.paths import check_permissions, parse_mode, parse_path
from aiod_protocol.wire import OpenFlag


@pytest.mark.parametrize(
    ("length", "offset"), [(-1, 0), (0, -1), (1, OFFSET_MAX), (OFFSET_MAX + 1, 0), (0, 1 << 64), (1 << 100, 0)]
)
def test_an_impossible_range_raises_einval(length: int, offset: int) -> None:
    with pytest.raises(OSError, match="2\\*\\*63") as caught:
        read_request(1, length, offset)
    assert caught.value.errno == errno.EINVAL


def test_a_range_may_end_at_the_last_possible_byte() -> None:
    assert read_request(1, 1, OFFSET_MAX - 1).offset == OFFSET_MAX - 1


@pytest.mark.parametrize(("length", "offset"), [(1.0, 0), ("1", 0), (None, 0), (1, 0.5), (1, b"0")])
def test_a_range_that_is_not_of_integers_raises_type_error(length: Any, offset: Any) -> None:
    with pytest.raises(TypeError):
        read_request(1, length, offset)
    with pytest.raises(TypeError):
        write_request(1, b"data", length if offset == 0 else offset)


@pytest.mark.parametrize("data", ["text", 5, None, ["list"]])
def test_a_payload_that_is_not_bytes_like_raises_type_error(data: Any) -> None:
    with pytest.raises(TypeError):
        write_request(1, data, 0)


def test_a_payload_that_is_not_contiguous_raises_buffer_error() -> None:
    with pytest.raises(BufferError):
        write_request(1, memoryview(b"abcdef")[::2], 0)


@pytest.mark.parametrize(
    ("data", "length"),
    [(b"abc", 3), (bytearray(5), 5), (memoryview(b"abcd")[1:3], 2), (array.array("I", [1, 2]), 8), (b"", 0)],
)
def test_the_length_of_a_payload_is_in_bytes(data: Any, length: int) -> None:
    assert write_request(1, data, 0).length == length


def test_a_read_into_a_read_only_buffer_raises_type_error() -> None:
    for buffer in (b"bytes", memoryview(b"bytes"), "text"):
        with pytest.raises(TypeError):
            read_into_request(1, buffer, 0)
    assert read_into_request(1, array.array("d", [0.0] * 3), 0).length == 24
    assert read_into_request(1, memoryview(bytearray(0)).cast("B"), 0).length == 0
    with pytest.raises(OSError, match="negative"):
        read_into_request(1, bytearray(1), -1)


def test_the_error_of_an_unknown_operation_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown operation 'mend': one of read, .*append, read_into, readv, writev"):
        from_tuple(1, ("mend", 0, 1), None)
    with pytest.raises(TypeError):
        from_tuple(1, ("read", 1), None)


@pytest.mark.parametrize(
    ("path", "parsed"),
    [
        ("scratch/a/b", ("scratch", "a/b")),
        ("disk", ("disk", "")),
        ("scratch//a", ("scratch", "/a")),
        (PurePosixPath("scratch/x"), ("scratch", "x")),
        ("scratch/Zürich", ("scratch", "Zürich")),
    ],
)
def test_a_path_is_split_into_export_and_inner_path(path: Any, parsed: tuple[str, str]) -> None:
    assert parse_path(path) == parsed


def test_a_path_that_cannot_be_sent_raises() -> None:
    with pytest.raises(TypeError):
        parse_path(b"scratch/x")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="4096") as caught:
        parse_path("scratch/" + "é" * 2100)
    assert caught.value.errno == errno.ENAMETOOLONG
    with pytest.raises(OSError, match="UTF-8") as caught:
        parse_path("scratch/\udcff")
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("mode", ["r", "r+", "w", "w+", "x", "x+", "rb", "r+b", "rb+", "wb", "xb+"])
def test_a_mode_becomes_the_flags_of_open(mode: str) -> None:
    flags = parse_mode(mode)
    assert bool(flags & OpenFlag.CREATE) == (mode[0] in "wx")
    assert bool(flags & OpenFlag.EXCLUSIVE) == (mode[0] == "x")
    assert bool(flags & OpenFlag.TRUNCATE) == (mode[0] == "w")
    assert bool(flags & OpenFlag.READ) == (mode[0] == "r" or "+" in mode)
    assert bool(flags & OpenFlag.WRITE) == (mode[0] != "r" or "+" in mode)


@pytest.mark.parametrize("mode", ["", "ar", "rw", "rbb", "b", "rt", "+r"])
def test_an_invalid_mode_raises_value_error(mode: str) -> None:
    with pytest.raises(ValueError, match="invalid mode"):
        parse_mode(mode)


def test_permissions_beyond_the_permission_bits_raise_value_error() -> None:
    assert check_permissions(0o640) == 0o640
    assert check_permissions(0o777) == 0o777
    for perm in (-1, 0o1000, 0o4755, 0o10000):
        with pytest.raises(ValueError, match=f"perm {perm:#o}: only permission bits from 0 to 0o777"):
            check_permissions(perm)
