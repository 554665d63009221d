"""O_DIRECT at any offset: concurrent writes to one block, growing files, exports that are always direct."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aiod_client import aio
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable


MIB = 2**20
TASKS = 48
ROUNDS = 30
BYTES = 200_003


def open_flags(pid: int, path: Path) -> list[int]:
    """Open flags of the process's descriptors of that file.

    A number may stand for another file meanwhile: only a result that stays has a meaning.
    """
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if entry.readlink() == path:
                info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
                found.append(int(info.partition("flags:")[2].split()[0], 8))
    return found


def test_direct_true_opens_every_file_with_o_direct(
    place: Any, mounts_daemon: Any, wait_until: Callable[..., None]
) -> None:
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
            wanted = [os.O_DIRECT if direct else 0] * 2  # one for I/O, one for flushes, none stored
            wait_until(
                lambda wanted=wanted: [flags & os.O_DIRECT for flags in open_flags(pid, path)] == wanted,
                f"two descriptors, direct: {direct}, of {name} with {options}",
            )
            file.pwrite(b"one", 1)
            assert file.pread(10, 0) == b"\0one"


def test_concurrent_writes_to_one_block_keep_each_others_bytes(place: Any, mounts_daemon: Any) -> None:
    """Each task owns unaligned bytes; several tasks share a block, and none overwrites another's bytes."""
    if not place.has_direct:
        pytest.skip(f"{place.name} of this kernel has no O_DIRECT")
    choice = random.Random(1)  # noqa: S311 - no secret
    edges = sorted(choice.sample(range(1, BYTES), TASKS))
    pieces = zip([0, *edges], [*edges, BYTES], strict=True)
    source_bytes = choice.randbytes(BYTES)
    expected = bytearray(BYTES)

    async def change(file: Any, source: Any, own: random.Random, start: int, end: int) -> None:
        """Change the piece by a random operation, and check it."""
        data = own.randbytes(end - start)
        way = own.randrange(6)
        if way == 0:
            cut = own.randrange(len(data) + 1)
            assert await file.pwritev([data[:cut], data[cut:]], start) == len(data)
        elif way == 1:
            data = bytes(len(data))
            await file.write_zeroes(start, len(data), unmap=own.random() < 0.5)
        elif way == 2:
            data = bytes(len(data))
            await file.discard(start, len(data))
        elif way == 3:
            data = source_bytes[-len(data) :]
            assert await file.copy_range(source, BYTES - len(data), start, len(data)) == len(data)
        else:
            assert await file.pwrite(data, start, fua=own.random() < 0.1) == len(data)
        parts = [bytearray(len(data) // 3), bytearray(len(data) - len(data) // 3)]
        assert await file.preadv(parts, start) == len(data)
        assert b"".join(parts) == data, way
        expected[start:end] = data

    async def main() -> None:
        async with (
            aio.connect(mounts_daemon.endpoint, timeout=scaled(60)) as client,
            await client.open(f"{place.name}/source", "w+") as source,
            await client.open(f"{place.name}/file", "w+", direct=True) as one,
            await client.open(f"{place.name}/file", "r+", direct=True) as two,
        ):
            await source.pwrite(source_bytes, 0)
            await one.truncate(BYTES)

            async def work(number: int, start: int, end: int) -> None:
                own = random.Random(number)  # noqa: S311 - no secret
                for _ in range(ROUNDS):
                    await change((one, two)[number % 2], source, own, start, end)

            await asyncio.gather(*(work(number, *piece) for number, piece in enumerate(pieces)))
            assert await one.pread(MIB, 0) == expected

    asyncio.run(main())
    assert (place.path / "file").read_bytes() == expected


def test_appends_and_misaligned_writes_do_not_overwrite_each_other(place: Any, mounts_daemon: Any) -> None:
    """A misaligned write at the end writes a whole block and truncates it: that must not remove an append."""
    if not place.has_direct:
        pytest.skip(f"{place.name} of this kernel has no O_DIRECT")

    async def main() -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        async with (
            aio.connect(mounts_daemon.endpoint, timeout=scaled(60)) as client,
            await client.open(f"{place.name}/file", "w+", direct=True) as direct,
            await client.open(f"{place.name}/file", "a") as log,
        ):

            async def append(number: int) -> None:
                for length in range(1, 20 * ROUNDS):
                    data = bytes([number]) * length
                    found[await log.append(data)] = data

            async def rewrite() -> None:
                """Write the last record again unchanged, which rewrites its whole blocks."""
                for _ in range(40 * ROUNDS):
                    if found:
                        offset = max(found)
                        assert await direct.pwrite(found[offset], offset) == len(found[offset])
                    else:
                        await asyncio.sleep(0)

            await asyncio.gather(append(1), append(2), append(3), rewrite(), rewrite())
            assert await direct.size() == sum(map(len, found.values()))
        return found

    found = asyncio.run(main())
    assert (place.path / "file").read_bytes() == b"".join(found[offset] for offset in sorted(found))


def test_a_direct_file_grows_byte_by_byte(place: Any) -> None:
    """Each write rewrites the last block, and the file has the exact size."""
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


def test_direct_requests_accept_thousands_of_buffers(place: Any) -> None:
    choice = random.Random(2)  # noqa: S311 - no secret
    data = [choice.randbytes(choice.randrange(700)) for _ in range(5_000)]
    for direct in (False, True)[: 1 + place.has_direct]:
        with place.open("file", direct=direct) as file:
            assert file.pwritev(data, 3) == sum(map(len, data))
            buffers = [bytearray(len(each)) for each in data]
            assert file.preadv(buffers, 3) == sum(map(len, data))
            assert buffers == data
        assert (place.path / "file").read_bytes() == bytes(3) + b"".join(data)
