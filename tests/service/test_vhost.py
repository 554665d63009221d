"""Disks of virtual machines: the daemon's part of vhost-user-blk, with a VMM of a few lines (vhost_vmm.py)."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from aiod.ctl.daemon import ask
from tests.conftest import Daemon, kill, wait_until
from tests.patience import scaled
from tests.service import vhost_vmm as vhost
from tests.service.vhost_vmm import Front

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECTORS = 512
PAGE = bytes(range(256)) * 16


@pytest.fixture(name="disks", scope="module")
def disks_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the disks vm and, for tests that write nothing, ro."""
    base = tmp_path_factory.mktemp("vhost")
    daemon = Daemon(
        base,
        **{
            "vhost.vm": {"export": "slow", "path": "vm.img", "serial": "abc"},
            "vhost.ro": {"export": "scratch", "path": "vm.img", "read_only": True, "num_queues": 2},
            "exports.slow": {
                "path": str(base / "scratch"),
                "faults": [{"operations": ["write"], "delay_ms": 1000}],
            },
        },
    )
    make_image(daemon.path)
    daemon.start()
    yield daemon
    daemon.destroy()


def make_image(directory: Path) -> Path:
    image = directory / "vm.img"
    image.write_bytes(bytes(SECTORS * 512))
    return image


def shown(daemon: Daemon, name: str) -> dict[str, Any]:
    """What aiodctl vhost says of a disk."""
    (disk,) = [disk for disk in daemon.json("vhost")["disks"] if disk["name"] == name]
    return dict(disk)


def engine_pid(daemon: Daemon, name: str) -> int:
    return int(shown(daemon, name)["pid"])


@contextmanager
def vmm(daemon: Daemon, name: str) -> Iterator[Front]:
    front = Front(str(daemon.runtime_dir / f"vhost-{name}.sock"))
    try:
        front.connect()
        yield front
    finally:
        front.close()


def test_a_guest_reads_writes_and_flushes(disks: Daemon) -> None:
    with vmm(disks, "vm") as front:
        assert front.run(vhost.WRITE, 8, PAGE) == vhost.OK
        assert front.run(vhost.FLUSH) == vhost.OK
        assert front.run(vhost.READ, 8, 4096) == vhost.OK
        assert front.data(0, 4096) == PAGE
        assert (disks.path / "vm.img").read_bytes()[4096:8192] == PAGE
        assert front.run(vhost.GET_ID, 0, 20) == vhost.OK
        assert front.data(0, 20).rstrip(b"\0") == b"abc"
        config = front.config()
        assert (config["sectors"], config["block_size"], config["queues"]) == (SECTORS, 512, 8)
        disk = shown(disks, "vm")
        assert (disk["vmm_pid"], disk["queues_running"], disk["bytes"]) == (os.getpid(), 1, SECTORS * 512)
        assert "vm.img" in disks.ctl("vhost").stdout
        (engine,) = [engine for engine in disks.json("stats")["engines"] if engine["name"] == "vhost-vm"]
        assert engine["ops"]["write"]["count"] == 1
        assert engine["exports"]["slow"]["ops"]["write"]["transports"] == {"vhost": 1}


def test_a_read_only_disk_is_not_written(disks: Daemon) -> None:
    with vmm(disks, "ro") as front:
        assert front.run(vhost.WRITE, 0, PAGE) == vhost.FAILED
        assert front.run(vhost.READ, 0, 4096) == vhost.OK
        assert front.config()["queues"] == 2


def test_a_second_vmm_is_refused(disks: Daemon) -> None:
    with vmm(disks, "ro") as front:
        other = Front(str(disks.runtime_dir / "vhost-ro.sock"))
        with pytest.raises(ConnectionError):
            other.connect()
        other.close()
        disks.wait_logged(f"is refused: the VMM with pid {os.getpid()} has the disk")
        assert front.run(vhost.READ, 0, 4096) == vhost.OK


