"""A client over several daemons that export one directory: one of them dies, hangs, is stopped, or all have gone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import Daemon, freeze, kill, wait_until
from tests.patience import scaled
from tests.service.cut_link import insist

if TYPE_CHECKING:
    from collections.abc import Iterator

RECONNECT_S = scaled(60.0)
SILENCE_S = scaled(3.0)
NEVER_S = scaled(300.0)


class Site:
    """Daemons that export one directory."""

    def __init__(self, base: Path) -> None:
        self.path = base / "shared"
        self.path.mkdir()
        self.daemons = []
        for number in range(2):
            own = base / f"daemon{number}"
            own.mkdir()
            self.daemons.append(Daemon(own, **{"exports.scratch": {"path": str(self.path)}}))

    @property
    def endpoints(self) -> str:
        """Of all daemons."""
        return ",".join(daemon.endpoint for daemon in self.daemons)

    def connect(self, **more: Any) -> aiod_client.Client:
        """A client that prefers the first daemon."""
        return aiod_client.connect(self.endpoints, **self.options(**more))

    def options(self, **more: Any) -> dict[str, Any]:
        """The arguments of connect()."""
        return {
            "prefer": self.daemons[0].endpoint,
            "reconnect_timeout": RECONNECT_S,
            "timeout": RECONNECT_S,
            "host_timeout": NEVER_S,
        } | more

    def used(self, client: Any) -> Daemon:
        """The daemon that the client uses."""
        return next(daemon for daemon in self.daemons if daemon.endpoint == client.endpoint)


@pytest.fixture(scope="module")
def _site() -> Iterator[Site]:
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    made = Site(base)
    yield made
    for daemon in made.daemons:
        daemon.destroy()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def site(_site: Site) -> Site:
    """Two running daemons, whose directory is empty."""
    for daemon in _site.daemons:
        if daemon.process is None or daemon.process.poll() is not None:
            # After a crash there would be a grace period, in which new clients wait.
            shutil.rmtree(daemon.runtime_dir)
            daemon.runtime_dir.mkdir(mode=0o700)
        daemon.renew()
    for path in _site.path.iterdir():
        path.unlink()
    return _site


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


class Host:
    """The processes of one daemon, to be frozen and killed."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.pids = daemon.pid, int(daemon.engine["pid"])

    def freeze(self) -> None:
        """Stop all of them."""
        for pid in self.pids:
            freeze(pid)

    def thaw(self) -> None:
        """Let them go on."""
        for pid in self.pids:
            kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """All at once, as if the host had lost its power."""
        for pid in self.pids:
            kill(pid)
        assert self.daemon.process is not None
        self.daemon.process.wait()


def test_reads_go_on_at_another_daemon_and_writes_in_doubt_are_told(site: Site, transport: Any) -> None:
    with site.connect(transport=transport) as client:
        host = Host(site.used(client))
        file = client.open("scratch/file", "w+")
        file.pwrite(b"flushed", 0)
        file.flush()
        file.pwrite(b"cached", 100)
        host.freeze()
        read, write = file.submit([("read", 7, 0), ("write", b"doubt", 200)])
        host.kill()
        assert read.result(RECONNECT_S) == b"flushed"
        with pytest.raises(aiod_client.SessionLostError, match="unknown whether done") as caught:
            write.result(RECONNECT_S)
        assert caught.value.errno == errno.EIO
        with pytest.raises(OSError, match="earlier data may be lost") as told:
            file.flush()
        assert told.value.errno == errno.EIO
        file.pwrite(b"again", 200)
        file.flush()
        assert site.used(client) is not host.daemon
        assert client.is_connected
        assert client.counters.failovers == 1
        file.close()
    assert (site.path / "file").read_bytes()[200:] == b"again"


def test_a_flush_without_an_answer_is_told_at_the_next_daemon(site: Site) -> None:
    with site.connect(transport="zmq") as client, client.open("scratch/file", "w+") as file:
        host = Host(site.used(client))
        file.pwrite(b"cached", 0)
        host.freeze()
        (flush,) = file.submit([("flush",)])
        host.kill()
        with pytest.raises(OSError, match="earlier data may be lost"):
            flush.result(RECONNECT_S)
        file.pwrite(b"cached", 0)
        file.flush()


def test_what_was_flushed_needs_no_second_flush(site: Site) -> None:
    with site.connect() as client, client.open("scratch/file", "w+") as file:
        host = Host(site.used(client))
        file.pwrite(b"data", 0)
        file.flush()
        file.pwrite(b"more", 4, fua=True)
        host.kill()
        file.flush()
        assert file.pread(8, 0) == b"datamore"


def test_a_frozen_daemon_is_left_and_carries_out_nothing_late(site: Site) -> None:
    with site.connect(transport="zmq", host_timeout=SILENCE_S) as client:
        file = client.open("scratch/file", "w+")
        file.pwrite(b"before", 0)
        file.flush()
        host = Host(site.used(client))
        host.freeze()
        try:
            read, late = file.submit([("read", 6, 0), ("write", b"late", 0)])
            assert read.result(RECONNECT_S) == b"before"
            with pytest.raises(aiod_client.SessionLostError, match="unknown whether done"):
                late.result(RECONNECT_S)
            insist(lambda: file.pwrite(b"after!", 0))
        finally:
            host.thaw()
        host.daemon.wait_logged("its client may have moved to another daemon")
        host.daemon.wait_logged("refused a message")
        assert file.pread(6, 0) == b"after!"
        file.close()


