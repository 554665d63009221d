"""Files that the ring opens and closes by itself: counted, limited, listed, closed, and kept over a crash."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECONNECT_S = scaled(30.0)
ROUNDS = 4


@pytest.fixture(name="client")
def client_fixture(daemon: Any) -> Iterator[aiod_client.Client]:
    """With a ring, of a daemon of its own, which serves a file."""
    (daemon.path / "file").write_bytes(b"data")
    with aiod_client.connect(daemon.endpoint, transport="ring", reconnect_timeout=RECONNECT_S) as client:
        with client.open("scratch/file") as file:  # from now on the engine knows that the device is local
            assert file.pread(4, 0) == b"data"
        yield client


def counts(daemon: Any, *names: str) -> list[int]:
    """How many requests of each operation the engine has had."""
    ops = daemon.engine["ops"]
    return [ops[name]["count"] for name in names]


def by_transport(daemon: Any, operation: str, transport: str) -> int:
    """How many requests of the operation came by the transport."""
    ops = daemon.engine["exports"]["scratch"]["ops"]
    return int(ops[operation]["transports"].get(transport, 0)) if operation in ops else 0


def descriptors(pid: int, path: Path) -> int:
    """How many descriptors of the file `path` the process has."""
    open_files = Path(f"/proc/{pid}/fd")
    return sum(link.readlink() == path for link in open_files.iterdir())


def wait_for_another(daemon: Any, pid: int) -> None:
    """Wait until the engine `pid` is replaced."""
    wait_until(lambda: daemon.engine["pid"] != pid, "the next engine serves")


@pytest.mark.page_cache("names and opens go by message")
def test_files_are_opened_and_closed_without_messages(daemon: Any, client: aiod_client.Client) -> None:
    opened, by_message, closed = counts(daemon, "open_file", "open", "close_file")
    for _ in range(100):
        with client.open("scratch/file") as file:
            assert file.pread(4, 0) == b"data"
    after = counts(daemon, "open_file", "open", "close_file")
    assert after[:2] == [opened + 100, by_message]
    assert after[2] > closed


@pytest.mark.page_cache("names and opens go by message")
def test_tasks_open_and_close_files_by_the_ring(daemon: Any) -> None:
    (daemon.path / "file").write_bytes(b"data")

    async def main() -> None:
        async def work() -> None:
            for _ in range(50):
                async with await client.open("scratch/file") as file:
                    assert await file.pread(4, 0) == b"data"

        async with aio.connect(daemon.endpoint, transport="ring") as client:
            await asyncio.gather(*(work() for _ in range(8)))
            with pytest.raises(FileNotFoundError, match="open scratch/missing"):
                await client.open("scratch/missing")

    asyncio.run(main())
    opened, closed = counts(daemon, "open_file", "close_file")
    assert opened >= 300
    assert closed > 0
    wait_until(lambda: daemon.engine["files"] == 0, "all files are closed")


@pytest.mark.page_cache("names and opens go by message")
def test_a_ring_that_runs_out_of_numbers_gets_more(daemon: Any) -> None:
    """64 tasks: at first some opens go by message, for which the engine lends the ring more, up to 128 numbers."""
    tasks, rounds = 64, 20
    (daemon.path / "file").write_bytes(b"data")

    async def main() -> None:
        async with aio.connect(daemon.endpoint, transport="ring") as client:
            for _ in range(rounds):
                files = await asyncio.gather(*(client.open("scratch/file") for _ in range(tasks)))
                await asyncio.gather(*(file.close() for file in files))

    asyncio.run(main())
    (by_message,) = counts(daemon, "open")
    assert by_message <= 3 * tasks  # of 20 * tasks: those of two rounds at most, and the opens of the names


def test_a_file_that_stays_open_is_listed_and_closed(daemon: Any, client: aiod_client.Client) -> None:
    files = [client.open("scratch/file") for _ in range(3)]
    listed = daemon.json("handles")["handles"]
    assert [(each["file"], each["writable"]) for each in listed] == [("scratch/file", False)] * 3
    assert daemon.json("clients")["clients"][0]["handles"] == 3
    for file in files:
        assert file.pread(4, 0) == b"data"
        assert file.stat().size == 4
        file.close()
    wait_until(lambda: daemon.json("handles")["handles"] == [], "all files are closed")


@pytest.mark.page_cache("names and opens go by message")
def test_a_file_that_the_main_loop_knows_is_closed_by_the_ring(daemon: Any, client: aiod_client.Client) -> None:
    """No message, no descriptor that stays: neither the engine's nor the one that the supervisor keeps."""
    engine_pid = daemon.engine["pid"]
    for mode in ("r", "r+"):
        file = client.open("scratch/file", mode)
        assert len(daemon.json("handles")["handles"]) == 1  # so the main loop has collected it
        wait_until(lambda: descriptors(daemon.pid, daemon.path / "file") == 1, "the supervisor keeps it")
        closed, by_message = by_transport(daemon, "close_file", "ring"), by_transport(daemon, "close", "ipc")
        file.close()
        assert descriptors(engine_pid, daemon.path / "file") == 0
        assert daemon.json("handles")["handles"] == []
        assert by_transport(daemon, "close_file", "ring") == closed + 1
        assert by_transport(daemon, "close", "ipc") == by_message
        wait_until(lambda: descriptors(daemon.pid, daemon.path / "file") == 0, "the supervisor has dropped it")


