"""asyncio files with a position: as Python's own files in every operation, and by the interface of aiofiles."""

from __future__ import annotations

import asyncio
import io
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from aiod_client import aio
from aiod_client.aio import files as aiofiles
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from tests.conftest import Daemon

PATIENCE_S = scaled(60.0)


@pytest.fixture(autouse=True)
def _endpoint(shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOD_ENDPOINT", shared_daemon.endpoint)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it on a loop of its own."""

    async def main() -> None:
        await asyncio.wait_for(coroutine, PATIENCE_S)

    asyncio.run(main())


# ---- the examples of aiofiles' documentation ------------------------------------------------------------------------


def test_the_documented_examples_of_aiofiles_run(shared_daemon: Daemon) -> None:
    """With the import changed, and EXPORT/ before the names of files."""
    (shared_daemon.path / "filename").write_text("My file contents\nsecond line\n")
    printed: list[str] = []

    async def main() -> None:
        async with aiofiles.open("scratch/filename", mode="r") as f:
            contents = await f.read()
        printed.append(contents)

        async with aiofiles.open("scratch/filename") as f:
            async for line in f:
                printed.append(line)  # noqa: PERF401 - as the example

        async with aiofiles.open("scratch/copy", "wb+") as g:
            await g.write(b"Line1\n Line2")
            await g.seek(0)
            async for data in g:
                printed.append(data.decode())  # noqa: PERF401 - as the example

        f = await aiofiles.open("scratch/filename", mode="r")
        try:
            printed.append(await f.readline())
        finally:
            await f.close()

    run(main())
    assert printed == [
        "My file contents\nsecond line\n",
        "My file contents\n",
        "second line\n",
        "Line1\n",
        " Line2",
        "My file contents\n",
    ]


AWAITED = {"close", "flush", "isatty", "read", "readline", "readlines", "seek", "seekable", "tell", "truncate"}
AWAITED |= {"write", "writable", "writelines"}
DIRECT = {"fileno", "readable", "closed", "name", "mode"}
OF_BYTES = {"read1", "readinto", "readall", "peek"}
OF_TEXT = {"buffer", "encoding", "errors", "line_buffering", "newlines"}


def test_the_files_have_the_methods_of_aiofiles() -> None:
    async def main() -> None:
        async with aiofiles.open("scratch/names", "wb") as data, aiofiles.open("scratch/names", "w") as text:
            for name in AWAITED | DIRECT | OF_BYTES | {"raw"}:
                assert hasattr(data, name), name
            for name in AWAITED | DIRECT | OF_TEXT:
                assert hasattr(text, name), name
            assert (data.readable(), await data.writable(), await data.seekable()) == (False, True, True)
            assert await text.isatty() is False
            with pytest.raises(io.UnsupportedOperation):
                data.fileno()
            with pytest.raises(io.UnsupportedOperation):
                await text.read()
        for use in (data.tell, text.readline, lambda: data.write(b""), text.flush):
            with pytest.raises(ValueError, match="closed file"):
                await use()
        await data.close()

    run(main())


# ---- as Python's own files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffering", [0, 7, 4096, -1])
def test_bytes_are_read_and_written_as_by_pythons_own_files(  # noqa: C901 - one case an operation
    tmp_path: Path, buffering: int
) -> None:
    generator = random.Random(buffering)  # noqa: S311 - no secret

    async def main() -> None:
        own: Any = (tmp_path / "own").open("w+b", buffering=max(buffering, 0))
        async with aiofiles.open("scratch/side", "w+b", buffering) as file:
            for _ in range(700):
                length = generator.choice([0, 1, 5, 7, 8, 40, 3000])
                match generator.randrange(9):
                    case 0:
                        offset = generator.randrange(20_000)
                        assert own.seek(offset) == await file.seek(offset)
                    case 1 | 2:
                        data = generator.randbytes(length).replace(b"\0", b"\n")
                        assert own.write(data) == await file.write(data)
                    case 3:
                        assert own.read(length) == await file.read(length)
                    case 4:
                        assert own.seek(0, os.SEEK_END) == await file.seek(0, os.SEEK_END)
                    case 5:
                        assert own.readline() == await file.readline()
                    case 6:
                        assert own.readline(length) == await file.readline(length)
                    case 7:
                        ours, theirs = bytearray(length), bytearray(length)
                        assert own.readinto(theirs) == await file.readinto(ours)
                        assert ours == theirs
                    case 8 if generator.randrange(20) == 0:
                        assert own.truncate() == await file.truncate()
                assert own.tell() == await file.tell()
            own.seek(0)
            await file.seek(0)
            assert own.read() == await file.readall()
            own.seek(0)
            await file.seek(0)
            assert own.readlines(100) == await file.readlines(100)
        own.close()

    run(main())


TEXT = "ab\nc\r\nd\re ü\n€uro\r\n\r\n𝄞 clef\n" * 7 + "no end"


@pytest.mark.parametrize("buffering", [2, 7, -1])
@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "utf-8-sig"])
def test_text_is_read_as_by_pythons_own_files(
    shared_daemon: Daemon, tmp_path: Path, encoding: str, newline: str | None, buffering: int
) -> None:
    data = TEXT.encode(encoding, "replace")
    (tmp_path / "own").write_bytes(data)
    (shared_daemon.path / "text").write_bytes(data)
    generator = random.Random(f"{encoding}{newline}{buffering}")  # noqa: S311
    arguments: dict[str, Any] = {"encoding": encoding, "newline": newline}

    async def main() -> None:
        own = (tmp_path / "own").open(**arguments)
        async with aiofiles.open("scratch/text", "r", buffering, **arguments) as file:
            assert [line async for line in file] == list(own)
            assert file.newlines == own.newlines
            places = [(own.seek(0), await file.seek(0))]
            for _ in range(80):
                length = generator.choice([0, 1, 2, 3, 10])
                match generator.randrange(6):
                    case 0:
                        theirs, ours = generator.choice(places)
                        own.seek(theirs)
                        await file.seek(ours)
                    case 1:
                        assert own.read(length) == await file.read(length)
                    case 2:
                        assert own.readline() == await file.readline()
                    case 3:
                        assert own.readline(length) == await file.readline(length)
                    case 4:
                        places.append((own.tell(), await file.tell()))
                    case 5 if generator.randrange(10) == 0:
                        assert own.read() == await file.read()
        own.close()

    run(main())


