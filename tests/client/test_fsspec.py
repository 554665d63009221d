"""What fsspec's own tests leave open: processes, ranges, transactions, streams, awaited files, errors."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import multiprocessing
import os
import pickle
import stat
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fsspec", reason="the extra fsspec is not installed")

import fsspec

from aiod_client import lazy
from aiod_client.fsspec import AiodFileSystem, transfers
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.client.conftest import Peer
    from tests.conftest import Daemon

NUMBERS = itertools.count()


@pytest.fixture
def fs(shared_daemon: Daemon) -> AiodFileSystem:
    """The file system, connected by the ring where there is one."""
    return AiodFileSystem(shared_daemon.endpoint, timeout=scaled(120))


@pytest.fixture
def at(shared_daemon: Daemon) -> str:
    """A directory of the test's own, EXPORT/PATH."""
    name = f"own{next(NUMBERS)}"
    (shared_daemon.path / name).mkdir()
    return f"scratch/{name}"


@pytest.fixture
def local(shared_daemon: Daemon, at: str) -> Path:
    """The same directory in the machine."""
    return shared_daemon.base / at


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Streams in parts of 10 bytes."""
    monkeypatch.setattr(transfers, "PART_BYTES", 10)
    return 10


# ---- how it is found, and what it costs to have one -----------------------------------------------------------------


def test_storage_options_say_which_of_several_daemons_is_preferred() -> None:
    fs = fsspec.filesystem("aiod", endpoint="ipc:///a,ipc:///b", prefer="ipc:///b", host_timeout=3.0)
    assert (fs.settings.prefer, fs.settings.host_timeout) == (("ipc:///b",), 3.0)


def test_the_url_of_a_file_opens_it_with_the_options_of_connect(shared_daemon: Daemon, at: str) -> None:
    url = f"aiod://{at}/table.csv"
    with fsspec.open(url, "w", endpoint=shared_daemon.endpoint, transport="zmq") as f:
        f.write("a,b\n")
    with fsspec.open(url, "rb", endpoint=shared_daemon.endpoint) as f:
        assert f.read() == b"a,b\n"


def test_nothing_is_connected_before_the_first_use() -> None:
    fs = AiodFileSystem("ipc:///nowhere/aiod.sock")
    with pytest.raises(ConnectionError):
        fs.info("scratch/x")


def test_an_unknown_transport_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="unknown transport"):
        AiodFileSystem("ipc:///nowhere/aiod.sock", transport="pigeon")  # type: ignore[arg-type]


def test_after_close_it_connects_again(fs: AiodFileSystem, at: str) -> None:
    fs.pipe_file(f"{at}/x", b"1")
    asyncio.run(async_read(fs, f"{at}/x"))
    fs.close()
    assert fs.cat_file(f"{at}/x") == b"1"
    assert fs.cat([f"{at}/x"]) == {f"{at}/x": b"1"}


async def async_read(fs: AiodFileSystem, path: str) -> bytes:
    data: bytes = await fs._cat_file(path)
    return data


def test_each_event_loop_has_a_client_of_its_own(shared_daemon: Daemon, at: str) -> None:
    fs = AiodFileSystem(shared_daemon.endpoint, asynchronous=True)
    (shared_daemon.base / at / "x").write_bytes(b"1")
    for _ in range(3):
        assert asyncio.run(async_read(fs, f"{at}/x")) == b"1"
    assert [loop.is_closed() for loop in lazy._clients.awaited].count(True) <= 1  # until the next loop asks


# ---- processes ------------------------------------------------------------------------------------------------------


def read_in_child(fs: AiodFileSystem, path: str, results: Any) -> None:
    """In the child: by the blocking client, by fsspec's loop, and by an open file that came by pickle or fork."""
    results.put((fs.cat_file(path), fs.cat([path])[path]))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_child_process_connects_anew(fs: AiodFileSystem, at: str, method: Any) -> None:
    fs.pipe_file(f"{at}/x", b"1")
    assert fs.cat([f"{at}/x"]) == {f"{at}/x": b"1"}  # both clients are connected
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=read_in_child, args=(fs, f"{at}/x", results))
    child.start()
    assert results.get(timeout=scaled(60)) == (b"1", b"1")
    child.join()
    assert child.exitcode == 0
    assert fs.cat_file(f"{at}/x") == b"1"  # the parent's connections are untouched


