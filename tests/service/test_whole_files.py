"""read_file(), write_file(), read_files() and stat() by ring and by messages: the same results and refusals."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECONNECT_S = 30.0
SCRATCH = "exports.scratch"
SIZES = (0, 1, 4096, 16304, 16305, 102400, 300_000, 9_000_000)
"""Around the room that is asked for first, what is kept as a hint, and more than one request can bring."""


@pytest.fixture(params=["ring", "zmq"], name="transport")
def transport_fixture(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


@pytest.fixture(name="client")
def client_fixture(shared_daemon: Any, transport: Any) -> Iterator[aiod_client.Client]:
    """Of the shared daemon."""
    with aiod_client.connect(shared_daemon.endpoint, transport=transport) as client:
        yield client


@pytest.fixture(name="place")
def place_fixture(shared_daemon: Any, tmp_path_factory: Any) -> Path:
    """An empty directory in the export; its name is its path there."""
    path = Path(shared_daemon.path) / str(tmp_path_factory.mktemp("whole").name)
    path.mkdir()
    return path


def counts(daemon: Any) -> dict[str, int]:
    """How many requests of each operation the engine has had."""
    return {name: found["count"] for name, found in daemon.engine["ops"].items()}


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_written_and_read_whole(client: aiod_client.Client, place: Path, size: int) -> None:
    data = os.urandom(size)
    client.write_file(f"scratch/{place.name}/file", data)
    assert (place / "file").read_bytes() == data
    for _ in range(2):
        assert client.read_file(f"scratch/{place.name}/file") == data
        read, found = client.read_file_and_stat(f"scratch/{place.name}/file")
        real = (place / "file").stat()
        assert read == data
        assert (found.size, found.inode, found.mtime_ns, found.mode) == (
            size,
            real.st_ino,
            real.st_mtime_ns,
            real.st_mode,
        )
    assert [path.name for path in place.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("missing", errno.ENOENT),
        ("missing/file", errno.ENOENT),
        ("", errno.EISDIR),
        ("file/below", errno.ENOTDIR),
        ("fifo", errno.EINVAL),
        ("socket", errno.EINVAL),
        ("../../secret", errno.EACCES),
        ("out/secret", errno.EACCES),
        ("n" * 256, errno.ENAMETOOLONG),
        ("loop", errno.ELOOP),
    ],
)
def test_what_cannot_be_read_is_an_error(client: aiod_client.Client, place: Path, name: str, number: int) -> None:
    (place / "file").write_bytes(b"data")
    os.mkfifo(place / "fifo")
    os.mknod(place / "socket", stat.S_IFSOCK | 0o600)
    (place / "out").symlink_to("/")
    (place / "loop").symlink_to("loop")
    path = f"scratch/{place.name}/{name}" if name else f"scratch/{place.name}"
    with pytest.raises(OSError, match=f"{name[-8:]}: ") as caught:
        client.read_file(path)
    assert (caught.value.errno, caught.value.filename) == (number, path)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_what_may_block_is_looked_at_and_replaced_but_not_opened(
    client: aiod_client.Client, place: Path, kind: int
) -> None:
    """Several times: by the ring the leader answers once the name is in the kernel's cache."""
    os.mknod(place / "special", kind | 0o600)
    path = f"scratch/{place.name}/special"
    for _ in range(3):
        assert client.stat(path).mode == kind | 0o600
        for open_it in (client.read_file, client.open, lambda path: client.open(path, "r+")):
            with pytest.raises(OSError, match="regular file") as caught:
                open_it(path)
            assert caught.value.errno == errno.EINVAL
    client.write_file(path, b"data")
    assert client.read_file(path) == b"data"


@pytest.mark.parametrize("path", ["scratch/a\0b", "scratch/" + "d/" * 2044 + "12345678", "scratch/\udcff"])
def test_paths_that_no_file_can_have_are_refused(client: aiod_client.Client, path: str) -> None:
    with pytest.raises(OSError, match=r"."):
        client.read_file(path)
    with pytest.raises(OSError, match=r"."):
        client.stat(path)
    with pytest.raises(OSError, match=r"."):
        client.write_file(path, b"data")


@pytest.mark.parametrize("name", ["n" * 255, "with\na line end", "Zürich", " "])
def test_unusual_names_are_served(client: aiod_client.Client, place: Path, name: str) -> None:
    client.write_file(f"scratch/{place.name}/{name}", b"data")
    assert client.read_file(f"scratch/{place.name}/{name}") == b"data"
    assert client.stat(f"scratch/{place.name}/{name}").size == 4


def test_max_bytes_limits_what_is_read(client: aiod_client.Client, place: Path) -> None:
    (place / "file").write_bytes(bytes(20_000))
    path = f"scratch/{place.name}/file"
    assert len(client.read_file(path, max_bytes=20_000)) == 20_000
    for most in (0, 100, 19_999):
        with pytest.raises(OSError, match="max_bytes") as caught:
            client.read_file(path, max_bytes=most)
        assert caught.value.errno == errno.EFBIG


