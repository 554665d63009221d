"""Directory operations by ring and by message: the same effects, answers and errors; and what the ring carries."""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from aiod_protocol.reasons import Reason
from tests.conftest import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Act = Callable[[aiod_client.Client, str], Any]


def sections(path: Path) -> dict[str, Any]:
    """One directory with everything allowed, with the defaults, and read-only."""
    return {
        "exports.scratch": {"path": str(path), "links": True, "attributes": True},
        "exports.default": {"path": str(path)},
        "exports.fixed": {"path": str(path), "read_only": True},
    }


@pytest.fixture(scope="module")
def service() -> Iterator[Daemon]:
    """A daemon that serves them."""
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    daemon = Daemon(base, **sections(base / "scratch"))
    daemon.start()
    yield daemon
    daemon.destroy()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module", params=["ring", "zmq"])
def client(service: Daemon, request: pytest.FixtureRequest) -> Iterator[aiod_client.Client]:
    """One wire after the other."""
    with aiod_client.connect(service.endpoint, transport=request.param) as client:
        yield client


@pytest.fixture
def tree(service: Daemon) -> Iterator[Path]:
    """A directory in the export."""
    path = Path(tempfile.mkdtemp(dir=service.path))
    (path / "dir").mkdir()
    (path / "dir" / "inner").mkdir()
    (path / "file").write_bytes(b"12345")
    (path / "link").symlink_to("file")
    (path / "out").symlink_to("/etc")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def names_by(daemon: Daemon, transport: str) -> int:
    """How many directory operations the engine has had by `transport`."""
    found = re.search(
        f'^aiod_requests_total{{engine="main",export="scratch",op="name",transport="{transport}"}} (\\d+)\\.0$',
        daemon.ctl("metrics").stdout,
        re.MULTILINE,
    )
    return int(found[1]) if found is not None else 0


def test_names_are_made_moved_described_and_removed(client: aiod_client.Client, tree: Path) -> None:
    at = f"scratch/{tree.name}"
    client.mkdir(f"{at}/new", 0o700)
    client.rename(f"{at}/file", f"{at}/new/gr\u00fcn\n")
    client.link(f"{at}/new/gr\u00fcn\n", f"{at}/second")
    client.symlink("../anywhere", f"{at}/made")
    client.sync(at)
    assert client.readlink(f"{at}/made") == "../anywhere"
    assert client.lstat(f"{at}/second").links == 2
    assert client.is_symlink(f"{at}/made")
    assert {entry.name: entry.kind for entry in client.scandir(at)} == {
        "dir": "dir",
        "new": "dir",
        "link": "link",
        "made": "link",
        "out": "link",
        "second": "file",
    }
    client.remove(f"{at}/second")
    client.rmdir(f"{at}/dir/inner")
    client.rmtree(f"{at}/new")
    assert sorted(path.name for path in tree.iterdir()) == ["dir", "link", "made", "out"]


def test_attributes_are_set_and_read(client: aiod_client.Client, tree: Path) -> None:
    at = f"scratch/{tree.name}/file"
    client.chmod(at, 0o640)
    client.utime(at, ns=(-5, 10**18 + 7))
    status = (tree / "file").stat()
    assert (status.st_mode & 0o777, status.st_atime_ns, status.st_mtime_ns) == (0o640, -5, 10**18 + 7)
    client.utime(at)
    assert (tree / "file").stat().st_mtime_ns > 10**18 + 7
    value = bytes(range(256)) * 8
    client.setxattr(at, "user.a", value)
    assert client.getxattr(at, "user.a") == value
    assert client.listxattr(at) == ["user.a"]
    client.removexattr(at, "user.a")
    assert client.listxattr(at) == []


def test_a_directory_of_several_pages_is_listed_once(client: aiod_client.Client, tree: Path) -> None:
    for number in range(1100):
        (tree / "dir" / f"{number}").touch()
    listed = client.list(f"scratch/{tree.name}/dir")
    assert sorted(entry[0] for entry in listed) == sorted(path.name for path in (tree / "dir").iterdir())


