"""Existing code on aiod: tarfile, zipfile, shutil and io's buffers work on fileobj's files as on Python's own."""

from __future__ import annotations

import array
import errno
import io
import os
import random
import shutil
import tarfile
import threading
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import fileobj
from aiod_protocol.operations import Op

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def client(shared_daemon: Any) -> Iterator[aiod_client.Client]:
    """A client of a real daemon."""
    with aiod_client.connect(shared_daemon.endpoint) as client:
        yield client


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with files of all sizes."""
    generator = random.Random(7)  # noqa: S311 - no secret
    for number, size in enumerate((0, 1, 511, 512, 513, 65536, 300_001)):
        directory = tmp_path / "tree" / f"d{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file{number}").write_bytes(generator.randbytes(size))
    return tmp_path / "tree"


def contents(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


@pytest.mark.parametrize("compression", ["", "gz"])
@pytest.mark.parametrize("direct", [False, True], ids=["cached", "direct"])
def test_tarfile_writes_and_reads_an_archive(
    client: aiod_client.Client, tree: Path, compression: str, *, direct: bool
) -> None:
    with (
        fileobj.open(client, "scratch/backup.tar", "w", direct=direct) as file,
        tarfile.open(fileobj=file, mode=f"w:{compression}") as tar,  # type: ignore[call-overload]
    ):
        tar.add(tree, arcname=".")
    with fileobj.open(client, "scratch/backup.tar", direct=direct) as back, tarfile.open(fileobj=back) as tar:
        files = {os.path.normpath(member.name): tar.extractfile(member) for member in tar if member.isfile()}
        assert {name: file.read() for name, file in files.items() if file is not None} == contents(tree)


def test_zipfile_writes_and_reads_an_archive(client: aiod_client.Client, tree: Path) -> None:
    wanted = contents(tree)
    with fileobj.open(client, "scratch/backup.zip", "w+") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in wanted.items():
                archive.writestr(name, data)
        with zipfile.ZipFile(file, "a") as archive:  # reads the directory at its end, and writes over it
            archive.writestr("more", b"more")
    with fileobj.open(client, "scratch/backup.zip") as back, zipfile.ZipFile(back) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == wanted | {"more": b"more"}


@pytest.mark.parametrize("buffering", [-1, 0, 512])
def test_copyfileobj_copies_a_file(client: aiod_client.Client, buffering: int) -> None:
    data = random.Random(1).randbytes(5_000_003)  # noqa: S311
    with fileobj.open(client, "scratch/copy", "w", buffering) as file:
        shutil.copyfileobj(io.BytesIO(data), file)
    back = io.BytesIO()
    with fileobj.open(client, "scratch/copy", "r", buffering) as file:
        shutil.copyfileobj(file, back)
    assert back.getvalue() == data


def test_mode_and_buffering_decide_the_class_of_the_file(client: aiod_client.Client) -> None:
    kinds = {"w": io.BufferedWriter, "r": io.BufferedReader, "r+": io.BufferedRandom, "a+": io.BufferedRandom}
    for mode, kind in kinds.items():
        with fileobj.open(client, "scratch/kinds", mode) as file:
            assert isinstance(file, kind)
            assert file.name == "scratch/kinds"
    with fileobj.open(client, "scratch/kinds", "r", 0) as raw:
        assert isinstance(raw, fileobj.RawFile)
    for wrong in (1, -2):
        with pytest.raises(ValueError, match="buffering"):
            fileobj.open(client, "scratch/kinds", "r", wrong)
    with pytest.raises(FileNotFoundError):
        fileobj.open(client, "scratch/none")


def test_a_text_wrapper_reads_and_writes_lines(client: aiod_client.Client) -> None:
    with fileobj.open(client, "scratch/text", "w") as file, io.TextIOWrapper(file, encoding="utf-8") as text:
        text.writelines(f"Zeile {number} ü\n" for number in range(10_000))
    with fileobj.open(client, "scratch/text") as back, io.TextIOWrapper(back, encoding="utf-8") as text:
        assert list(text)[9_999] == "Zeile 9999 ü\n"


def test_text_mode_has_the_arguments_of_the_builtin_open(client: aiod_client.Client, tmp_path: Path) -> None:
    own = tmp_path / "own"
    for newline, data in (
        (None, "a\nb\r\nc\rd"),
        ("", "a\nb\r\nc\rd"),
        ("\r\n", "a\nb\n"),
    ):
        arguments: dict[str, Any] = {"encoding": "utf-16", "errors": "strict", "newline": newline}
        with own.open("w", **arguments) as theirs, fileobj.open(client, "scratch/t", "wt", **arguments) as ours:
            assert ours.write(data) == theirs.write(data)
            assert (ours.mode, ours.encoding, ours.name) == ("wt", "utf-16", "scratch/t")
        assert client.read_file("scratch/t") == own.read_bytes()
        with own.open("r+", **arguments) as theirs, fileobj.open(client, "scratch/t", "r+t", **arguments) as ours:
            assert ours.readlines() == theirs.readlines()
            assert ours.seek(ours.tell()) == theirs.seek(theirs.tell())
            assert ours.write("end") == theirs.write("end")
        assert client.read_file("scratch/t") == own.read_bytes()


def test_line_buffered_text_is_written_line_by_line(client: aiod_client.Client) -> None:
    with fileobj.open(client, "scratch/lines", "wt", 1, encoding="utf-8") as text:
        text.write("one\ntw")
        text.write("o\n")
        assert client.read_file("scratch/lines") == b"one\ntwo\n"
        text.write("three")
        assert client.read_file("scratch/lines") == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("mode", "buffering", "arguments"),
    [
        ("w", -1, {"encoding": "utf-8"}),
        ("w", -1, {"errors": "strict"}),
        ("wb", -1, {"newline": "\n"}),
        ("wbt", -1, {}),
        ("wtt", -1, {}),
        ("wt", 0, {}),
        ("wt", -1, {"newline": "x"}),
        ("wt", -1, {"encoding": "none-such"}),
    ],
)
def test_arguments_that_do_not_fit_leave_the_file_as_it_is(
    client: aiod_client.Client, mode: str, buffering: int, arguments: dict[str, str]
) -> None:
    client.write_file("scratch/stays", b"data")
    with pytest.raises((ValueError, LookupError)):
        fileobj.open(client, "scratch/stays", mode, buffering, **arguments)  # type: ignore[call-overload]
    assert client.read_file("scratch/stays") == b"data"


@pytest.mark.parametrize("mode", ["w+", "a+"])
def test_the_timeout_of_a_file_is_that_of_its_requests(
    client: aiod_client.Client, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    with fileobj.open(client, "scratch/late", mode, 0, timeout=60.0) as raw:
        seen: list[float | None] = []
        for name in ("pread", "pread_into", "pwrite", "flush", "size", "truncate", "close"):
            usual = getattr(raw._file, name)

            def call(*positional: Any, timeout: float | None = None, usual: Any = usual) -> Any:
                seen.append(timeout)
                return usual(*positional, timeout=timeout)

            monkeypatch.setattr(raw._file, name, call)
        raw.write(b"data")
        raw.seek(0, os.SEEK_END)
        raw.seek(0)
        raw.readinto(bytearray(2))
        assert raw.readall() == b"ta"
        if mode == "w+":  # a file opened to append is written by appends only
            raw.truncate(0)
        raw.sync()
    assert seen == [60.0] * len(seen)
    assert len(seen) >= 6


def test_positions_move_as_those_of_pythons_own_files(client: aiod_client.Client, tmp_path: Path) -> None:
    """Compares random operations with those of a file of Python's own."""
    generator = random.Random(11)  # noqa: S311
    with (tmp_path / "own").open("w+b") as own, fileobj.open(client, "scratch/side", "w+") as file:
        for _ in range(2000):
            match generator.randrange(5):
                case 0:
                    offset = generator.randrange(200_000)
                    assert own.seek(offset) == file.seek(offset)
                case 1:
                    data = generator.randbytes(generator.randrange(3000))
                    assert own.write(data) == file.write(data)
                case 2:
                    length = generator.randrange(5000)
                    assert own.read(length) == file.read(length)
                case 3:
                    assert own.seek(0, os.SEEK_END) == file.seek(0, os.SEEK_END)
                case 4 if generator.randrange(20) == 0:
                    assert own.truncate() == file.truncate()
            assert own.tell() == file.tell()


