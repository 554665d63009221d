"""The Python clients' methods for directories and trees do what those of os, glob, shutil and pathlib do."""

from __future__ import annotations

import asyncio
import errno
import glob
import inspect
import os
import shutil
import stat
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from aiod_protocol.reasons import reason_of
from tests.conftest import Daemon
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = scaled(60.0)
MANY = 1300
"""Names, of three pages."""


class Blocking:
    """The methods of a client; those of the other one are carried out in a loop of their own."""

    def __init__(self, endpoint: str) -> None:
        self._client = aiod_client.connect(endpoint, timeout=PATIENCE_S)

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def __getattr__(self, name: str) -> Any:
        """A method; what it returns is complete."""
        return getattr(self._client, name)

    def entries(self, path: str) -> list[dict[str, Any]]:
        """What each entry of a directory says about itself."""
        return [
            {
                "name": entry.name,
                "path": entry.path,
                "kind": entry.kind,
                "is_dir": entry.is_dir(),
                "is_file": entry.is_file(),
                "is_symlink": entry.is_symlink(),
                "lstat": entry.stat(follow_symlinks=False),
            }
            for entry in self._client.scandir(path)
        ]


class Awaited:
    """The same with the asyncio client."""

    def __init__(self, endpoint: str) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._connect(endpoint))

    @staticmethod
    async def _connect(endpoint: str) -> aio.Client:
        return await aio.connect(endpoint, timeout=PATIENCE_S)

    def close(self) -> None:
        """Close the client."""
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        """A method; what it returns is complete."""

        def call(*arguments: Any, **options: Any) -> Any:
            return self._runner.run(self._complete(getattr(self._client, name)(*arguments, **options)))

        return call

    @staticmethod
    async def _complete(result: Any) -> Any:
        if inspect.isawaitable(result):
            return await result
        return [each async for each in result]

    def entries(self, path: str) -> list[dict[str, Any]]:
        """What each entry of a directory says about itself."""

        async def collect() -> list[dict[str, Any]]:
            return [
                {
                    "name": entry.name,
                    "path": entry.path,
                    "kind": entry.kind,
                    "is_dir": await entry.is_dir(),
                    "is_file": await entry.is_file(),
                    "is_symlink": entry.is_symlink(),
                    "lstat": await entry.stat(follow_symlinks=False),
                }
                async for entry in self._client.scandir(path)
            ]

        return self._runner.run(collect())


@pytest.fixture(scope="module")
def service() -> Iterator[Daemon]:
    """A daemon whose export allows everything."""
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    daemon = Daemon(base, **{"exports.scratch": {"links": True, "attributes": True}})
    daemon.start()
    yield daemon
    daemon.destroy()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module", params=[Blocking, Awaited])
def client(request: pytest.FixtureRequest, service: Daemon) -> Iterator[Any]:
    """A client of either kind, whose methods return when all is done."""
    made = request.param(service.endpoint)
    yield made
    made.close()


@pytest.fixture
def tree(service: Daemon) -> Iterator[Path]:
    """An empty directory in the export."""
    path = Path(tempfile.mkdtemp(dir=service.path))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def full(tree: Path) -> Path:
    """A tree with everything that a tree may have."""
    for path in ("a/b/c", "a/.hidden/d", "e", "x[1]"):
        (tree / path).mkdir(parents=True)
    for path in ("one.txt", "a/two.txt", "a/b/three.txt", "a/b/c/four.txt", "a/.hidden/five.txt", ".six", "x[1]/7.txt"):
        (tree / path).write_text(path)
    (tree / "to-file").symlink_to("one.txt")
    (tree / "to-dir").symlink_to("a/b")
    (tree / "a" / "up").symlink_to("..")
    (tree / "nowhere").symlink_to("none")
    (tree / "out").symlink_to("/")
    (tree / "loop").symlink_to("loop")
    (tree / "new\nline").touch()
    (tree / os.fsdecode(b"\xff")).touch()
    os.mkfifo(tree / "fifo")
    return tree


def at(tree: Path, path: str = "") -> str:
    """The path of a client."""
    return f"scratch/{tree.name}/{path}".rstrip("/")


# ---- scandir


