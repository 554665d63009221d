"""Requests in the ring of an engine that dies before it takes them: they go on at the next engine, each done once."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.conftest import freeze, wait_until
from tests.service.ring_memory import untaken

if TYPE_CHECKING:
    from collections.abc import Callable

RECONNECT_S = 60.0


def prepare(path: Path) -> None:
    """What the requests need."""
    for name in ("old", "gone", "linked", "moded", "timed", "tagged", "untagged", "appended", "cut"):
        (path / name).write_bytes(b"before")
    os.setxattr(path / "untagged", "user.tag", b"x")
    (path / "empty").mkdir()
    (path / "tree" / "inner").mkdir(parents=True)


def names(client: Any) -> list[tuple[Any, ...]]:
    """Every verb, and the other requests on paths that change something: (method, arguments)."""
    return [
        (client.remove, "scratch/gone"),
        (client.rmdir, "scratch/empty"),
        (client.rename, "scratch/old", "scratch/new"),
        (client.mkdir, "scratch/made"),
        (client.sync, "scratch"),
        (client.symlink, "old", "scratch/symbolic"),
        (client.link, "scratch/linked", "scratch/second"),
        (client.utime, "scratch/timed", (1.0, 2.0)),
        (client.chmod, "scratch/moded", 0o600),
        (client.setxattr, "scratch/tagged", "user.tag", b"value"),
        (client.removexattr, "scratch/untagged", "user.tag"),
        (client.rmtree, "scratch/tree"),
        (client.write_file, "scratch/whole", b"whole"),
    ]


def opens(client: Any) -> list[tuple[Any, ...]]:
    """Opens that must not be repeated once they may have been executed, and others."""
    return [
        (client.open, "scratch/exclusive", "x"),
        (client.open, "scratch/cut", "w"),
        (client.open, "scratch/created", "w+"),
        (client.open, "scratch/appended", "a"),
        (client.open, "scratch/appended", "r"),
    ]


def check(path: Path) -> None:
    """Everything was done."""
    found = {entry.name for entry in path.iterdir()}
    assert found >= {"new", "made", "symbolic", "second", "whole", "exclusive", "created"}
    assert not found & {"old", "gone", "empty", "tree"}
    assert (path / "second").stat().st_ino == (path / "linked").stat().st_ino
    assert (path / "timed").stat().st_mtime == 2.0
    assert (path / "moded").stat().st_mode & 0o777 == 0o600
    assert os.getxattr(path / "tagged", "user.tag") == b"value"
    assert os.listxattr(path / "untagged") == []
    assert (path / "whole").read_bytes() == b"whole"
    assert (path / "cut").read_bytes() == b"cut"
    assert (path / "appended").read_bytes() == b"beforeappended"


@pytest.fixture(name="site")
def site_fixture(new_daemon: Callable[..., Any], disk_path: Path) -> Any:
    """A daemon whose export allows every verb."""
    export = {"path": str(disk_path), "links": True, "attributes": True}
    daemon = new_daemon(**{"": {"watchdog_s": 0.0}, "exports.scratch": export})
    daemon.path = disk_path
    daemon.start()
    prepare(disk_path)
    return daemon


def kill_before_it_takes(pid: int, count: int) -> None:
    """Kill the frozen engine once `count` requests lie in its ring."""
    try:
        wait_until(lambda: untaken(pid) == count, f"{count} requests lie in the ring")
    finally:
        os.kill(pid, signal.SIGKILL)


def test_threads_go_on(site: Any) -> None:
    with aiod_client.connect(site.endpoint, transport="ring", reconnect_timeout=RECONNECT_S) as client:
        client.stat("scratch/old")
        client.open("scratch/old", "r+").close()  # the ring has numbers of handles
        pid = site.engine["pid"]
        calls = [*names(client), *opens(client)]
        with ThreadPoolExecutor(len(calls)) as pool:
            freeze(pid)
            done = [pool.submit(call, *arguments) for call, *arguments in calls]
            kill_before_it_takes(pid, len(calls))
            results = [each.result() for each in done]
        for file in results[len(names(client)) :]:
            if file.mode != "r":
                file.append(Path(file.name).name.encode()) if file.mode == "a" else file.pwrite(b"cut", 0)
            file.close()
        check(site.path)


def test_tasks_go_on(site: Any) -> None:
    async def main() -> None:
        async with aio.connect(site.endpoint, transport="ring", reconnect_timeout=RECONNECT_S) as client:
            await client.stat("scratch/old")
            await (await client.open("scratch/old", "r+")).close()
            pid = site.engine["pid"]
            calls = [*names(client), *opens(client)]
            freeze(pid)
            tasks = [asyncio.create_task(call(*arguments)) for call, *arguments in calls]
            await asyncio.to_thread(kill_before_it_takes, pid, len(calls))
            results = await asyncio.gather(*tasks)
            for file in results[len(names(client)) :]:
                if file.mode == "a":
                    await file.append(Path(file.name).name.encode())
                elif file.mode != "r":
                    await file.pwrite(b"cut", 0)
                await file.close()
            check(site.path)

    asyncio.run(main())