FAILURES: dict[str, Act] = {
    "remove of nothing": lambda client, at: client.remove(f"{at}/missing"),
    "remove of a directory": lambda client, at: client.remove(f"{at}/dir"),
    "rmdir of a full one": lambda client, at: client.rmdir(f"{at}/dir"),
    "mkdir again": lambda client, at: client.mkdir(f"{at}/dir"),
    "rename to what exists": lambda client, at: client.rename(f"{at}/file", f"{at}/dir/inner", replace=False),
    "rename into itself": lambda client, at: client.rename(f"{at}/dir", f"{at}/dir/inner/dir"),
    "rename out": lambda client, at: client.rename(f"{at}/file", f"{at}/out/file"),
    "leave": lambda client, at: client.list(f"{at}/../../.."),
    "list of a file": lambda client, at: client.list(f"{at}/file"),
    "readlink of a file": lambda client, at: client.readlink(f"{at}/file"),
    "no such attribute": lambda client, at: client.getxattr(f"{at}/file", "user.none"),
    "an attribute of others": lambda client, at: client.getxattr(f"{at}/file", "trusted.a"),
    "a long name": lambda client, at: client.mkdir(f"{at}/{'n' * 256}"),
    "a long path": lambda client, at: client.lstat(f"{at}/{'n/' * 2000}"),
    "a zero byte": lambda client, at: client.mkdir(f"{at}/a\0b"),
    "a file's name with a slash": lambda client, at: client.remove(f"{at}/file/"),
    "the export itself": lambda client, at: client.rmdir(at.partition("/")[0]),
}
REFUSED: dict[str, Act] = {
    "read-only": lambda client, at: client.remove(f"fixed/{at.partition('/')[2]}/file"),
    "no links": lambda client, at: client.link(f"default/{at.partition('/')[2]}/file", "default/second"),
    "no attributes": lambda client, at: client.chmod(f"default/{at.partition('/')[2]}/file", 0o600),
}


@pytest.mark.parametrize("act", [*FAILURES.values(), *REFUSED.values()], ids=[*FAILURES, *REFUSED])
def test_failures_are_told_alike(service: Daemon, tree: Path, act: Act) -> None:
    told = []
    for transport in ("ring", "zmq"):
        with aiod_client.connect(service.endpoint, transport=transport) as client:
            client.list(f"scratch/{tree.name}")
            with pytest.raises(OSError, match=r"\w") as caught:
                act(client, f"scratch/{tree.name}")
            error = caught.value
            told.append((type(error), error.errno, error.strerror, error.filename, getattr(error, "reason", None)))
    assert told[0] == told[1]
    assert (tree / "file").read_bytes() == b"12345"


@pytest.mark.page_cache("names and opens go by message")
def test_the_ring_carries_them(service: Daemon, tree: Path) -> None:
    at = f"scratch/{tree.name}"
    with aiod_client.connect(service.endpoint, transport="ring") as client:
        client.stat(at)
        ring, others = names_by(service, "ring"), names_by(service, "ipc")
        client.mkdir(f"{at}/new")
        client.list(at)
        with pytest.raises(FileNotFoundError):
            client.lstat(f"{at}/missing")
        client.rmdir(f"{at}/new")
        client.is_symlink(f"{at}/link")
        assert (names_by(service, "ring"), names_by(service, "ipc")) == (ring + 5, others)


@pytest.mark.page_cache("names and opens go by message")
def test_tasks_work_on_names_by_the_ring(service: Daemon, tree: Path) -> None:
    async def work(client: aio.Client, number: int) -> None:
        for turn in range(10):
            name = f"scratch/{tree.name}/dir/{number}-{turn}"
            await client.mkdir(name)
            await client.rename(name, f"{name}-moved")
            assert (await client.lstat(f"{name}-moved")).kind == "dir"
            await client.rmdir(f"{name}-moved")
            with pytest.raises(FileNotFoundError) as caught:
                await client.rmdir(name)
            assert caught.value.reason == Reason.BY_KERNEL  # type: ignore[attr-defined]

    async def main() -> None:
        async with aio.connect(service.endpoint, transport="ring") as client:
            await client.stat("scratch")
            before = names_by(service, "ring")
            await asyncio.gather(*(work(client, number) for number in range(16)))
            assert names_by(service, "ring") == before + 16 * 10 * 5
            await client.rmtree(f"scratch/{tree.name}/dir")

    asyncio.run(main())
    assert not (tree / "dir").exists()


def test_an_export_that_the_configuration_changes_is_asked_anew(service: Daemon, tree: Path) -> None:
    at = f"default/{tree.name}"
    with aiod_client.connect(service.endpoint, transport="ring") as client:
        client.mkdir(f"{at}/before")
        with pytest.raises(PermissionError) as caught:
            client.chmod(f"{at}/file", 0o600)
        assert caught.value.errno == errno.EPERM
        wanted = sections(service.path)
        wanted["exports.default"]["attributes"] = True
        service.write_config(wanted)
        service.ctl("reload")
        client.chmod(f"{at}/file", 0o600)
    assert (tree / "file").stat().st_mode & 0o777 == 0o600