def test_scandir_tells_what_os_scandir_tells(client: Any, full: Path) -> None:
    found = {entry.pop("name"): entry for entry in client.entries(at(full))}
    with os.scandir(full) as entries:
        real = {entry.name: entry for entry in entries}
    assert found.keys() == real.keys()
    for name, entry in real.items():
        told = found[name]
        assert told["path"] == f"{at(full)}/{name}"
        assert told["is_symlink"] == entry.is_symlink()
        if name not in {"out", "loop"}:  # neither leads to anything inside the export
            assert (told["is_dir"], told["is_file"]) == (entry.is_dir(), entry.is_file())
        status = entry.stat(follow_symlinks=False)
        assert told["lstat"].inode == status.st_ino
        assert told["lstat"].mtime_ns == status.st_mtime_ns
        assert told["lstat"].mode == status.st_mode
    assert (found["out"]["is_dir"], found["loop"]["is_dir"], found["fifo"]["kind"]) == (False, False, "other")


def test_an_entrys_stat_follows_a_link_as_os_does(service: Daemon, full: Path) -> None:
    with aiod_client.connect(service.endpoint) as client, client.scandir(at(full)) as scan:
        entries = {entry.name: entry for entry in scan}
        assert entries["to-file"].stat().inode == (full / "one.txt").stat().st_ino
        assert entries["one.txt"].stat().size == 7
        assert entries["one.txt"].mtime_ns == (full / "one.txt").stat().st_mtime_ns
        assert os.fspath(entries["one.txt"]) == at(full, "one.txt")
        with pytest.raises(FileNotFoundError):
            entries["nowhere"].stat()
        with pytest.raises(StopIteration):
            next(scan)


def test_scandir_of_several_pages_can_be_left_early(client: Any, tree: Path, service: Daemon) -> None:
    for number in range(MANY):
        (tree / f"{number}").touch()
    assert {entry["name"] for entry in client.entries(at(tree))} == {str(number) for number in range(MANY)}
    with aiod_client.connect(service.endpoint) as blocking:
        with blocking.scandir(at(tree)) as scan:
            next(scan)
        assert list(scan) == []