def test_append_mode_writes_at_the_end(client: aiod_client.Client) -> None:
    with fileobj.open(client, "scratch/log", "a", 0) as one, fileobj.open(client, "scratch/log", "a+", 0) as other:
        assert one.write(b"first ") == 6
        assert other.write(b"second") == 6
        assert other.tell() == 12
        other.seek(0)
        assert other.read(100) == b"first second"


def test_an_operation_that_the_mode_does_not_allow_raises(client: aiod_client.Client) -> None:
    client.open("scratch/modes", "w").close()
    with fileobj.open(client, "scratch/modes", "r", 0) as file:
        assert (file.readable(), file.writable(), file.seekable()) == (True, False, True)
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
        with pytest.raises(io.UnsupportedOperation):
            file.truncate(0)
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 9)
    with fileobj.open(client, "scratch/modes", "w", 0) as file, pytest.raises(io.UnsupportedOperation):
        file.read(1)
    uses: list[Callable[[], object]] = [
        lambda: file.write(b"x"),
        file.tell,
        lambda: file.seek(0),
        lambda: file.readinto(bytearray(1)),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="closed file"):
            use()


def test_append_mode_begins_at_the_end_and_accepts_any_length(client: aiod_client.Client) -> None:
    with client.open("scratch/grows", "w") as file:
        file.pwrite(b"12345", 0)
        longer = bytes(range(256)) * (file.request_bytes_max // 256) + b"and more"
    with fileobj.open(client, "scratch/grows", "a") as file:
        assert file.tell() == 5
        assert file.write(longer) == len(longer)
        assert file.tell() == 5 + len(longer)
    with fileobj.open(client, "scratch/grows") as file:
        assert file.read() == b"12345" + longer


def test_the_count_of_a_failed_append_in_pieces_includes_all_pieces(
    client: aiod_client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fileobj.open(client, "scratch/pieces", "a", 0) as raw:
        file, step = raw._file, raw._file.request_bytes_max
        usual = file._perform

        def full(request: Any, timeout: float | None) -> Any:
            if request.op == Op.APPEND and file.size():
                error = OSError(errno.ENOSPC, "no room")
                error.written = 7  # type: ignore[attr-defined]
                raise error
            return usual(request, timeout)

        monkeypatch.setattr(file, "_perform", full)
        assert raw.write(bytes(step + 100)) == step + 7
        assert raw.tell() == step + 7
        with pytest.raises(OSError, match="no room"):
            raw.flush()


def test_reading_all_takes_few_requests(client: aiod_client.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(2).randbytes(3_000_000)  # noqa: S311
    with client.open("scratch/all", "w+") as file:
        file.pwrite(data, 0)
        asked: list[int] = []
        usual = file.pread

        def counted(length: int, offset: int) -> bytes:
            asked.append(length)
            return usual(length, offset)

        monkeypatch.setattr(file, "pread", counted)
        raw = file.raw
        raw.seek(1000)
        assert raw.readall() == data[1000:]
        assert raw.readall() == b""
        assert len(asked) == 2


def count_reads(monkeypatch: pytest.MonkeyPatch, raw: fileobj.RawFile) -> list[int]:
    """The list that gets the lengths of all reads of `raw` from now on."""
    asked: list[int] = []
    usual = raw._file.pread

    def counted(length: int, offset: int) -> bytes:
        asked.append(length)
        return usual(length, offset)

    monkeypatch.setattr(raw._file, "pread", counted)
    return asked


def test_reading_all_of_a_file_that_grows_takes_few_requests(
    client: aiod_client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(3).randbytes(20_000_000)  # noqa: S311
    with client.open("scratch/grows", "w+") as file:
        file.pwrite(data, 0)
        monkeypatch.setattr(file, "size", lambda: 10)  # the size a moment before
        raw = file.raw
        asked = count_reads(monkeypatch, raw)
        assert raw.readall() == data
        assert len(asked) <= 12


def test_a_write_that_timed_out_does_not_use_the_buffers_memory(
    client: aiod_client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Io lends the memory for the call only, and a request that has timed out may still be sent."""
    raw = fileobj.open(client, "scratch/lent", "w", 0)
    given: list[Any] = []

    def give_up(data: Any, offset: int) -> int:
        given.append((data, offset))
        raise TimeoutError

    monkeypatch.setattr(raw._file, "pwrite", give_up)
    memory = bytearray(b"A" * 100_000)
    with pytest.raises(TimeoutError):
        raw.write(memoryview(memory).toreadonly())
    memory[:] = b"B" * 100_000
    assert given == [(b"A" * 100_000, 0)]
    raw.close()


def test_writing_an_object_that_is_no_buffer_raises(client: aiod_client.Client) -> None:
    with fileobj.open(client, "scratch/typed", "w", 0) as raw:
        for data in (5, "text", None):
            with pytest.raises(TypeError):
                raw.write(data)  # type: ignore[arg-type]
        assert raw.write(array.array("I", [1, 2])) == 8


def test_the_raw_attribute_is_the_same_file(client: aiod_client.Client) -> None:
    with client.open("scratch/raw", "w+") as file:
        raw = file.raw
        raw.write(b"0123456789")
        assert file.pread(10, 0) == b"0123456789"
        raw.seek(-3, os.SEEK_CUR)
        into = memoryview(bytearray(8))
        assert raw.readinto(into) == 3
        assert bytes(into[:3]) == b"789"
        assert raw.readinto(into) == 0
        assert raw.truncate(4) == 4
        assert raw.tell() == 10
        raw.sync()
        raw.close()
        assert file.closed
        raw.close()


def test_threads_that_share_a_file_each_read_different_bytes(client: aiod_client.Client) -> None:
    """A read and its move of the position are atomic: no two threads get the same bytes."""
    with client.open("scratch/shared", "w+") as file:
        file.pwrite(b"".join(number.to_bytes(4, "big") for number in range(4000)), 0)
        raw, got, lock = file.raw, [], threading.Lock()

        def read() -> None:
            while data := raw.read(4):
                with lock:
                    got.append(int.from_bytes(data, "big"))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == list(range(4000))


class InterruptedLock:
    """A lock whose release is followed by a signal's handler that raises."""

    def __enter__(self) -> None:
        """Take it."""

    def __exit__(self, *_: object) -> None:
        """Release it, and be interrupted."""
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["write", "readinto", "readall", "seek"])
def test_an_operation_whose_result_is_lost_to_a_signal_handler_moves_no_position(
    client: aiod_client.Client, name: str
) -> None:
    """The buffer above gets no count, and does all of it again."""
    arguments: dict[str, tuple[Any, ...]] = {"write": (b"ab",), "readinto": (bytearray(2),), "seek": (1, os.SEEK_CUR)}
    with fileobj.open(client, "scratch/interrupted", "w+", 0) as raw:
        raw.write(b"abcdef")
        raw.seek(2)
        usual = raw._lock
        raw._lock = InterruptedLock()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            getattr(raw, name)(*arguments.get(name, ()))
        raw._lock = usual
        assert raw.tell() == 2