def test_requests_in_flight_survive_the_engine(disks: Daemon) -> None:
    """The writes take a second each: the engine is killed meanwhile, and the next one carries them out."""
    with vmm(disks, "vm") as front:
        assert front.run(vhost.READ, 0, 4096) == vhost.OK
        pid = engine_pid(disks, "vm")
        for number in range(5):
            front.submit(number, vhost.WRITE, 64 + 8 * number, bytes([number + 1]) * 4096)
        wait_until(lambda: shown(disks, "vm")["inflight"] == 5, "they are in flight")
        kill(pid)
        front.connect()
        assert {front.wait_used() for _ in range(5)} == {0, 1, 2, 3, 4}
        assert [front.status(number) for number in range(5)] == [vhost.OK] * 5
        written = (disks.path / "vm.img").read_bytes()[64 * 512 :]
        assert written[: 5 * 4096] == b"".join(bytes([number + 1]) * 4096 for number in range(5))
        assert 1 <= shown(disks, "vm")["resubmitted"] <= 5


def test_only_users_of_the_export_are_served(disks: Daemon) -> None:
    """From the next reload on: a VMM that is connected stays."""
    text = disks.config_path.read_text()
    with vmm(disks, "ro") as front:
        disks.config_path.write_text(text.replace("[exports.scratch]", '[exports.scratch]\nusers = ["nobody"]'))
        disks.ctl("reload")
        other = Front(str(disks.runtime_dir / "vhost-ro.sock"))
        with pytest.raises(ConnectionError):
            other.connect()
        other.close()
        disks.wait_logged("is refused: the export scratch is not for it")
        assert front.run(vhost.READ, 0, 4096) == vhost.OK
    disks.config_path.write_text(text)
    disks.ctl("reload")
    with vmm(disks, "ro") as front:
        assert front.run(vhost.READ, 0, 4096) == vhost.OK


def test_a_change_of_size_is_told(disks: Daemon) -> None:
    with vmm(disks, "ro") as front:
        front.news.settimeout(60)
        os.truncate(disks.path / "vm.img", 2 * SECTORS * 512)
        assert struct.unpack("=III", front.news.recv(12)) == (vhost.CONFIG_CHANGED, 1, 0)
        assert front.config()["sectors"] == 2 * SECTORS
        assert front.run(vhost.READ, 2 * SECTORS - 8, 4096) == vhost.OK
        os.truncate(disks.path / "vm.img", SECTORS * 512)
        assert struct.unpack("=III", front.news.recv(12)) == (vhost.CONFIG_CHANGED, 1, 0)
        assert front.run(vhost.READ, SECTORS, 4096) == vhost.FAILED


def test_a_vmm_that_takes_its_memory_away_ends_one_engine(disks: Daemon) -> None:
    with vmm(disks, "ro") as front, vmm(disks, "vm") as other:
        pid = engine_pid(disks, "ro")
        assert front.run(vhost.READ, 0, 4096) == vhost.OK
        front.truncate_memory()
        assert front.socket.recv(1) == b""
        disks.wait_logged(f"(pid {pid}) was killed by SIGBUS")
        assert other.run(vhost.READ, 0, 4096) == vhost.OK
    with vmm(disks, "ro") as front:
        assert front.run(vhost.READ, 0, 4096) == vhost.OK


def test_a_reload_adds_and_removes_disks(disks: Daemon) -> None:
    """And a disk whose file is missing waits for it."""
    text = disks.config_path.read_text()
    engine = "[engine.vhost-new]\nmax_threads = 3\n"
    disks.config_path.write_text(f'{text}{engine}[vhost.new]\nexport = "scratch"\npath = "new.img"\n')
    disks.ctl("reload")
    disks.wait_logged("scratch/new.img cannot be opened: No such file or directory")
    (disks.path / "new.img").write_bytes(PAGE)
    with vmm(disks, "new") as front:
        assert front.config()["sectors"] == 8
    disks.config_path.write_text(text + engine)
    assert disks.json("reload")["changed"] == ["vhost.new: removed"]
    wait_until(lambda: not (disks.runtime_dir / "vhost-new.sock").exists(), "its socket is removed")
    assert {disk["name"] for disk in disks.json("vhost")["disks"]} == {"vm", "ro"}
    disks.wait_logged("[engine.vhost-new] is not used: there is no disk new")
    disks.config_path.write_text(text)
    disks.ctl("reload")


