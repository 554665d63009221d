"""The server of a FUSE mount stops answering: requests on names there hang by ring, and hold up nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.conftest import Daemon, wait_until
from tests.patience import scaled
from tests.service.one_brick import OneBrick, one_brick

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

PATIENCE_S = scaled(60.0)
ROUNDS = 20
DATA = b"data"


class Site:
    """A daemon whose export `disk` is the mount; `above` has the mount in a local directory."""

    def __init__(self, daemon: Daemon, disk: OneBrick) -> None:
        self.daemon = daemon
        self.disk = disk

    def active(self) -> Counter[str]:
        """How many requests of clients have begun and not ended, by operation; the daemon closes copies of its own."""
        return Counter(request["op"] for request in self.daemon.json("requests")["requests"] if request["client"])

    def ended(self) -> Counter[str]:
        """How many requests of each operation have ended."""
        return Counter({name: each["count"] for name, each in self.daemon.engine["ops"].items()})


@pytest.fixture(scope="module", name="site")
def site_fixture() -> Iterator[Site]:
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        disk = stack.enter_context(one_brick(base))
        exports = {"exports.disk": {"path": str(disk.path)}, "exports.above": {"path": str(base)}}
        daemon = Daemon(base, **exports)
        stack.callback(daemon.destroy)
        daemon.start()
        (daemon.path / "file").write_bytes(DATA)
        (disk.brick / "file").write_bytes(DATA)
        yield Site(daemon, disk)


async def use(client: aio.Client, name: str) -> None:
    """Every kind of request on names, at a local file."""
    assert await client.read_file(name) == DATA
    assert (await client.stat(name)).size == len(DATA)
    async with await client.open(name) as file:
        assert await file.pread(4, 0) == DATA
    await client.write_file(f"{name}-other", DATA)
    await client.rename(f"{name}-other", f"{name}-moved")
    await client.remove(f"{name}-moved")


def use_by(daemon: Daemon, transport: Any) -> None:
    """The same by another client."""
    with aiod_client.connect(daemon.endpoint, transport=transport, timeout=PATIENCE_S) as client:
        assert client.read_file("scratch/file") == DATA
        assert client.stat("scratch/file").size == len(DATA)
        with client.open("scratch/file", "r+") as file:
            assert file.pread(4, 0) == DATA
        assert "file" in [entry[0] for entry in client.list("scratch")]


@pytest.mark.parametrize("at", ["disk", "above/mounted"])
def test_requests_on_names_hang_alone_and_end_once(site: Site, at: str) -> None:
    async def main() -> None:
        async with aio.connect(site.daemon.endpoint, transport="ring", timeout=PATIENCE_S) as client:
            await use(client, "scratch/file")
            await use(client, "above/scratch/file")  # from now on the engine knows that this device is local
            held = await client.open(f"{at}/file")
            before = site.ended()
            acts: dict[str, Coroutine[Any, Any, Any]] = {
                "read_file": client.read_file(f"{at}/file"),
                "stat_name": client.stat(f"{at}/file"),
                "open_file": client.open(f"{at}/file"),
                "open_writable": client.open(f"{at}/new", "w"),
                "write_file": client.write_file(f"{at}/whole", DATA),
                "name": client.mkdir(f"{at}/dir"),
                "close": held.close(),
            }
            with site.disk.stopped():
                hung = [asyncio.ensure_future(act) for act in acts.values()]
                names = Counter(acts.keys())
                await asyncio.to_thread(wait_until, lambda: site.active() == names, "all of them hang")
                for _ in range(ROUNDS):
                    await use(client, "scratch/file")
                    await use(client, "above/scratch/file")
                for transport in ("ring", "zmq"):
                    await asyncio.to_thread(use_by, site.daemon, transport)
                assert not any(task.done() for task in hung)
                assert site.active() == names
            read, status, opened, new, *_ = await asyncio.gather(*hung)
            assert (read, status.size, await opened.pread(4, 0)) == (DATA, len(DATA), DATA)
            await new.close()
            await opened.close()
            wait_until(lambda: not site.active(), "nothing is active")
            ended = site.ended() - before
            used = 2 * ROUNDS + 1
            assert [ended[name] for name in ("read_file", "stat_name", "write_file", "open_writable")] == [
                used + 1,
                used + 1,
                used,
                2,
            ]

    asyncio.run(main())
    brick = site.disk.brick
    assert (brick / "whole").read_bytes() == DATA
    (brick / "dir").rmdir()
    wait_until(lambda: site.daemon.engine["files"] == 0, "all files are closed")
