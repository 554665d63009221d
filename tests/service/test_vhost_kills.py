"""A guest's disk whose engine is killed, or whose VMM takes its memory away: nothing is lost, nobody else is harmed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.conftest import Daemon, kill, wait_until
from tests.patience import scaled
from tests.service import vhost_front as vhost

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = ROOT / "build" / "vhost-bench"
DISK_BYTES: Final = 16 << 20
KILLS: Final = 2


@pytest.fixture(scope="module", name="served")
def served_fixture() -> Iterator[Daemon]:
    subprocess.run(["make", "--silent", str(PROGRAM.relative_to(ROOT))], cwd=ROOT, check=True)
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    daemon = Daemon(base)
    (daemon.path / "disk").write_bytes(bytes(DISK_BYTES))
    daemon.write_config({"vhost.disk": {"socket": str(socket_of(daemon)), "export": "scratch", "path": "disk"}})
    daemon.start()
    yield daemon
    daemon.destroy()
    shutil.rmtree(base, ignore_errors=True)


def socket_of(daemon: Daemon) -> Path:
    """The socket of the disk."""
    return daemon.runtime_dir / "disk.sock"


def pids(daemon: Daemon) -> dict[str, int]:
    """The process of each engine that runs."""
    return {engine["name"]: engine["pid"] for engine in daemon.json("stats")["engines"]}


def wait_for_use(daemon: Daemon, guest: subprocess.Popen[str], not_pid: int) -> int:
    """Wait until the guest has requests in flight in another engine than that; the pid of the engine."""

    def in_use() -> bool:
        (disk,) = daemon.json("vhost")["disks"]
        return bool(disk["pid"] != not_pid and disk.get("inflight", 0) > 0)

    wait_until(lambda: guest.poll() is not None or in_use(), "the guest uses its disk")
    (disk,) = daemon.json("vhost")["disks"]
    return int(disk["pid"])


@pytest.fixture(name="main_pid")
def main_pid_fixture(served: Daemon) -> Iterator[int]:
    """The main engine, which is not replaced."""
    before = pids(served)["main"]
    yield before
    assert pids(served)["main"] == before


@pytest.mark.usefixtures("main_pid")
@pytest.mark.parametrize("way", [[], ["--indirect", "--poll"]], ids=["sleeping", "polling, indirect"])
def test_every_block_is_right_while_the_engine_is_killed(served: Daemon, way: list[str]) -> None:
    command = [
        str(PROGRAM), "--socket", str(socket_of(served)), "--verify", "--queues", "2", "--depth", "8", "--json",
        "--seconds", "3600", "--reconnect", str(scaled(60.0)), *way,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as guest:
        pid = wait_for_use(served, guest, 0)
        for _ in range(KILLS):
            kill(pid)
            pid = wait_for_use(served, guest, pid)
        guest.send_signal(signal.SIGTERM)
        said, complaint = guest.communicate(timeout=scaled(60.0))
    assert guest.returncode == 0, complaint
    assert json.loads(said)["reconnects"] == KILLS


@pytest.mark.usefixtures("main_pid")
def test_a_vmm_that_takes_its_memory_away_harms_its_own_engine_at_most(served: Daemon) -> None:
    with vhost.disk_of(socket_of(served)) as disk:
        for number in range(8):
            at = vhost.Ring.FREE + vhost.PAGE + number * (80 << 10)
            disk.ring.offer(disk.chain(vhost.OUT, number * 128, os.urandom(1 << 16), first=number * 3, at=at))
        os.ftruncate(disk.memory.fd, 0)
        disk.ring.kick()
        disk.front.wait_closed()
    with vhost.disk_of(socket_of(served)) as disk:
        disk.run(vhost.OUT, 0, b"again" + bytes(507))
        assert disk.run(vhost.IN, 0, 5 + 507)[:5] == b"again"