def test_a_file_that_is_read_is_pickled_with_its_position(fs: AiodFileSystem, at: str) -> None:
    fs.pipe_file(f"{at}/x", b"0123456789")
    with fs.open(f"{at}/x") as f:
        f.seek(4)
        with pickle.loads(pickle.dumps(f)) as other:  # noqa: S301 - our own
            assert other.read() == b"456789"
    with fs.open(f"{at}/x", "wb") as f, pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(f)


# ---- ranges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (2, 5), (None, 5), (5, None), (-3, None), (-5, -2), (None, -4), (8, 99), (7, 3)]
)
@pytest.mark.parametrize("direct", [False, True])
def test_ranges_are_those_of_slices(
    shared_daemon: Daemon, at: str, local: Path, start: int | None, end: int | None, *, direct: bool
) -> None:
    fs = AiodFileSystem(shared_daemon.endpoint, direct=direct)
    (local / "x").write_bytes(b"0123456789")
    expected = b"0123456789"[start:end]
    assert fs.cat_file(f"{at}/x", start, end) == expected
    assert fs.cat_ranges([f"{at}/x"], [start], [end]) == [expected]


def test_ranges_of_many_files_come_in_order_with_the_errors_of_those_that_failed(
    fs: AiodFileSystem, at: str, local: Path
) -> None:
    for name in "ab":
        (local / name).write_bytes(name.encode() * 1000)
    paths = [f"{at}/{name}" for name in ("a", "missing", "b", "a")]
    found = fs.cat_ranges(paths, [0, 0, 10, 990], [5, 5, 12, None])
    assert found[0] == b"aaaaa"
    assert isinstance(found[1], FileNotFoundError)
    assert found[2:] == [b"bb", b"a" * 10]
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths, 0, 5, on_error="raise")


def test_the_ranges_of_files_are_one_message(peer: Peer) -> None:
    peer.files |= {"x": bytearray(range(200)), "y": bytearray(range(200))}
    fs = AiodFileSystem(peer.endpoint)
    found = fs.cat_ranges(["scratch/x", "scratch/y"] * 100, list(range(200)), [start + 1 for start in range(200)])
    fs.close()
    assert found == [bytes([number]) for number in range(200)]
    assert peer.batches == [200]


# ---- names ----------------------------------------------------------------------------------------------------------


def test_info_and_ls_have_what_stat_has(fs: AiodFileSystem, at: str, local: Path) -> None:
    (local / "x").write_bytes(b"123")
    (local / "directory").mkdir()
    (local / "nowhere").symlink_to("missing")
    found = (local / "x").stat()
    info = fs.info(f"aiod://{at}/x")
    assert (info["name"], info["size"], info["type"]) == (f"{at}/x", 3, "file")
    assert info["mtime"] == pytest.approx(found.st_mtime)
    assert fs.modified(f"{at}/x").timestamp() == pytest.approx(found.st_mtime)
    assert (info["mode"], info["ino"], info["nlink"]) == (found.st_mode, found.st_ino, 1)
    listed = {entry["name"].rpartition("/")[2]: entry for entry in fs.ls(at)}
    assert listed["x"] == info
    assert listed["directory"]["type"] == "directory"
    assert listed["nowhere"]["type"] == "other"
    assert sorted(fs.ls(at, detail=False)) == [f"{at}/directory", f"{at}/nowhere", f"{at}/x"]