def peak_bytes(pid: int) -> int:
    """Highest RSS of a process so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_scan_holds_one_page_in_the_client_and_none_in_the_daemon(service: Daemon, tree: Path) -> None:
    """6,000 names have 1.6 MB as entries; test_large_directory.py scans a million."""
    for number in range(6000):
        os.mknod(tree / f"{number:050}")
    pid = service.engine["pid"]
    with aiod_client.connect(service.endpoint, timeout=PATIENCE_S) as client:
        assert len(client.list(at(tree))) == 6000  # what is needed once, on both sides
        before = peak_bytes(pid)
        tracemalloc.start()
        try:
            scanned = [sum(1 for entry in client.scandir(at(tree)) if entry.stat().mtime_ns > 0) for _ in range(4)]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert scanned == [6000] * 4
    assert peak < 800 * 1024
    assert peak_bytes(pid) - before < 4 * 2**20


def test_what_is_absent_is_said_in_the_same_words_by_ring_and_by_message(service: Daemon, tree: Path) -> None:
    texts = set()
    for transport in ("ring", "zmq"):
        with aiod_client.connect(service.endpoint, transport=transport) as client:
            with pytest.raises(FileNotFoundError) as absent:
                client.stat(at(tree, "none"))
            texts.add((str(absent.value), absent.value.filename, aiod_client.written(absent.value)))
            assert reason_of(absent.value) == 0
    assert len(texts) == 1


@pytest.mark.parametrize("method", ["scandir", "list"])
def test_a_directory_that_is_none_is_an_error(client: Any, full: Path, method: str) -> None:
    for path, error in (("none", FileNotFoundError), ("one.txt", NotADirectoryError), ("out", PermissionError)):
        with pytest.raises(error):
            getattr(client, method)(at(full, path))


# ---- walk, glob


def real_walk(tree: Path, **options: Any) -> list[tuple[str, list[str], list[str]]]:
    """os.walk() with the paths of a client, sorted."""
    prefix = f"{tree}"
    found = os.walk(tree, **options)
    return sorted((at(tree) + path.removeprefix(prefix), sorted(dirs), sorted(files)) for path, dirs, files in found)


@pytest.mark.parametrize("topdown", [True, False])
def test_walk_is_os_walk(client: Any, full: Path, topdown: bool) -> None:  # noqa: FBT001
    (full / "out").unlink()  # os.walk() calls it a directory
    found = client.walk(at(full), topdown)
    assert sorted((path, sorted(dirs), sorted(files)) for path, dirs, files in found) == real_walk(full)
    paths = [path for path, _, _ in found]
    for number, path in enumerate(paths):
        parents = [other for other in paths if path.startswith(f"{other}/")]
        assert all((paths.index(parent) < number) == topdown for parent in parents)


def test_walk_follows_links_on_request_and_reports_errors(client: Any, full: Path) -> None:
    (full / "a" / "up").unlink()
    paths = {path for path, _, _ in client.walk(at(full), followlinks=True)}
    assert at(full, "to-dir/c") in paths
    assert at(full, "out") not in paths
    errors: list[OSError] = []
    assert client.walk(at(full, "none"), True, errors.append) == [] or not errors  # noqa: FBT003
    assert list(client.walk(at(full, "none"))) == []


def test_walk_goes_where_the_caller_lets_it(service: Daemon, full: Path) -> None:
    visited = []
    with aiod_client.connect(service.endpoint) as client:
        for path, directories, _ in client.walk(at(full)):
            visited.append(path)
            directories[:] = [name for name in directories if name == "a"]
    assert visited == [at(full), at(full, "a")]


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "*.txt",
        ".*",
        "a/*",
        "*/*.txt",
        "*/b",
        "a/b/three.txt",
        "a/b/none",
        "none/*",
        "one.txt/*",
        "nowhere",
        "**",
        "**/*.txt",
        "a/**",
        "a/**/*.txt",
        "**/c/*",
        "*/",
        "a/b/",
        "one.txt/",
        "[a-e]",
        "x[[]1]/*",
        "?",
        "a/**/b/**/*.txt",
        "**/**/three.txt",
    ],
)
def test_glob_is_glob(client: Any, full: Path, pattern: str) -> None:
    for name in ("to-dir", "a/up", "out"):  # glob follows links in **
        (full / name).unlink()
    matching = glob.glob(f"{full.name}/{pattern}", root_dir=full.parent, recursive=True)  # noqa: PTH207
    wanted = {f"scratch/{path}" for path in matching}
    found = list(client.glob(at(full) + "/" + pattern))
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_glob_finds_hidden_names_on_request_and_stays_inside(client: Any, full: Path) -> None:
    found = set(client.glob(at(full, "**/*.txt"), include_hidden=True))
    assert at(full, "a/.hidden/five.txt") in found
    assert not any("to-dir" in path or "/up/" in path for path in found)
    assert set(client.glob(at(full, "to-dir/*.txt"))) == {at(full, "to-dir/three.txt")}
    assert list(client.glob(at(full, "out/*"))) == []
    assert list(client.glob("scratch")) == ["scratch"]
    with pytest.raises(ValueError, match="export"):
        list(client.glob("*/x"))


# ---- exists and its like


def test_exists_and_kinds_of_every_name(client: Any, full: Path) -> None:
    inside = {"one.txt", "a", "to-file", "to-dir", "fifo", "a/up", "new\nline"}
    for name in (*inside, "nowhere", "loop", "none", "none/x", "one.txt/x", "out", "../x"):
        path, real = at(full, name), full / name
        there = name in inside
        assert client.exists(path) == there, name
        assert client.is_dir(path) == (there and real.is_dir()), name
        assert client.is_file(path) == (there and real.is_file()), name
        assert client.is_symlink(path) == (name in {"to-file", "to-dir", "a/up", "nowhere", "loop", "out"}), name
    assert client.exists("scratch")
    assert client.is_dir("scratch")
    with pytest.raises(OSError, match="no export"):
        client.stat("nowhere")


def test_lstat_stat_and_readlink_agree_with_os(client: Any, full: Path) -> None:
    assert client.lstat(at(full, "to-file")).inode == (full / "to-file").lstat().st_ino
    assert client.lstat(at(full, "to-file")).kind == "link"
    assert client.stat(at(full, "to-file")).kind == "file"
    assert client.readlink(at(full, "out")) == "/"
    with pytest.raises(OSError, match="not a symbolic link"):
        client.readlink(at(full, "one.txt"))


# ---- changes


def test_makedirs_makes_what_is_missing(client: Any, tree: Path) -> None:
    client.makedirs(at(tree, "a/b/c"), 0o700)
    assert stat.S_IMODE((tree / "a/b/c").stat().st_mode) == 0o700
    with pytest.raises(FileExistsError):
        client.makedirs(at(tree, "a/b/c"))
    client.makedirs(at(tree, "a/b/c/"), exist_ok=True)
    (tree / "file").touch()
    for path in ("file", "file/x"):
        with pytest.raises(OSError, match="file"):
            client.makedirs(at(tree, path), exist_ok=True)
    client.makedirs("scratch", exist_ok=True)


def test_a_tree_may_be_deeper_than_pythons_recursion(service: Daemon, tree: Path) -> None:
    deep = at(tree) + "/d" * sys.getrecursionlimit()
    with aiod_client.connect(service.endpoint, timeout=PATIENCE_S) as client:
        client.makedirs(deep)
        assert client.is_dir(deep)
        client.rmtree(at(tree, "d"))
    assert list(tree.iterdir()) == []


def test_rmtree_removes_everything_but_what_links_name(client: Any, full: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    (full / "a" / "outside").symlink_to(tmp_path)
    for number in range(MANY):
        (full / "a" / f"{number}").touch()
    with pytest.raises(NotADirectoryError, match="use remove"):
        client.rmtree(at(full, "to-dir"))
    with pytest.raises(NotADirectoryError):
        client.rmtree(at(full, "one.txt"))
    client.rmtree(at(full, "to-dir"), ignore_errors=True)
    client.rmtree(at(full, "a"))
    assert not (full / "a").exists()
    assert (full / "one.txt").exists()
    assert (tmp_path / "kept").exists()
    client.rmtree(at(full))
    assert not full.exists()
    with pytest.raises(FileNotFoundError):
        client.rmtree(at(full))
    client.rmtree(at(full), ignore_errors=True)
    full.mkdir()
    with pytest.raises(OSError, match="cannot be changed"):
        client.rmtree("scratch")
    client.rmtree("scratch", ignore_errors=True)
    assert full.exists()


def test_touch_creates_and_updates(client: Any, tree: Path) -> None:
    client.touch(at(tree, "new"), 0o600)
    assert stat.S_IMODE((tree / "new").stat().st_mode) == 0o600
    os.utime(tree / "new", (1, 1))
    client.touch(at(tree, "new"))
    assert (tree / "new").stat().st_mtime > 1
    with pytest.raises(FileExistsError):
        client.touch(at(tree, "new"), exist_ok=False)
    with pytest.raises(FileNotFoundError):
        client.touch(at(tree, "none/new"))


@pytest.mark.parametrize("options", [{"times": (1, 2.5)}, {"ns": (-1, 10**18 + 1)}, {"times": (1.7e9 + 0.1, -0.5)}])
def test_utime_is_os_utime(client: Any, tree: Path, options: dict[str, Any]) -> None:
    for name in ("mine", "real"):
        (tree / name).touch()
    client.utime(at(tree, "mine"), **options)
    os.utime(tree / "real", **options)
    mine, real = (tree / "mine").stat(), (tree / "real").stat()
    assert (mine.st_atime_ns, mine.st_mtime_ns) == (real.st_atime_ns, real.st_mtime_ns)


def test_utime_refuses_what_os_utime_refuses(client: Any, tree: Path) -> None:
    with pytest.raises(ValueError, match="not both"):
        client.utime(at(tree), (1, 2), ns=(1, 2))
    with pytest.raises(OverflowError):
        client.utime(at(tree), ns=(0, 2**63))
    with pytest.raises(TypeError):
        client.utime(at(tree), ns=(0, 1.5))


def test_chmod_links_and_attributes_are_those_of_the_file(client: Any, tree: Path) -> None:
    (tree / "file").write_text("x")
    client.chmod(at(tree, "file"), 0o604)
    assert stat.S_IMODE((tree / "file").stat().st_mode) == 0o604
    with pytest.raises(ValueError, match="permission bits"):
        client.chmod(at(tree, "file"), 0o4755)
    client.symlink("file", at(tree, "link"))
    client.link(at(tree, "file"), at(tree, "other"))
    assert (tree / "link").readlink() == Path("file")
    assert (tree / "other").stat().st_nlink == 2
    with pytest.raises(OSError, match="two exports") as refused:
        client.link(at(tree, "file"), "other/file")
    assert refused.value.errno == errno.EXDEV
    client.setxattr(at(tree, "link"), "user.a", memoryview(b"value"))
    client.setxattr(at(tree, "file"), "user.b", b"", os.XATTR_CREATE)
    assert client.getxattr(at(tree, "file"), "user.a") == b"value" == os.getxattr(tree / "file", "user.a")
    assert sorted(client.listxattr(at(tree, "link"))) == ["user.a", "user.b"]
    client.removexattr(at(tree, "file"), "user.a")
    with pytest.raises(OSError, match="no such attribute") as missing:
        client.getxattr(at(tree, "file"), "user.a")
    assert missing.value.errno == errno.ENODATA
    with pytest.raises(PermissionError, match="begin with user"):
        client.getxattr(at(tree, "file"), "trusted.a")