def test_a_frozen_daemon_is_left_in_asyncio(site: Site, transport: Any) -> None:
    async def go() -> None:
        options = site.options(transport=transport, host_timeout=SILENCE_S)
        async with aiod_client.aio.connect(site.endpoints, **options) as client:
            file = await client.open("scratch/file", "w+")
            await file.pwrite(b"data", 0)
            await file.flush()
            host = Host(site.used(client))
            await asyncio.to_thread(host.freeze)
            try:
                future = file.submit([("write", b"late", 0)])[0]
                with pytest.raises(aiod_client.SessionLostError, match="unknown whether done"):
                    await future
                assert site.used(client) is not host.daemon
                with pytest.raises(OSError, match="earlier data may be lost"):
                    await file.flush()
            finally:
                host.thaw()
            assert await file.pread(4, 0) in {b"data", b"late"}
            await file.close()

    asyncio.run(go())


def test_an_orderly_stop_leaves_nothing_in_doubt(site: Site) -> None:
    with site.connect() as client, client.open("scratch/file", "w+") as file:
        stopped = site.used(client)
        file.pwrite(b"data", 0)
        file.append(b"more")
        stopped.stop()
        file.flush()
        assert file.append(b"end") == 8
        assert file.pread(11, 0) == b"datamoreend"
        assert site.used(client) is not stopped


def test_a_daemon_whose_engine_died_is_kept(site: Site) -> None:
    with site.connect() as client, client.open("scratch/file", "w+") as file:
        daemon = site.used(client)
        file.pwrite(b"cached", 0)
        os.kill(daemon.engine["pid"], signal.SIGKILL)
        assert file.pread(6, 0) == b"cached"
        file.flush()
        assert site.used(client) is daemon
        assert client.counters.failovers == 0


def test_a_file_that_was_replaced_is_not_written(site: Site) -> None:
    with site.connect() as client:
        lost, kept = client.open("scratch/lost", "w+"), client.open("scratch/kept", "w+")
        (site.path / "new").write_bytes(b"another")
        (site.path / "new").rename(site.path / "lost")
        Host(site.used(client)).kill()
        wait_until(lambda: client.counters.failovers == 1, "the client has moved")
        with pytest.raises(OSError, match="another file has this name now") as caught:
            lost.pwrite(b"wrong", 0)
        assert caught.value.errno == errno.ESTALE
        kept.pwrite(b"right", 0)
        lost.close()
        kept.close()
    assert (site.path / "lost").read_bytes() == b"another"
    assert (site.path / "kept").read_bytes() == b"right"


def test_all_have_gone_and_one_comes_back(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with site.connect() as client, client.open("scratch/file", "w+") as file:
        for daemon in site.daemons:
            Host(daemon).kill()
        (read,) = file.submit([("size",)])
        wait_until(lambda: not client.is_connected, "the client has noticed")
        site.daemons[1].start()
        assert read.result(RECONNECT_S) == 0
        assert client.endpoint == site.daemons[1].endpoint
        (moved,) = [vars(each)["aiod_moved"] for each in caplog.records if vars(each).get("aiod_event") == "continued"]
        assert moved == (site.daemons[0].endpoint, site.daemons[1].endpoint)


def test_a_session_that_finds_none_says_what_each_has_said(site: Site) -> None:
    with site.connect(reconnect_timeout=0.2) as client:
        file = client.open("scratch/file", "w+")
        hosts = [Host(daemon) for daemon in site.daemons]
        for host in reversed(hosts):
            host.kill()
        with pytest.raises(aiod_client.SessionLostError, match="no other engine") as caught:
            file.pread(1, 0)
        for daemon in site.daemons:
            assert f"{daemon.endpoint}: " in str(caught.value)
        with contextlib.suppress(OSError):
            file.close()


def test_connect_passes_over_what_does_not_answer(site: Site) -> None:
    Host(site.daemons[0]).kill()
    with site.connect() as client:
        assert client.endpoint == site.daemons[1].endpoint
        client.write_file("scratch/file", b"data")

    async def go() -> bytes:
        async with aiod_client.aio.connect(site.endpoints, **site.options()) as awaited:
            return await awaited.read_file("scratch/file")

    assert asyncio.run(go()) == b"data"


def test_a_client_without_files_finds_another_daemon_when_it_opens_one(site: Site) -> None:
    with site.connect() as client:
        client.write_file("scratch/file", b"data")
        Host(site.daemons[0]).kill()
        assert client.read_file("scratch/file") == b"data"
        assert client.endpoint == site.daemons[1].endpoint


def test_an_unknown_export_is_no_reason_to_ask_the_next(site: Site) -> None:
    with site.connect() as client, pytest.raises(FileNotFoundError, match="export"):
        client.open("none/file")


def test_none_answers() -> None:
    with pytest.raises(aiod_client.DaemonUnreachableError) as caught:
        aiod_client.connect("ipc:///tmp/none-a.sock,ipc:///tmp/none-b.sock")
    assert "none of 2 daemons" in str(caught.value)
    assert "none-a.sock" in str(caught.value)
    assert "none-b.sock" in str(caught.value)