def test_a_blocking_close_overtakes_no_request_of_the_file(client: aiod_client.Client) -> None:
    """A stat goes by message."""
    for _ in range(10):
        file = client.open("scratch/file")
        stats = file.submit([("stat",)] * 300)
        file.close()
        assert [each.result().size for each in stats] == [4] * 300


def test_a_close_by_the_ring_does_not_overtake_messages(daemon: Any) -> None:
    """stat() goes by message, and is submitted before close()."""
    (daemon.path / "file").write_bytes(b"data")

    async def main() -> None:
        async with aio.connect(daemon.endpoint, transport="ring", reconnect_timeout=RECONNECT_S) as client:
            for _ in range(40):
                file = await client.open("scratch/file")
                stats = [asyncio.ensure_future(file.stat()) for _ in range(4)]
                await asyncio.sleep(0)  # the tasks begin
                await file.close()
                assert [each.size for each in await asyncio.gather(*stats)] == [4] * 4

    asyncio.run(main())


def test_every_limit_holds_for_files_of_the_ring(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(sessions={"handles_max": 100})
    daemon.start()
    (daemon.path / "file").write_bytes(b"data")
    with aiod_client.connect(daemon.endpoint, transport="ring") as client:
        files = [client.open("scratch/file") for _ in range(100)]
        with pytest.raises(OSError, match="handles") as caught:
            client.open("scratch/file")
        assert caught.value.errno == errno.EMFILE
        assert daemon.json("clients")["clients"][0]["handles"] == 100
        files.pop().close()
        files.append(client.open("scratch/file", "r+"))
        with pytest.raises(OSError, match="handles"):
            client.open("scratch/file")
        for file in files:
            file.close()
        wait_until(lambda: daemon.engine["files"] == 0, "all files are closed")


def test_what_is_no_file_is_refused_as_by_message(daemon: Any, client: aiod_client.Client) -> None:
    (daemon.path / "directory").mkdir()
    os.mkfifo(daemon.path / "fifo")
    os.mknod(daemon.path / "socket", stat.S_IFSOCK | 0o600)
    (daemon.path / "out").symlink_to("/etc/passwd")
    special = ("directory", "fifo", "socket", "out")
    with aiod_client.connect(daemon.endpoint, transport="zmq") as other:
        for name in (*special, "missing", "missing/file", "../file", "x" * 300, "y/" * 2100):
            said = []
            for one in (client, other):
                with pytest.raises(OSError) as caught:  # noqa: PT011 - compared below
                    one.open(f"scratch/{name}")
                said.append((caught.value.errno, caught.value.strerror))
            assert said[0] == said[1]


def test_files_stay_open_when_the_engine_dies_just_after_the_open(daemon: Any, client: aiod_client.Client) -> None:
    """Its descriptor is not kept yet, or just now: the file is opened again by its name."""
    for _ in range(ROUNDS):
        pid = daemon.engine["pid"]
        with client.open("scratch/file") as kept, client.open("scratch/file", "r+") as written:
            written.pwrite(b"data", 0)
            with client.open("scratch/file") as file:
                os.kill(pid, signal.SIGKILL)
                assert file.pread(4, 0) == b"data"
                assert kept.pread(4, 0) == b"data"
                written.flush()
        wait_for_another(daemon, pid)


def test_a_file_that_is_replaced_as_the_engine_dies_is_never_mixed_up(daemon: Any, client: aiod_client.Client) -> None:
    """It is the same file, by its descriptor, or lost."""
    for _ in range(ROUNDS):
        (daemon.path / "file").write_bytes(b"data")
        (daemon.path / "other").write_bytes(b"else")
        pid = daemon.engine["pid"]
        with client.open("scratch/file") as file:
            os.kill(pid, signal.SIGKILL)
            (daemon.path / "other").rename(daemon.path / "file")
            try:
                assert file.pread(4, 0) == b"data"
            except OSError as error:
                assert error.errno == errno.ESTALE  # noqa: PT017 - either is right
        with client.open("scratch/file") as file:
            assert file.pread(4, 0) == b"else"
        wait_for_another(daemon, pid)


def test_a_file_that_has_been_open_for_a_while_survives_its_name(daemon: Any, client: aiod_client.Client) -> None:
    with client.open("scratch/file") as file:
        assert len(daemon.json("handles")["handles"]) == 1  # so the engine has stored its descriptor
        (daemon.path / "file").unlink()
        os.kill(daemon.engine["pid"], signal.SIGKILL)
        assert file.pread(4, 0) == b"data"


def test_a_reload_that_takes_an_export_away_holds_for_opens(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    daemon.start()
    (daemon.path / "file").write_bytes(b"data")
    with aiod_client.connect(daemon.endpoint, transport="ring") as client, client.open("scratch/file") as file:
        daemon.write_config({"exports.scratch": {"users": ["nobody"]}})
        daemon.json("reload")
        with pytest.raises(PermissionError):
            client.open("scratch/file")
        assert file.pread(4, 0) == b"data"  # what is open stays
        daemon.write_config({})
        daemon.json("reload")
        with client.open("scratch/file") as again:
            assert again.pread(4, 0) == b"data"