def test_an_exclusive_write_replaces_nothing(client: aiod_client.Client, place: Path) -> None:
    path = f"scratch/{place.name}/file"
    client.write_file(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        client.write_file(path, b"second", exclusive=True)
    client.write_file(path, b"third", durable=True)
    assert (place / "file").read_bytes() == b"third"
    assert [found.name for found in place.iterdir()] == ["file"]


def test_a_reader_sees_the_former_file_or_the_new_one(client: aiod_client.Client, place: Path) -> None:
    path = f"scratch/{place.name}/file"
    texts = [bytes([number]) * 5000 * number for number in (1, 2, 3)]
    client.write_file(path, texts[0])
    ended = threading.Event()

    def write() -> None:
        for number in range(60):
            client.write_file(path, texts[number % 3])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        assert client.read_file(path) in texts
    writer.join()


def test_many_files_come_as_they_are_read(client: aiod_client.Client, place: Path) -> None:
    paths = [f"scratch/{place.name}/{number}" for number in range(30)]
    for number in range(0, 30, 2):
        (place / str(number)).write_bytes(str(number).encode())
    found = list(client.read_files(paths))
    assert [each.path for each in found] == paths
    assert [each.data for each in found[::2]] == [str(number).encode() for number in range(0, 30, 2)]
    assert all(isinstance(each.error, FileNotFoundError) for each in found[1::2])
    with pytest.raises(FileNotFoundError):
        found[1].read()


def test_tasks_read_more_at_once_than_the_ring_has_room_for(shared_daemon: Any, place: Path, transport: Any) -> None:
    texts = {str(number): os.urandom(150_000) for number in range(40)}
    for name, text in texts.items():
        (place / name).write_bytes(text)

    async def check(client: aio.Client, name: str) -> None:
        path = f"scratch/{place.name}/{name}"
        assert await client.read_file(path) == texts[name]
        assert (await client.stat(path)).size == 150_000
        await client.write_file(path + "-copy", texts[name])
        assert await client.read_file(path + "-copy") == texts[name]
        read, found = await client.read_file_and_stat(path)
        assert (read, found.size) == (texts[name], 150_000)

    async def main() -> None:
        async with aio.connect(shared_daemon.endpoint, transport=transport) as client:
            await asyncio.gather(*(check(client, name) for name in list(texts) * 3))
            found = [each async for each in client.read_files([f"scratch/{place.name}/{name}" for name in texts])]
            assert [each.data for each in found] == list(texts.values())

    asyncio.run(main())


def test_tasks_get_the_errors_of_their_own_files(shared_daemon: Any, place: Path, transport: Any) -> None:
    (place / "file").write_bytes(b"data")

    async def main() -> None:
        async with aio.connect(shared_daemon.endpoint, transport=transport) as client:
            paths = [f"scratch/{place.name}/{name}" for name in ("file", "missing")] * 50
            found = await asyncio.gather(*map(client.read_file, paths), return_exceptions=True)
            assert found[::2] == [b"data"] * 50
            errors = [error for error in found[1::2] if isinstance(error, FileNotFoundError)]
            assert [error.filename for error in errors] == paths[1::2]

    asyncio.run(main())


def test_a_cancelled_read_gives_its_room_back(shared_daemon: Any, place: Path) -> None:
    (place / "file").write_bytes(bytes(200_000))

    async def main() -> None:
        async with aio.connect(shared_daemon.endpoint, transport="ring") as client:
            path = f"scratch/{place.name}/file"
            for _ in range(5):
                tasks = [asyncio.create_task(client.read_file(path)) for _ in range(60)]
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                found = await asyncio.gather(*tasks, return_exceptions=True)
                assert [len(data) for data in found[1::2] if isinstance(data, bytes)] == [200_000] * 30
            assert len(await client.read_file(path)) == 200_000

    asyncio.run(main())


@pytest.mark.page_cache("names and opens go by message")
def test_the_ring_carries_them(shared_daemon: Any, place: Path) -> None:
    with aiod_client.connect(shared_daemon.endpoint, transport="ring") as client:
        before = counts(shared_daemon)
        client.write_file(f"scratch/{place.name}/file", b"data")
        assert client.read_file(f"scratch/{place.name}/file") == b"data"
        client.stat(f"scratch/{place.name}/file")
        after = counts(shared_daemon)
        made = {
            name: after[name] - before.get(name, 0) for name in ("read_file", "write_file", "stat_name", "open", "name")
        }
        assert made == {"read_file": 1, "write_file": 1, "stat_name": 1, "open": 0, "name": 0}


@pytest.mark.page_cache("names and opens go by message")
def test_the_handle_for_names_counts_as_no_file(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(sessions={"handles_max": 1})
    daemon.start()
    (daemon.path / "file").write_bytes(b"data")
    with aiod_client.connect(daemon.endpoint, transport="ring") as client:
        assert client.read_file("scratch/file") == b"data"
        with client.open("scratch/file") as file:
            assert file.pread(4, 0) == client.read_file("scratch/file")
            assert len(daemon.json("handles")["handles"]) == 1
            with pytest.raises(OSError, match="handles"):
                client.open("scratch/file")
        assert daemon.json("handles")["handles"] == []


@pytest.mark.parametrize("keys", [{"as_client": True}, {"direct": True}])
def test_exports_that_open_files_in_their_own_way_are_served_by_messages(
    new_daemon: Callable[..., Any], keys: dict[str, Any]
) -> None:
    daemon = new_daemon(**{SCRATCH: keys})
    daemon.start()
    with aiod_client.connect(daemon.endpoint, transport="ring") as client:
        client.write_file("scratch/file", b"data")
        assert client.read_file("scratch/file") == b"data"
        assert client.stat("scratch/file").size == 4
        assert counts(daemon).get("read_file", 0) == 0


def test_what_the_export_forbids_is_refused(new_daemon: Callable[..., Any], transport: Any) -> None:
    daemon = new_daemon(**{SCRATCH: {"read_only": True}})
    daemon.start()
    (daemon.path / "file").write_bytes(b"data")
    with aiod_client.connect(daemon.endpoint, transport=transport) as client:
        assert client.read_file("scratch/file") == b"data"
        with pytest.raises(OSError, match="read-only") as caught:
            client.write_file("scratch/file", b"other")
        assert caught.value.errno == errno.EROFS
    assert [path.name for path in daemon.path.iterdir()] == ["file"]


def test_files_have_the_mode_and_the_size_that_the_export_sets(new_daemon: Callable[..., Any], transport: Any) -> None:
    daemon = new_daemon(**{SCRATCH: {"create_mode": "0640", "max_file_bytes": 1000}})
    daemon.start()
    with aiod_client.connect(daemon.endpoint, transport=transport) as client:
        client.write_file("scratch/file", bytes(1000))
        assert (daemon.path / "file").stat().st_mode & 0o777 == 0o640
        with pytest.raises(OSError, match="max_file_bytes"):
            client.write_file("scratch/file", bytes(1001))
    assert [(path.name, path.stat().st_size) for path in daemon.path.iterdir()] == [("file", 1000)]


def test_a_reload_that_takes_an_export_away_holds_for_the_ring(new_daemon: Callable[..., Any], transport: Any) -> None:
    daemon = new_daemon()
    daemon.start()
    (daemon.path / "file").write_bytes(b"data")
    with aiod_client.connect(daemon.endpoint, transport=transport) as client:
        assert client.read_file("scratch/file") == b"data"
        daemon.write_config({SCRATCH: {"users": ["nobody"]}})
        daemon.json("reload")
        for call in (client.read_file, client.stat):
            with pytest.raises(PermissionError):
                call("scratch/file")
        daemon.write_config({})
        daemon.json("reload")
        for _ in range(3):
            assert client.read_file("scratch/file") == b"data"


def test_reading_goes_on_with_the_next_engine(daemon: Any, transport: Any) -> None:
    (daemon.path / "file").write_bytes(b"data")
    with aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S) as client:
        for _ in range(3):
            before = daemon.engine["pid"]

            def is_replaced(before: int = before) -> bool:
                return bool(daemon.engine["pid"] != before)

            assert client.read_file("scratch/file") == b"data"
            os.kill(before, signal.SIGKILL)
            assert client.read_file("scratch/file") == b"data"
            assert client.stat("scratch/file").size == 4
            wait_until(is_replaced, "the next engine serves")


def is_stopped(pid: int) -> bool:
    """Whether all threads of the process have stopped: some run on for a moment after SIGSTOP was sent."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


def test_tasks_go_on_reading_with_the_next_engine(daemon: Any) -> None:
    """Before that, an engine that does not answer: requests whose time is up, or whose awaits are cancelled."""
    (daemon.path / "file").write_bytes(bytes(100_000))

    async def give_up(client: aio.Client, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: is_stopped(pid), "every thread of the engine has stopped")
            given_up = [asyncio.ensure_future(client.read_file("scratch/file")) for _ in range(8)]
            for late in (client.read_file("scratch/file", timeout=0.1), client.stat("scratch/file", timeout=0.1)):
                with pytest.raises(TimeoutError, match=r"^\[Errno \d+\] scratch/file: "):
                    await late
            for task in given_up:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        finally:
            os.kill(pid, signal.SIGCONT)

    async def main() -> None:
        async with aio.connect(daemon.endpoint, transport="ring", reconnect_timeout=RECONNECT_S) as client:
            pid = daemon.engine["pid"]
            assert len(await client.read_file("scratch/file")) == 100_000
            await give_up(client, pid)
            reading = [asyncio.create_task(client.read_file("scratch/file")) for _ in range(100)]
            os.kill(pid, signal.SIGKILL)
            assert {len(data) for data in await asyncio.gather(*reading)} == {100_000}

    asyncio.run(main())