def test_the_root_has_the_exports(fs: AiodFileSystem) -> None:
    assert fs.ls("aiod://", detail=False) == ["scratch"]
    assert fs.isdir("")
    assert fs.isdir("aiod://scratch/")


def test_a_path_below_a_file_does_not_exist(fs: AiodFileSystem, at: str) -> None:
    fs.pipe_file(f"{at}/x", b"1")
    assert not fs.exists(f"{at}/x/y")
    with pytest.raises(FileNotFoundError):
        fs.info(f"{at}/x/y")


def test_directories_are_made_for_files_unless_this_is_unwanted(shared_daemon: Daemon, at: str) -> None:
    fs = AiodFileSystem(shared_daemon.endpoint)
    fs.pipe_file(f"{at}/a/b/c", b"1")
    with fs.open(f"{at}/d/e", "wb") as f:
        f.write(b"2")
    assert fs.find(at) == [f"{at}/a/b/c", f"{at}/d/e"]
    strict = AiodFileSystem(shared_daemon.endpoint, auto_mkdir=False)
    with pytest.raises(FileNotFoundError):
        strict.pipe_file(f"{at}/f/g", b"1")
    with pytest.raises(FileNotFoundError):
        strict.open(f"{at}/f/g", "wb")


def test_an_export_cannot_be_made(fs: AiodFileSystem) -> None:
    fs.makedirs("scratch", exist_ok=True)
    with pytest.raises(FileExistsError):
        fs.makedirs("scratch")
    with pytest.raises(FileNotFoundError):
        fs.makedirs("no such export", exist_ok=True)


def test_hundreds_of_files_at_once_stay_below_what_an_engine_lets_wait(fs: AiodFileSystem, at: str) -> None:
    fs.pipe({f"{at}/many/{number}": b"1" for number in range(300)})
    fs.copy(f"{at}/many", f"{at}/copy", recursive=True)
    assert len(fs.cat(f"{at}/copy/*")) == 300
    fs.rm([f"{at}/many/{number}" for number in range(280)])
    fs.rm([f"{at}/many", f"{at}/copy"], recursive=True)
    assert fs.ls(at) == []


def test_moving_renames_files_and_directories(fs: AiodFileSystem, at: str, local: Path) -> None:
    fs.pipe_file(f"{at}/a/x", b"1")
    inode = (local / "a/x").stat().st_ino
    fs.mv(f"{at}/a", f"{at}/new/b", recursive=True)
    assert (local / "new/b/x").stat().st_ino == inode
    fs.mv(f"{at}/new/b/x", f"{at}/new")
    assert (local / "new/x").read_bytes() == b"1"


def test_between_exports_of_two_engines_files_are_copied_through_the_client(
    new_daemon: Callable[..., Daemon], disk_path: Path, small_parts: int
) -> None:
    (disk_path / "second").mkdir()
    daemon = new_daemon(
        **{"engine.second": {}, "exports.second": {"path": str(disk_path / "second"), "engine": "second"}}
    )
    daemon.start()
    fs = AiodFileSystem(daemon.endpoint)
    data = os.urandom(small_parts * 3 + 1)
    fs.pipe({"scratch/a/x": data, "scratch/a/y": b""})
    fs.copy("scratch/a/x", "second/x")
    fs.mv("scratch/a", "second/b", recursive=True)
    assert fs.cat("second/x") == data
    assert fs.cat("second/b/*") == {"second/b/x": data, "second/b/y": b""}
    assert not fs.exists("scratch/a")
    fs.close()


def test_removing_a_directory_needs_recursive(fs: AiodFileSystem, at: str, local: Path) -> None:
    fs.pipe_file(f"{at}/a/b/x", b"1")
    with pytest.raises(IsADirectoryError):
        fs.rm(f"{at}/a")
    fs.rm(f"{at}/a", recursive=True)
    assert list(local.iterdir()) == []


