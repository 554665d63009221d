"""The server of a FUSE mount is killed, and the file system mounted again: open files continue, losses are reported."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_protocol.reasons import Reason, reason_of
from tests.conftest import Daemon, kill, wait_until
from tests.patience import scaled
from tests.service.one_brick import OneBrick, one_brick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = scaled(60.0)
DEAD = {errno.ENOTCONN, errno.ECONNABORTED}


class Site:
    """A daemon over a mount."""

    def __init__(self, daemon: Daemon, disk: OneBrick) -> None:
        self.daemon = daemon
        self.disk = disk

    def connect(self, transport: Any) -> aiod_client.Client:
        """A client."""
        return aiod_client.connect(
            self.daemon.endpoint, transport=transport, timeout=PATIENCE_S, reconnect_timeout=PATIENCE_S
        )

    def come_back(self) -> None:
        """Remove the dead mount, and mount the file system again."""
        self.disk.unmount()
        self.disk.mount()


@pytest.fixture(scope="module", name="made_site")
def made_site_fixture() -> Iterator[Site]:
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        disk = stack.enter_context(one_brick(base))
        daemon = Daemon(base, **{"exports.disk": {"path": str(disk.path)}})
        stack.callback(daemon.destroy)
        daemon.start()
        yield Site(daemon, disk)


@pytest.fixture
def site(made_site: Site) -> Site:
    """Its mount lives."""
    return made_site


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


def number_of(call: Callable[[], object]) -> int | None:
    """The errno that it fails with; None: it succeeds."""
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def lives_again(call: Callable[[], object]) -> None:
    """Wait until it succeeds; until then it may fail as on a dead mount only."""

    def succeeds() -> bool:
        number = number_of(call)
        assert number is None or number in DEAD
        return number is None

    wait_until(succeeds, "the file continues on the new mount")


def test_an_open_file_continues_on_the_new_mount(site: Site, transport: Any) -> None:
    with site.connect(transport) as client, client.open("disk/a", "w+") as file:
        file.pwrite(b"flushed", 0)
        file.flush()
        site.disk.kill()
        assert number_of(lambda: file.pread(7, 0)) in DEAD
        assert number_of(lambda: client.open("disk/b", "w")) in DEAD
        site.come_back()
        lives_again(lambda: file.pread(7, 0))
        assert file.pread(7, 0) == b"flushed"
        file.pwrite(b"FLUSHED", 0)
        file.flush()
    assert (site.disk.brick / "a").read_bytes() == b"FLUSHED"


def test_writes_that_no_flush_has_covered_are_reported_once_to_each_handle(site: Site, transport: Any) -> None:
    with (
        site.connect(transport) as client,
        client.open("disk/a", "w+") as file,
        client.open("disk/a", "r+") as other,
        client.open("disk/quiet", "w+") as quiet,
    ):
        file.pwrite(b"unflushed", 0)
        quiet.pwrite(b"x", 0)
        quiet.flush()
        site.disk.kill()
        site.come_back()
        for each in (file, other, quiet):
            lives_again(lambda: each.pread(1, 0))  # noqa: B023 - called at once
        for each in (file, other):
            with pytest.raises(OSError, match="may be lost") as caught:
                each.flush()
            assert reason_of(caught.value) == Reason.RESTARTED
        quiet.flush()
        file.pwrite(b"unflushed", 0)
        file.flush()
        other.flush()


def test_a_flush_that_failed_on_the_dead_mount_does_not_fail_for_ever(site: Site, transport: Any) -> None:
    with site.connect(transport) as client, client.open("disk/a", "w+") as file:
        file.pwrite(b"unflushed", 0)
        site.disk.kill()
        assert number_of(file.flush) in DEAD
        site.come_back()
        lives_again(lambda: file.pread(1, 0))
        assert number_of(file.flush) == errno.EIO
        file.pwrite(b"again", 0)
        file.flush()


def test_a_lock_that_was_released_before_is_not_lost(site: Site, transport: Any) -> None:
    """Nor does it fence the handle. One that is held is lost, which the release says even if nothing else was asked."""
    with site.connect(transport) as client, client.open("disk/a", "w+") as file, client.open("disk/b", "w+") as held:
        file.pwrite(b"mine", 0)
        file.flush()
        with file.lock():
            pass
        lock = held.lock()
        site.disk.kill()
        site.come_back()
        lives_again(lambda: file.pread(4, 0))
        wait_until(lambda: number_of(held.size) == errno.EIO, "the other file is fenced on the new mount")
        with pytest.raises(aiod_client.LockLostError), lock:
            pass
        assert lock.lost
        held.pwrite(b"mine", 0)


def test_another_file_of_that_name_is_not_taken_for_it(site: Site, transport: Any) -> None:
    name = f"replaced-{transport}"
    with site.connect(transport) as client:
        file = client.open(f"disk/{name}", "w+")
        file.pwrite(b"mine", 0)
        file.flush()
        site.disk.kill()
        assert number_of(lambda: file.pread(4, 0)) in DEAD
        site.come_back()
        (site.disk.path / name).unlink()
        (site.disk.path / name).write_bytes(b"yours")
        site.daemon.wait_logged(f"disk/{name} cannot continue on the new mount")
        assert number_of(lambda: file.pwrite(b"wrong", 0)) in DEAD
        assert number_of(file.close) in DEAD
    assert (site.disk.brick / name).read_bytes() == b"yours"


def test_an_engine_that_dies_after_its_mount_has_the_file_again(site: Site, transport: Any) -> None:
    """Its successor inherits a descriptor of the dead mount."""
    with site.connect(transport) as client, client.open("disk/a", "w+") as file:
        file.pwrite(b"flushed", 0)
        file.flush()
        file.pwrite(b"not", 0)
        site.disk.kill()
        site.come_back()
        kill(site.daemon.engine["pid"])
        lives_again(lambda: file.pread(7, 0))
        assert number_of(file.flush) == errno.EIO
        file.pwrite(b"again", 0)
        file.flush()
    assert (site.disk.brick / "a").read_bytes()[:5] == b"again"
