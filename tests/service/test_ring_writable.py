"""Files that the ring opens for writing: counted, refused as by message, and kept over a crash at once."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECONNECT_S = scaled(30.0)


@pytest.fixture(name="client")
def client_fixture(daemon: Any) -> Iterator[aiod_client.Client]:
    """With a ring, of a daemon of its own."""
    with aiod_client.connect(daemon.endpoint, transport="ring", reconnect_timeout=RECONNECT_S) as client:
        yield client


def counts(daemon: Any, *names: str) -> list[int]:
    """How many requests of each operation the engine has had."""
    ops = daemon.engine["ops"]
    return [ops[name]["count"] for name in names]


@pytest.mark.page_cache("names and opens go by message")
def test_every_mode_that_writes_opens_without_a_message(daemon: Any, client: aiod_client.Client) -> None:
    path = daemon.path / "file"
    opened, by_message = counts(daemon, "open_writable", "open")
    with client.open("scratch/file", "x", 0o600) as file:
        file.pwrite(b"first", 0)
    assert path.stat().st_mode & 0o777 == 0o600
    with client.open("scratch/file", "a") as file:
        assert file.append(b"+") == 5
    with client.open("scratch/file", "r+") as file:
        assert file.pread(6, 0) == b"first+"
        file.pwrite(b"F", 0)
        file.flush()
    assert path.read_bytes() == b"First+"
    with client.open("scratch/file", "w+") as file:
        assert file.size() == 0
        file.pwrite(b"new", 0)
        assert file.pread(9, 0) == b"new"
    with client.open("scratch/file", "w") as file, pytest.raises(OSError, match="not opened for"):
        file.pread(1, 0)
    assert counts(daemon, "open_writable", "open") == [opened + 5, by_message]
    wait_until(lambda: daemon.engine["files"] == 0, "all files are closed")


@pytest.mark.page_cache("names and opens go by message")
def test_what_cannot_be_opened_is_refused_as_by_message(new_daemon: Any, disk_path: Path) -> None:
    other = disk_path / "other"
    other.mkdir()
    sections = {"fixed": {"read_only": True}, "full": {"create": False}}
    daemon = new_daemon(**{f"exports.{name}": {"path": str(other), **options} for name, options in sections.items()})
    daemon.start()
    (daemon.path / "directory").mkdir()
    (daemon.path / "file").touch()
    os.mkfifo(daemon.path / "fifo")
    (daemon.path / "out").symlink_to("/etc/passwd")
    cases = [
        ("scratch/missing", "r+"),
        ("scratch/file", "x"),
        ("scratch/directory", "w"),
        ("scratch/fifo", "r+"),
        ("scratch/out", "w"),
        ("scratch/../file", "w"),
        ("scratch/file/below", "w"),
        ("scratch/a\0b", "w"),
        (f"scratch/{'x' * 300}", "w"),
        ("fixed/aiod-none", "w"),
        ("full/aiod-none", "x"),
        ("full/aiod-none", "w"),
        ("none/file", "w"),
    ]
    with (
        aiod_client.connect(daemon.endpoint, transport="ring") as by_ring,
        aiod_client.connect(daemon.endpoint, transport="zmq") as by_message,
    ):
        for name, mode in cases:
            said = []
            for client in (by_ring, by_message):
                with pytest.raises(OSError) as caught:  # noqa: PT011 - compared below
                    client.open(name, mode)
                said.append((type(caught.value), caught.value.errno, caught.value.strerror))
            assert said[0] == said[1], (name, mode)
        by_ring.open("scratch/file", "r+").close()
        assert counts(daemon, "open_writable")[0] > 0


def test_a_file_is_kept_from_its_first_write(daemon: Any, client: aiod_client.Client) -> None:
    """No flush fails without need, and the file outlives its name: the supervisor has its descriptor already."""
    pid = daemon.engine["pid"]
    with client.open("scratch/file", "w+") as file:
        assert file.pwrite(b"data", 0) == 4
        (daemon.path / "file").unlink()
        os.kill(pid, signal.SIGKILL)
        assert file.pread(4, 0) == b"data"
        file.pwrite(b"more", 4)
        file.flush()
        assert file.pread(8, 0) == b"datamore"
    assert counts(daemon, "open_writable", "open")[1] == 1  # again, at the next engine


@pytest.mark.page_cache("names and opens go by message")
def test_appends_go_on_at_the_next_engine(daemon: Any, client: aiod_client.Client) -> None:
    with client.open("scratch/file", "a+") as file:
        assert file.append(b"one") == 0
        os.kill(daemon.engine["pid"], signal.SIGKILL)
        assert file.pread(3, 0) == b"one"
        assert file.append(b"two") == 3
        file.flush()
    assert (daemon.path / "file").read_bytes() == b"onetwo"


def test_many_files_of_tasks_are_kept_while_they_are_open(daemon: Any) -> None:
    """What was acknowledged is there after a crash amid opens, writes and closes, and no flush fails."""

    async def work(client: aio.Client, number: int, done: list[str]) -> None:
        for turn in range(12):
            name = f"{number}-{turn}"
            async with await client.open(f"scratch/{name}", "w") as file:
                await file.pwrite(name.encode(), 0)
                if turn % 3 == 0:
                    await file.flush()
            done.append(name)

    async def main() -> list[str]:
        done: list[str] = []
        connected = aio.connect(daemon.endpoint, transport="ring", reconnect_timeout=RECONNECT_S)
        async with connected as client:
            await client.stat("scratch")
            pid = daemon.engine["pid"]
            tasks = [asyncio.create_task(work(client, number, done)) for number in range(8)]
            while len(done) < 16:  # noqa: ASYNC110 - the tasks say it by the list
                await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                # an open that truncates is not repeated if it may have been done
                assert outcome is None or "unknown whether done" in str(outcome), outcome
        return done

    done = asyncio.run(main())
    for name in done:
        # with O_DIRECT, a write that is killed may leave less than a block of zeroes behind the end (core/ops/direct.h)
        assert (daemon.path / name).read_bytes().rstrip(b"\0") == name.encode()
    wait_until(lambda: daemon.engine["files"] == 0, "all files are closed")


def test_a_stopping_daemon_flushes_what_the_ring_has_opened(daemon: Any, client: aiod_client.Client) -> None:
    with client.open("scratch/file", "w+") as file:
        file.pwrite(b"data", 0)
        daemon.stop()
        daemon.start()
        file.flush()
        assert file.pread(4, 0) == b"data"