def test_copying_replaces_a_file_whole_and_keeps_nothing_of_a_copy_that_failed(
    fs: AiodFileSystem, at: str, local: Path
) -> None:
    (local / "x").write_bytes(os.urandom(1 << 20))
    (local / "y").write_bytes(b"before")
    fs.cp_file(f"{at}/x", f"{at}/y")
    assert (local / "y").read_bytes() == (local / "x").read_bytes()
    (local / "z").mkdir()
    with pytest.raises(IsADirectoryError):
        fs.cp_file(f"{at}/x", f"{at}/z")
    assert sorted(path.name for path in local.iterdir()) == ["x", "y", "z"]


# ---- open files -----------------------------------------------------------------------------------------------------


def test_files_of_a_transaction_get_their_names_at_its_end(fs: AiodFileSystem, at: str, local: Path) -> None:
    (local / "x").write_bytes(b"before")
    with fs.transaction:
        with fs.open(f"{at}/x", "wb") as f:
            f.write(b"after")
        with fs.open(f"{at}/new", "xb") as f:
            f.write(b"new")
        assert (local / "x").read_bytes() == b"before"
        assert not (local / "new").exists()
    assert (local / "x").read_bytes() == b"after"
    assert (local / "new").read_bytes() == b"new"
    assert len(list(local.iterdir())) == 2


def test_a_transaction_that_fails_leaves_nothing(fs: AiodFileSystem, at: str, local: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), fs.transaction:
        fs.open(f"{at}/x", "wb").write(b"1")
        raise ZeroDivisionError
    assert list(local.iterdir()) == []
    fs.pipe_file(f"{at}/x", b"1")
    with pytest.raises(ValueError, match="transaction"), fs.transaction:
        fs.open(f"{at}/x", "ab")


def test_an_open_file_has_what_fsspec_promises(fs: AiodFileSystem, at: str) -> None:
    with fs.open(f"{at}/x", "wb", block_size=100) as f:
        assert (f.mode, f.path, f.fs, f.full_name) == ("wb", f"{at}/x", fs, f"aiod://{at}/x")
        f.write(b"line 1\nline 2\n")
    with fs.open(f"{at}/x", "r+b") as f:
        assert f.size == 14
        f.seek(5)
        f.write(b"3")
    with fs.open(f"{at}/x", "ab") as f:
        f.write(b"end")
    with fs.open(f"{at}/x") as f:
        assert list(f) == [b"line 3\n", b"line 2\n", b"end"]
        assert isinstance(f, io.BufferedReader)
    with fs.open(f"{at}/x", "r") as f:
        assert f.readline() == "line 3\n"


@pytest.mark.parametrize("url", ["zip://in.txt::aiod://{}", "simplecache::aiod://{}", "filecache::aiod://{}"])
def test_urls_may_be_chained(shared_daemon: Daemon, at: str, local: Path, tmp_path: Path, url: str) -> None:
    with zipfile.ZipFile(local / "x.zip", "w") as archive:
        archive.writestr("in.txt", "in the archive")
    chained = fsspec.open(
        url.format(f"{at}/x.zip"),
        aiod={"endpoint": shared_daemon.endpoint},
        **{name: {"cache_storage": str(tmp_path)} for name in ("simplecache", "filecache") if name in url},
    )
    with chained as f:
        assert f.read() == (b"in the archive" if "zip://" in url else (local / "x.zip").read_bytes())


def test_touch_empties_a_file_or_sets_its_time(fs: AiodFileSystem, at: str, local: Path) -> None:
    fs.pipe_file(f"{at}/x", b"1")
    fs.touch(f"{at}/x", truncate=False)
    assert fs.size(f"{at}/x") == 1
    os.utime(local / "x", (1, 1))
    fs.touch(f"{at}/x", truncate=False)
    assert fs.info(f"{at}/x")["mtime"] > 1
    fs.touch(f"{at}/x")
    assert fs.size(f"{at}/x") == 0


