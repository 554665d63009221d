"""An emulated guest of QEMU with a disk by vhost-user-blk verifies what it has written while the engine is killed."""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.guest import machine
from tests.conftest import Daemon, kill, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES: Final = 4096
WRITERS: Final = 4
BLOCKS: Final = 32
ROUNDS: Final = 10
KILLED_AFTER: Final = 2

pytestmark = pytest.mark.skipif(bool(machine.missing()), reason=machine.missing())


@pytest.fixture(name="served")
def served_fixture() -> Iterator[Daemon]:
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    daemon = Daemon(base)
    (daemon.path / "disk").write_bytes(bytes(WRITERS * BLOCKS * BLOCK_BYTES))
    vhost = {"socket": str(daemon.runtime_dir / "disk.sock"), "export": "scratch", "path": "disk"}
    daemon.write_config({"vhost.disk": vhost})
    daemon.start()
    yield daemon
    daemon.destroy()
    shutil.rmtree(base, ignore_errors=True)


def checksum(number: int, version: int, words: tuple[int, ...]) -> int:
    """That of guest.c."""
    total = 0xCBF29CE484222325 ^ number
    for word in (version, *words):
        total = (total ^ word) * 0x100000001B3 % 2**64
    return total


def verify(file: Path) -> None:
    """Every block is that of the last round."""
    with file.open("rb") as disk:
        for expected in range(WRITERS * BLOCKS):
            number, version, said, *words = struct.unpack(f"<{BLOCK_BYTES // 8}Q", disk.read(BLOCK_BYTES))
            assert (number, version) == (expected, ROUNDS)
            assert said == checksum(number, version, tuple(words))


@pytest.mark.timeout(240)
def test_a_guest_verifies_its_disk_while_the_engine_is_killed(served: Daemon, tmp_path: Path) -> None:
    program = machine.compile_init(Path(__file__).parent / "guest.c", tmp_path / "init")
    disk = machine.vhost_disk(served.runtime_dir / "disk.sock", queues=2)
    environment = {"ROUNDS": ROUNDS, "WRITERS": WRITERS, "BLOCKS": BLOCKS}
    with machine.guest(program, disk, environment) as guest:
        wait_until(
            lambda: f"guest: round {KILLED_AFTER}" in guest.console or not guest.running, "the guest writes", 90.0
        )
        (served_disk,) = served.json("vhost")["disks"]
        kill(served_disk["pid"])
        wait_until(lambda: not guest.running, "the guest ends", 90.0)
        assert f"guest: verified {WRITERS * BLOCKS} blocks" in guest.console
        assert "FAILED" not in guest.console
    wait_until(lambda: served.json("vhost")["disks"][0]["restarts"] == 1, "the engine was replaced")
    verify(served.path / "disk")