def test_a_disk_that_returns_before_its_engine_has_ended_waits_for_it(disks: Daemon) -> None:
    """The writes take a second each, which the former engine completes; the new one starts afterwards, once."""
    text = disks.config_path.read_text()
    without = re.sub(r"\[vhost\.vm\][^\[]*", "", text)
    with vmm(disks, "vm") as front:
        for number in range(2):
            front.submit(number, vhost.WRITE, 8 * number, PAGE)
        wait_until(lambda: shown(disks, "vm")["inflight"] == 2, "they are in flight")
        former = engine_pid(disks, "vm")
        for lines in (without, text):
            disks.config_path.write_text(lines)
            ask(disks.address, "reload", scaled(60))
        assert {front.wait_used() for _ in range(2)} == {0, 1}
        wait_until(lambda: shown(disks, "vm")["pid"] != former and shown(disks, "vm")["open"], "the new one serves")
        front.connect()
        assert front.run(vhost.READ, 0, 4096) == vhost.OK
        assert front.data(0, 4096) == PAGE
        assert shown(disks, "vm")["restarts"] == 0


# ---- disks that aiodctl adds ----------------------------------------------------------------------------------------


@pytest.fixture(name="image")
def image_fixture(disks: Daemon) -> Iterator[Path]:
    image = disks.path / "more.img"
    image.write_bytes(PAGE * 4)
    yield image
    image.unlink(missing_ok=True)


def add(daemon: Daemon, **section: Any) -> dict[str, Any]:
    """Add the disk "more"; what aiodctl shows of it."""
    answer = ask(daemon.address, "vhost_add", scaled(60), **{"name": "more", "export": "scratch"} | section)
    return dict(answer["disk"])


def remove(daemon: Daemon, name: str = "more", **options: Any) -> None:
    answer = ask(daemon.address, "vhost_remove", scaled(120), name=name, wait_s=scaled(60), **options)
    assert answer == {"name": name, "ended": True}


def names(daemon: Daemon) -> set[str]:
    return {disk["name"] for disk in daemon.json("vhost")["disks"]}


@pytest.mark.usefixtures("image")
def test_a_disk_is_added_and_removed_while_the_daemon_runs(disks: Daemon) -> None:
    arguments = ("--export", "scratch", "--path", "more.img", "--num-queues", "3", "--read-only")
    assert "added the disk more: scratch/more.img" in disks.ctl("vhost", "add", "more", *arguments).stdout
    assert (shown(disks, "more")["origin"], shown(disks, "vm")["origin"]) == ("aiodctl", "config")
    with vmm(disks, "more") as front:
        assert (front.config()["sectors"], front.config()["queues"]) == (32, 3)
        assert front.run(vhost.READ, 0, 4096) == vhost.OK
        assert front.run(vhost.WRITE, 0, PAGE) == vhost.FAILED
        refused = disks.ctl("vhost", "remove", "more", check=False)
        assert refused.returncode == 1
        assert f"the VMM with pid {os.getpid()} is connected" in refused.stderr
        assert front.run(vhost.READ, 8, 4096) == vhost.OK
        remove(disks, force=True)
        assert front.socket.recv(1) == b""
    assert names(disks) == {"vm", "ro"}
    assert not (disks.runtime_dir / "vhost-more.sock").exists()
    socket_path = str(disks.runtime_dir / "other.sock")
    assert add(disks, path="more.img", socket=socket_path)["socket"] == socket_path
    remove(disks)


