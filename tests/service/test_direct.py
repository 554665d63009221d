"""O_DIRECT at every offset: many write to neighbours in one block, files grow; exports that are always direct."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest

from aiod_client import aio

MIB = 2**20
TASKS = 48
ROUNDS = 6


def open_flags(pid: int, path: Path) -> set[int]:
    """The flags of the process's descriptors of that file."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if entry.readlink() == path:
            info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
            found.add(int(info.partition("flags:")[2].split()[0], 8))
    return found


def test_an_export_that_is_always_direct(place: Any, mounts_daemon: Any) -> None:
    if not place.has_direct:
        pytest.skip(f"{place.name} of this kernel has no O_DIRECT")
    pid = mounts_daemon.engine["pid"]
    path = place.path / "file"
    for name, options, direct in (
        (place.name, {}, False),
        (place.name, {"direct": True}, True),
        (f"{place.name}-direct", {}, True),
    ):
        with place.client.open(f"{name}/file", "w+", **options) as file:
            (flags,) = open_flags(pid, path)
            assert bool(flags & os.O_DIRECT) is direct, (name, options)
            file.pwrite(b"one", 1)
            assert file.pread(10, 0) == b"\0one"


def test_neighbours_in_one_block_from_many_tasks(place: Any, mounts_daemon: Any) -> None:
    """Each task has its own odd bytes; blocks are shared by many, and none loses what another wrote."""
    if not place.has_direct:
        pytest.skip(f"{place.name} of this kernel has no O_DIRECT")
    choice = random.Random(1)  # noqa: S311 - no secret
    edges = sorted(choice.sample(range(1, 200_000), TASKS))
    pieces = list(zip([0, *edges], [*edges, 200_003], strict=True))
    expected = bytearray(200_003)

    async def write(file: Any, number: int, start: int, end: int) -> None:
        own = random.Random(number)  # noqa: S311 - no secret
        for _ in range(ROUNDS):
            data = own.randbytes(end - start)
            cut = own.randrange(len(data) + 1)
            if own.random() < 0.5:
                assert await file.pwritev([data[:cut], data[cut:]], start) == len(data)
            else:
                assert await file.pwrite(data, start, fua=own.random() < 0.1) == len(data)
            parts = [bytearray(cut), bytearray(len(data) - cut)]
            assert await file.preadv(parts, start) == len(data)
            assert b"".join(parts) == data
            expected[start:end] = data

    async def main() -> None:
        async with (
            aio.connect(mounts_daemon.endpoint, timeout=60) as client,
            await client.open(f"{place.name}/file", "w+", direct=True) as one,
            await client.open(f"{place.name}/file", "r+", direct=True) as two,
        ):
            await one.truncate(len(expected))
            works = [write((one, two)[number % 2], number, *piece) for number, piece in enumerate(pieces)]
            await asyncio.gather(*works)
            assert await one.pread(MIB, 0) == expected

    asyncio.run(main())
    assert (place.path / "file").read_bytes() == expected


def test_growth_at_the_end_byte_by_byte(place: Any) -> None:
    """The last block is read, changed and written whole, and the size is what was written."""
    if not place.has_direct:
        pytest.skip(f"{place.name} of this kernel has no O_DIRECT")
    expected = b""
    with place.open("file", direct=True) as file:
        for length in (1, 510, 1, 1, 3_583, 4_096, 5, 300_001, 2):
            data = bytes([length % 255 + 1]) * length
            assert file.pwrite(data, len(expected)) == length
            expected += data
            assert file.size() == len(expected)
            assert file.pread(MIB, 0) == expected
        assert file.pwrite(b"far", MIB + 1) == 3
        assert (place.path / "file").read_bytes() == expected.ljust(MIB + 1, b"\0") + b"far"


def test_lists_of_thousands_of_buffers(place: Any) -> None:
    choice = random.Random(2)  # noqa: S311 - no secret
    data = [choice.randbytes(choice.randrange(700)) for _ in range(5_000)]
    for direct in (False, True)[: 1 + place.has_direct]:
        with place.open("file", direct=direct) as file:
            assert file.pwritev(data, 3) == sum(map(len, data))
            buffers = [bytearray(len(each)) for each in data]
            assert file.preadv(buffers, 3) == sum(map(len, data))
            assert buffers == data
        assert (place.path / "file").read_bytes() == bytes(3) + b"".join(data)