@pytest.mark.parametrize("newline", [None, "\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_text_is_written_as_by_pythons_own_files(
    shared_daemon: Daemon, tmp_path: Path, encoding: str, newline: str | None
) -> None:
    arguments: dict[str, Any] = {"encoding": encoding, "newline": newline}

    async def main() -> None:
        own = tmp_path / "own"
        for mode in ("w", "a", "r+"):
            with own.open(mode, **arguments) as theirs:
                async with aiofiles.open("scratch/text", mode, **arguments) as ours:
                    assert (ours.mode, ours.encoding, ours.errors) == (theirs.mode, theirs.encoding, theirs.errors)
                    if mode == "r+":
                        assert await ours.readline() == theirs.readline()
                        theirs.seek(theirs.tell())
                    assert await ours.write("line ü\n") == theirs.write("line ü\n")
                    await ours.writelines(["one\n", "two\r\n"])
                    theirs.writelines(["one\n", "two\r\n"])
                    if mode == "w":
                        assert await ours.truncate() == theirs.truncate()
            assert (shared_daemon.path / "text").read_bytes() == own.read_bytes()

    run(main())


def test_line_buffered_text_is_written_line_by_line(shared_daemon: Daemon) -> None:
    path = shared_daemon.path / "lines"

    async def main() -> None:
        async with aiofiles.open("scratch/lines", "w", 1) as file:
            await file.write("one\ntw")
            assert path.read_bytes() == b"one\ntw"
            await file.write("o")
            assert path.read_bytes() == b"one\ntw"
            await file.sync()
            assert path.read_bytes() == b"one\ntwo"

    run(main())


def test_append_mode_writes_at_the_end(shared_daemon: Daemon) -> None:
    async def main() -> None:
        async with aiofiles.open("scratch/log", "ab", 0) as one, aiofiles.open("scratch/log", "ab+") as other:
            assert await one.write(b"first ") == 6
            await other.write(b"second")
            assert await other.tell() == 6
            await other.flush()
            assert await other.tell() == 12
            await other.seek(0)
            assert await other.read() == b"first second"
            longer = bytes(range(256)) * (one.raw.request_bytes_max // 256) + b"and more"
            await one.write(longer)
        assert (shared_daemon.path / "log").read_bytes() == b"first second" + longer

    run(main())


@pytest.mark.parametrize(
    ("mode", "buffering", "arguments"),
    [
        ("wb", -1, {"encoding": "utf-8"}),
        ("wb", -1, {"newline": "\n"}),
        ("wbt", -1, {}),
        ("wtt", -1, {}),
        ("wb", 1, {}),
        ("w", 0, {}),
        ("w", -2, {}),
        ("w", -1, {"newline": "x"}),
        ("w", -1, {"encoding": "none-such"}),
    ],
)
def test_arguments_that_do_not_fit_leave_the_file_as_it_is(
    shared_daemon: Daemon, mode: str, buffering: int, arguments: dict[str, str]
) -> None:
    (shared_daemon.path / "stays").write_bytes(b"data")

    async def main() -> None:
        with pytest.raises((ValueError, LookupError)):
            await aiofiles.open("scratch/stays", mode, buffering, **arguments)  # type: ignore[call-overload]

    run(main())
    assert (shared_daemon.path / "stays").read_bytes() == b"data"


# ---- tasks ----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_read_in_order_is_read_ahead(shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(5).randbytes(10 * 4096 + 5)  # noqa: S311
    (shared_daemon.path / "ordered").write_bytes(data)

    async def main() -> None:
        async with aiofiles.open("scratch/ordered", "rb", 4096) as file:
            ahead: list[int] = []
            usual = file.raw.submit

            def submit(batch: list[tuple[Any, ...]], **options: Any) -> Any:
                ahead.append(batch[0][2])
                return usual(batch, **options)

            monkeypatch.setattr(file.raw, "submit", submit)
            parts = []
            while part := await file.read(1000):
                parts.append(part)
            assert b"".join(parts) == data
            assert ahead == list(range(4096, 11 * 4096, 4096))
            del ahead[:]
            for offset in (8192, 0, 20_000, 4096):
                await file.seek(offset)
                assert await file.read(10) == data[offset : offset + 10]
            assert ahead == []

    run(main())


def test_tasks_that_share_a_file_follow_one_another(shared_daemon: Daemon) -> None:
    lines = [b"line %d\n" % number for number in range(500)]
    (shared_daemon.path / "shared").write_bytes(b"".join(lines))

    async def main() -> None:
        async with aiofiles.open("scratch/shared", "rb", 64) as file:

            async def read() -> list[bytes]:
                return [line async for line in file]

            found = await asyncio.gather(*(read() for _ in range(5)))
        assert sorted(line for lines_of_task in found for line in lines_of_task) == sorted(lines)

    run(main())


@pytest.mark.parametrize("mode", ["rb", "r"])
def test_a_cancelled_read_moves_the_position_nowhere(
    shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    (shared_daemon.path / "cancelled").write_bytes(b"x" * 100 + b"\n" + b"y" * 100)

    async def main() -> None:
        async with aiofiles.open("scratch/cancelled", mode, 16) as file:
            assert len(await file.read(10)) == 10
            raw = file.raw if mode == "rb" else file.buffer.raw
            usual, reached = raw.pread, asyncio.Event()

            async def stuck(*_: Any, **__: Any) -> bytes:
                reached.set()
                await asyncio.Event().wait()
                raise AssertionError

            for use in (file.readline, lambda: file.read(50), file.read):
                reached.clear()
                monkeypatch.setattr(raw, "pread", stuck)
                monkeypatch.setattr(raw, "submit", lambda *_, **__: [asyncio.ensure_future(stuck())])
                task = asyncio.ensure_future(use())
                await reached.wait()
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                monkeypatch.setattr(raw, "pread", usual)
                assert await file.tell() == 10
            monkeypatch.undo()
            assert len(await file.readline()) == 91

    monkeypatch.setenv("AIOD_ENDPOINT", shared_daemon.endpoint)
    run(main())


def test_a_given_client_is_used_and_a_loops_own_goes_with_the_loop(shared_daemon: Daemon) -> None:
    async def main() -> None:
        async with aio.connect(shared_daemon.endpoint) as client:
            async with aiofiles.open("scratch/given", "w", client=client) as file:
                await file.write("text")
            assert asyncio.get_running_loop() not in aiofiles._clients
        async with aiofiles.open("scratch/given") as file:
            assert await file.read() == "text"
        assert list(aiofiles._clients) == [asyncio.get_running_loop()]

    run(main())
    run(main())