@pytest.mark.parametrize(
    ("section", "number", "why"),
    [
        ({"name": "vm", "path": "more.img"}, errno.EEXIST, "there is a disk vm already"),
        ({"path": "nothing.img"}, errno.ENOENT, "scratch/nothing.img cannot be opened: No such file"),
        ({"export": "none", "path": "more.img"}, errno.EINVAL, "there is no export 'none'; allowed: scratch, slow"),
        ({"path": "more.img", "num_queues": 0}, errno.EINVAL, "vhost.more.num_queues"),
        ({"path": "more.img", "socket": "relative"}, errno.EINVAL, "not an absolute path"),
        ({"path": "more.img", "socket": "/nowhere/more.sock"}, errno.ENOENT, "cannot listen on /nowhere/more.sock"),
        ({"path": "more.img", "speed": 9}, errno.EINVAL, "vhost.more.speed: unknown key"),
        ({"name": "a/b", "path": "more.img"}, errno.EINVAL, "a name of letters"),
    ],
)
@pytest.mark.usefixtures("image")
def test_a_disk_that_cannot_be_served_is_not_added(
    disks: Daemon, section: dict[str, Any], number: int, why: str
) -> None:
    with pytest.raises(OSError, match=re.escape(why)) as refused:
        add(disks, **section)
    assert refused.value.errno == number
    assert names(disks) == {"vm", "ro"}


@pytest.mark.usefixtures("image")
def test_a_socket_in_use_is_left_alone(disks: Daemon) -> None:
    with pytest.raises(OSError, match="have the same socket"):
        add(disks, path="more.img", socket=str(disks.runtime_dir / "vhost-vm.sock"))
    taken = disks.runtime_dir / "taken.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(taken))
        other.listen()
        with pytest.raises(OSError, match="another process listens there") as refused:
            add(disks, path="more.img", socket=str(taken))
        assert refused.value.errno == errno.EADDRINUSE
        other.settimeout(0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(taken))
    taken.unlink()
    assert names(disks) == {"vm", "ro"}


def test_a_disk_that_is_not_there_or_in_the_file_is_not_removed(disks: Daemon) -> None:
    with pytest.raises(OSError, match=r"there is no disk 'more'; the disks are: ro, vm") as refused:
        remove(disks)
    assert refused.value.errno == errno.ENOENT
    with pytest.raises(OSError, match=r"the disk ro is in .*: remove \[vhost.ro\] there, and reload"):
        remove(disks, "ro", force=True)


@pytest.mark.usefixtures("image")
def test_a_reload_leaves_an_added_disk_alone_until_the_file_has_it(disks: Daemon) -> None:
    text = disks.config_path.read_text()
    add(disks, path="more.img")
    with vmm(disks, "more") as front:
        pid = engine_pid(disks, "more")
        assert disks.json("reload")["changed"] == []
        disks.config_path.write_text(f'{text}[vhost.twin]\nexport = "scratch"\npath = "more.img"\n')
        refused = disks.ctl("reload", check=False)
        assert "with the disks of aiodctl vhost add (more)" in refused.stderr
        assert "vhost.more and vhost.twin are the same file" in refused.stderr
        assert (shown(disks, "more")["origin"], engine_pid(disks, "more")) == ("aiodctl", pid)
        disks.config_path.write_text(f'{text}[vhost.more]\nexport = "scratch"\npath = "more.img"\n')
        (change,) = disks.json("reload")["changed"]
        assert "aiodctl had added this disk; it belongs to the file now" in change
        assert (shown(disks, "more")["origin"], engine_pid(disks, "more")) == ("config", pid)
        assert front.run(vhost.READ, 0, 4096) == vhost.OK
    disks.config_path.write_text(text)
    disks.ctl("reload")
    assert names(disks) == {"vm", "ro"}
    wait_until(lambda: not (disks.runtime_dir / "vhost-more.sock").exists(), "its engine has ended")


def test_a_stop_completes_what_was_taken(disks: Daemon) -> None:
    """Requests in flight are answered, and the file is flushed; the VMM connects again to the next daemon."""
    with vmm(disks, "vm") as front:
        for number in range(5):
            front.submit(number, vhost.WRITE, 128 + 8 * number, PAGE)
        wait_until(lambda: shown(disks, "vm")["inflight"] == 5, "they are in flight")
        assert disks.stop() == 0
        assert {front.wait_used() for _ in range(5)} == {0, 1, 2, 3, 4}
        assert front.status(4) == vhost.OK
        front.submit(0, vhost.READ, 128, 4096)  # nobody takes it
        disks.start()
        front.connect()
        assert front.wait_used() == 0
        assert front.data(0, 4096) == PAGE