def test_a_file_is_awaited(shared_daemon: Daemon, at: str) -> None:
    fs = AiodFileSystem(shared_daemon.endpoint, asynchronous=True)

    async def use() -> None:
        async with await fs.open_async(f"{at}/new/x", "wb") as f:
            assert await f.write(b"0123456789") == 10
            await f.seek(2)
            await f.write(b"AB")
        async with await fs.open_async(f"{at}/new/x", "ab") as f:
            assert f.tell() == 10
            await f.write(b"C")
            assert f.tell() == 11
        async with await fs.open_async(f"{at}/new/x") as f:
            assert f.size == 11
            assert await f.read(4) == b"01AB"
            assert await f.read() == b"456789C"
            assert await f.seek(-1, io.SEEK_END) == 10
            assert await f.read() == b"C"
            with pytest.raises(ValueError, match="before the beginning"):
                await f.seek(-1)
        with pytest.raises(FileNotFoundError):
            await fs.open_async(f"{at}/missing")
        with pytest.raises(ValueError, match="binary"):
            await fs.open_async(f"{at}/new/x", "r")

    asyncio.run(use())


# ---- local files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 35])
def test_streams_copy_every_byte_and_report_progress(
    fs: AiodFileSystem, at: str, tmp_path: Path, small_parts: int, size: int
) -> None:
    data = os.urandom(size)
    (tmp_path / "up").write_bytes(data)
    sent, received = fsspec.callbacks.Callback(), fsspec.callbacks.Callback()
    fs.put_file(str(tmp_path / "up"), f"{at}/x", callback=sent)
    fs.get_file(f"{at}/x", str(tmp_path / "down"), callback=received)
    assert (tmp_path / "down").read_bytes() == data
    assert (sent.size, sent.value) == (received.size, received.value) == (size, size)
    target = io.BytesIO()
    fs.get_file(f"{at}/x", target)
    assert target.getvalue() == data
    assert small_parts < 35


def test_an_upload_that_fails_leaves_the_former_file(
    fs: AiodFileSystem, at: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (local / "x").write_bytes(b"before")
    (tmp_path / "up").write_bytes(b"after")

    async def fail(*_: Any) -> None:
        raise OSError(5, "the local disk fails")

    with pytest.raises(FileExistsError):
        fs.put_file(str(tmp_path / "up"), f"{at}/x", mode="create")
    monkeypatch.setattr(transfers, "upload", fail)
    with pytest.raises(OSError, match="local disk"):
        fs.put_file(str(tmp_path / "up"), f"{at}/x")
    assert (local / "x").read_bytes() == b"before"
    assert [path.name for path in local.iterdir()] == ["x"]


@pytest.mark.parametrize("mode", ["overwrite", "create"])
def test_whole_files_by_o_direct(shared_daemon: Daemon, at: str, local: Path, mode: str) -> None:
    fs = AiodFileSystem(shared_daemon.endpoint, direct=True)
    fs.pipe_file(f"{at}/new/x", b"odd", mode=mode)
    assert (local / "new/x").read_bytes() == b"odd"
    assert fs.cat([f"{at}/new/x"]) == {f"{at}/new/x": b"odd"}
    if mode == "create":
        with pytest.raises(FileExistsError):
            fs.pipe_file(f"{at}/new/x", b"again", mode=mode)


@pytest.mark.parametrize("transport", ["ring", "zmq"])
def test_whole_files_have_the_permissions_of_new_files(
    shared_daemon: Daemon, at: str, local: Path, transport: Any
) -> None:
    fs = AiodFileSystem(shared_daemon.endpoint, transport=transport)
    fs.pipe({f"{at}/{name}": name.encode() for name in "abc"})
    assert fs.cat(f"{at}/*") == {f"{at}/{name}": name.encode() for name in "abc"}
    assert stat.S_IMODE((local / "a").stat().st_mode) & 0o600 == 0o600
