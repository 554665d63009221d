"""Hostile VMMs and guests: they are refused or lose their device, and harm nobody else.

After each attack a well-behaved VMM has the disk, and the engine of the disk and the main engine are the same processes
as before.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import struct
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.conftest import Daemon, wait_until
from tests.patience import rounds
from tests.service import vhost_front as vhost
from tests.service.vhost_front import (
    GUEST_BASE,
    NEXT,
    PAGE,
    TABLE,
    USER_BASE,
    WRITE,
    Disk,
    Front,
    Message,
    RefusedError,
    Ring,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DISK_BYTES: Final = 4 << 20
SECTORS: Final = DISK_BYTES // vhost.SECTOR


class Served:
    """A daemon with a disk for a guest."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.socket = daemon.runtime_dir / "disk.sock"
        self.file = daemon.path / "disk"

    def pids(self) -> dict[str, int]:
        """The process of each engine."""
        return {engine["name"]: engine["pid"] for engine in self.daemon.json("stats")["engines"]}

    @property
    def pid(self) -> int:
        """The process of the disk's engine."""
        return self.pids()["vhost-disk"]

    def connect(self) -> Disk:
        """A device that works, but was not started. Waits until the device is free of the VMM before."""
        return Disk(self.socket)

    def works(self) -> None:
        """A well-behaved VMM has the disk."""
        with vhost.disk_of(self.socket) as disk:
            block = os.urandom(4096)
            disk.run(vhost.OUT, 64, block)
            assert disk.run(vhost.IN, 64, 4096) == block


@pytest.fixture(scope="module", name="served")
def served_fixture() -> Iterator[Served]:
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    daemon = Daemon(base)
    served = Served(daemon)
    daemon.write_config({"vhost.disk": {"socket": str(served.socket), "export": "scratch", "path": "disk"}})
    served.file.write_bytes(bytes(DISK_BYTES))
    daemon.start()
    yield served
    daemon.destroy()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(autouse=True)
def _unharmed(served: Served) -> Iterator[None]:
    """The disk works after each test, and no engine was replaced."""
    before = served.pids()
    yield
    served.works()
    assert served.pids() == before


@pytest.fixture(name="disk")
def disk_fixture(served: Served) -> Iterator[Disk]:
    """A device that works."""
    with vhost.disk_of(served.socket) as disk:
        yield disk


# ---- a guest that breaks its ring -----------------------------------------------------------------------------------


def whole(disk: Disk) -> int:
    """A request that is right: a read of one block."""
    return disk.chain(vhost.IN, 0, 4096)


def loop(disk: Disk) -> int:
    """A chain without an end."""
    disk.ring.descriptor(0, disk.guest(Ring.FREE), 16, NEXT, 1)
    disk.ring.descriptor(1, disk.guest(Ring.FREE), 16, NEXT, 0)
    return 0


def loop_of_one(disk: Disk) -> int:
    """A descriptor that follows itself."""
    disk.ring.descriptor(0, disk.guest(Ring.FREE), 16, NEXT, 0)
    return 0


def changed(number: int, address: int, length: int, flags: int = 0, following: int = 0) -> Callable[[Disk], int]:
    """A read of one block with another descriptor in the place of one of its three."""

    def change(disk: Disk) -> int:
        head = whole(disk)
        disk.ring.descriptor(number, address, length, flags, following)
        return head

    return change


INSIDE: Final = GUEST_BASE + Ring.FREE + 128
OUTSIDE: Final = GUEST_BASE + Disk.SIZE
TABLE_AT: Final = Ring.FREE + PAGE


def table(*descriptors: tuple[int, int, int, int], length: int | None = None) -> Callable[[Disk], int]:
    """An indirect table, whose descriptor has another length than it should."""

    def make(disk: Disk) -> int:
        packed = b"".join(vhost.DESCRIPTOR.pack(*each) for each in descriptors)
        disk.ring.put(TABLE_AT, packed)
        disk.ring.descriptor(0, disk.guest(TABLE_AT), len(packed) if length is None else length, TABLE)
        return 0

    return make


HEADER: Final = (GUEST_BASE + Ring.FREE, 16, NEXT, 1)
STATUS: Final = (GUEST_BASE + Ring.FREE + 64, 1, WRITE, 0)

RINGS: Final[dict[str, Callable[[Disk], int]]] = {
    "a loop": loop,
    "a loop of one": loop_of_one,
    "data outside of the memory": changed(1, OUTSIDE, 4096, NEXT | WRITE, 2),
    "data across the end of the memory": changed(1, OUTSIDE - 512, 4096, NEXT | WRITE, 2),
    "data of 4 GiB": changed(1, INSIDE, 0xFFFFFFFF, NEXT | WRITE, 2),
    "data that wraps around": changed(1, 2**64 - 512, 4096, NEXT | WRITE, 2),
    "data at address 0": changed(1, 0, 4096, NEXT | WRITE, 2),
    "the VMM's address instead of the guest's": changed(1, USER_BASE + Ring.FREE, 4096, NEXT | WRITE, 2),
    "a next descriptor out of range": changed(1, INSIDE, 4096, NEXT | WRITE, 64),
    "a next descriptor far out of range": changed(1, INSIDE, 4096, NEXT | WRITE, 0xFFFF),
    "no status": changed(2, INSIDE, 1, 0),
    "a status outside of the memory": changed(2, OUTSIDE, 1, WRITE),
    "a header of 15 bytes": changed(0, GUEST_BASE + Ring.FREE, 15, NEXT, 1),
    "a header that the device would write": changed(0, GUEST_BASE + Ring.FREE, 16, NEXT | WRITE, 1),
    "a buffer to read behind one to write": changed(2, INSIDE, 16, 0),
    "a head out of range": lambda _disk: 64,
    "a head far out of range": lambda _disk: 0xFFFF,
    "a table that nobody agreed on": table(HEADER, STATUS),
}


@contextlib.contextmanager
def error_fd_of(disk: Disk) -> Iterator[int]:
    """The eventfd by which the VMM hears that its guest has broken the ring."""
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        disk.front.tell(Message.SET_VRING_ERR, vhost.U64.pack(0), [fd])
        yield fd
    finally:
        os.close(fd)


def breaks(disk: Disk, make: Callable[[Disk], int]) -> None:
    """The queue is served no more, and the VMM hears of it."""
    with error_fd_of(disk) as error_fd:
        disk.ring.offer(make(disk))
        disk.ring.kick()
        wait_until(lambda: vhost.readable(error_fd), "the VMM hears that its guest broke the ring")
    assert disk.ring.reap() == []


@pytest.mark.parametrize("make", RINGS.values(), ids=RINGS.keys())
def test_a_guest_that_breaks_its_ring_is_served_no_more(disk: Disk, make: Callable[[Disk], int]) -> None:
    breaks(disk, make)
    disk.ring.offer(whole(disk))
    disk.ring.kick()
    assert disk.stop_ring() <= 2  # the device answers, and the queue was stopped
    assert disk.ring.reap() == []


def followed_table(disk: Disk) -> int:
    """A descriptor of a table that is not the last one of its chain."""
    table(HEADER, STATUS)(disk)
    disk.ring.descriptor(0, disk.guest(TABLE_AT), 32, TABLE | NEXT, 1)
    return 0


TABLES: Final[dict[str, Callable[[Disk], int]]] = {
    "in a table": table(HEADER, (GUEST_BASE + TABLE_AT, 32, TABLE, 0)),
    "of 15 bytes": table(HEADER, STATUS, length=15),
    "of a descriptor and a half": table(HEADER, STATUS, length=24),
    "without a byte": table(HEADER, STATUS, length=0),
    "of 4 GiB": table(HEADER, STATUS, length=0xFFFFFFF0),
    "with a loop": table(HEADER, (INSIDE, 512, NEXT | WRITE, 0)),
    "with a descriptor out of range": table(HEADER, (INSIDE, 512, NEXT | WRITE, 2)),
    "that a descriptor follows": followed_table,
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES.keys())
def test_an_indirect_table_that_breaks_a_rule_ends_the_service(served: Served, make: Callable[[Disk], int]) -> None:
    features = vhost.VERSION_1 | vhost.PROTOCOL_FEATURES | vhost.INDIRECT
    with vhost.disk_of(served.socket, features=features) as disk:
        breaks(disk, make)


def test_a_right_indirect_table_is_served(served: Served) -> None:
    features = vhost.VERSION_1 | vhost.PROTOCOL_FEATURES | vhost.INDIRECT
    with vhost.disk_of(served.socket, features=features) as disk:
        disk.memory.bytes[Ring.FREE : Ring.FREE + 16] = vhost.REQUEST.pack(vhost.IN, 0, 0)
        disk.ring.offer(table(HEADER, (INSIDE, 512, NEXT | WRITE, 2), STATUS)(disk))
        disk.ring.kick()
        assert disk.ring.wait(1) == [(0, 513)]


@pytest.mark.parametrize("jump", [65, 1000, 0x8000, 0xFFFF])
def test_an_index_that_jumps_breaks_the_ring(disk: Disk, jump: int) -> None:
    def make(disk: Disk) -> int:
        disk.ring.available = jump - 1
        return whole(disk)

    breaks(disk, make)


def test_a_head_that_is_in_flight_twice_is_taken_once(disk: Disk) -> None:
    with error_fd_of(disk) as error_fd:
        disk.ring.offer(*[disk.chain(vhost.OUT, 0, bytes(1 << 20))] * 8)
        disk.ring.kick()
        wait_until(lambda: disk.ring.used == 8 or vhost.readable(error_fd), "one is refused, or each came later")


@pytest.mark.parametrize(
    ("kind", "sector", "data", "status"),
    [
        (vhost.IN, SECTORS, 512, 1),
        (vhost.IN, SECTORS - 1, 1024, 1),
        (vhost.IN, 2**64 - 1, 512, 1),
        (vhost.IN, 2**55, 512, 1),
        (vhost.OUT, SECTORS, bytes(512), 1),
        (vhost.OUT, 2**63, bytes(512), 1),
        (vhost.IN, 0, 511, 1),
        (vhost.OUT, 0, bytes(100), 1),
        (3, 0, 512, 2),
        (0xFFFFFFFF, 0, bytes(512), 2),
    ],
)
def test_a_request_that_is_wrong_fails_alone(
    disk: Disk, kind: int, sector: int, data: bytes | int, status: int
) -> None:
    disk.ring.offer(disk.chain(kind, sector, data))
    disk.ring.kick()
    disk.ring.wait(1)
    assert disk.memory.bytes[Ring.FREE + 64] == status
    disk.run(vhost.FLUSH, 0)


def test_random_rings_harm_nobody(served: Served) -> None:
    for seed in range(rounds(40)):
        chance = random.Random(seed)  # noqa: S311 - repeatable
        features = vhost.VERSION_1 | vhost.PROTOCOL_FEATURES | chance.choice([0, vhost.INDIRECT | vhost.EVENT_INDEX])
        with vhost.disk_of(served.socket, features=features) as disk:
            for _ in range(chance.randrange(1, 8)):
                make_something(disk, chance)
                disk.ring.kick()
                disk.ring.reap()


def make_something(disk: Disk, chance: random.Random) -> None:
    """Change the ring: a few right requests, then descriptors, tables, heads and the index by chance."""
    addresses = (0, GUEST_BASE, INSIDE, OUTSIDE - 1, OUTSIDE, USER_BASE, 2**64 - 1, GUEST_BASE + chance.randrange(PAGE))
    lengths = (0, 1, 15, 16, 17, 48, 512, 4096, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF)
    for number in range(0, 30, 3):
        kind = chance.choice([vhost.IN, vhost.FLUSH, vhost.GET_ID, 11, 13, 99])
        disk.chain(kind, chance.choice([0, 1, SECTORS, 2**64 - 1]), chance.choice([0, 512, 4096]), first=number)
    for at in (Ring.DESCRIPTORS, TABLE_AT):
        for _ in range(chance.randrange(12)):
            packed = vhost.DESCRIPTOR.pack(
                chance.choice(addresses), chance.choice(lengths), chance.randrange(16), chance.randrange(66)
            )
            disk.ring.put(at + chance.randrange(64) * 16, packed)
    disk.ring.offer(*(chance.randrange(66) for _ in range(chance.randrange(1, 12))))
    if chance.random() < 0.2:
        disk.ring.set_available(chance.randrange(65536))


# ---- a VMM that sends what it should not ----------------------------------------------------------------------------


def refuses(served: Served, send: Callable[[Front], None]) -> None:
    """The message is refused, or ends the connection."""
    front = Front(served.socket)
    try:
        front.negotiate()
        with pytest.raises(RefusedError):
            send(front)
    finally:
        front.close()


MESSAGES: Final[dict[str, tuple[int, bytes]]] = {
    "an unknown request": (99, b""),
    "request 0": (0, b""),
    "the largest request": (0xFFFFFFFF, b""),
    "features of its own": (Message.SET_FEATURES, vhost.U64.pack(2**64 - 1)),
    "features without a payload": (Message.SET_FEATURES, b""),
    "protocol features of its own": (Message.SET_PROTOCOL_FEATURES, vhost.U64.pack(2**63)),
    "a queue of 0 entries": (Message.SET_VRING_NUM, vhost.STATE.pack(0, 0)),
    "a queue of 3 entries": (Message.SET_VRING_NUM, vhost.STATE.pack(0, 3)),
    "a queue of 65536 entries": (Message.SET_VRING_NUM, vhost.STATE.pack(0, 65536)),
    "a queue that is not there": (Message.SET_VRING_NUM, vhost.STATE.pack(64, 8)),
    "the largest queue": (Message.SET_VRING_ENABLE, vhost.STATE.pack(0xFFFFFFFF, 1)),
    "a kick without a descriptor": (Message.SET_VRING_KICK, vhost.U64.pack(0)),
    "no kick at all": (Message.SET_VRING_KICK, vhost.U64.pack(0x100)),
    "a call without a descriptor": (Message.SET_VRING_CALL, vhost.U64.pack(0)),
    "a table without descriptors": (Message.SET_MEM_TABLE, vhost.memory_table(vhost.REGION.pack(0, PAGE, 0, 0))),
    "a table of 4 G regions": (Message.SET_MEM_TABLE, vhost.STATE.pack(0xFFFFFFFF, 0)),
    "a region without a descriptor": (Message.ADD_MEM_REG, bytes(8) + vhost.REGION.pack(0, PAGE, 0, 0)),
    "the end of a region that is not there": (Message.REM_MEM_REG, bytes(8) + vhost.REGION.pack(0, PAGE, 0, 0)),
    "an inflight area without a descriptor": (Message.SET_INFLIGHT_FD, vhost.INFLIGHT.pack(4096, 0, 1, 64)),
    "a configuration to write": (Message.SET_CONFIG, struct.pack("=III", 0, 8, 0) + bytes(8)),
    "the largest message": (Message.SET_OWNER, bytes(1 << 16)),
}


@pytest.mark.parametrize(("message", "payload"), MESSAGES.values(), ids=MESSAGES.keys())
def test_a_message_that_is_wrong_is_refused(served: Served, message: int, payload: bytes) -> None:
    refuses(served, lambda front: front.tell(message, payload))


def test_a_descriptor_of_another_kind_is_refused(served: Served) -> None:
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as file, socket.socket() as connection:
        for fd in (reader, writer, file.fileno(), connection.fileno()):
            for message in (Message.SET_VRING_KICK, Message.SET_VRING_CALL, Message.SET_VRING_ERR):
                refuses(served, lambda front, m=message, fd=fd: front.tell(m, vhost.U64.pack(0), [fd]))  # type: ignore[misc]
    os.close(reader)
    os.close(writer)


def region(size: int = 2 * PAGE, guest: int = GUEST_BASE, user: int = USER_BASE, offset: int = 0) -> bytes:
    """An entry of a memory table."""
    return vhost.REGION.pack(guest, size, user, offset)


REGIONS: Final = {
    "larger than its file": [region(size=4 * PAGE)],
    "beyond its file": [region(offset=2 * PAGE)],
    "far beyond its file": [region(offset=2**63)],
    "of no bytes": [region(size=0)],
    "of all bytes": [region(size=2**64 - 1)],
    "that wraps around": [region(guest=2**64 - PAGE)],
    "whose VMM's addresses wrap around": [region(user=2**64 - PAGE)],
    "the same twice": [region(), region()],
    "that overlaps another": [region(), region(guest=GUEST_BASE + PAGE, user=USER_BASE + 8 * PAGE)],
    "whose VMM's addresses overlap": [region(), region(guest=GUEST_BASE + 8 * PAGE, user=USER_BASE + PAGE)],
}


@pytest.mark.parametrize("regions", REGIONS.values(), ids=REGIONS.keys())
def test_a_memory_table_that_is_wrong_is_refused(served: Served, regions: list[bytes]) -> None:
    memory = vhost.Memory(2 * PAGE)
    try:
        fds = [memory.fd] * len(regions)
        refuses(served, lambda front: front.tell(Message.SET_MEM_TABLE, vhost.memory_table(*regions), fds))
    finally:
        memory.close()


def test_memory_of_another_kind_is_refused(served: Served) -> None:
    reader, writer = os.pipe()
    directory = os.open("/tmp", os.O_RDONLY)
    try:
        for fd in (reader, writer, directory):
            refuses(served, lambda front, fd=fd: front.tell(Message.SET_MEM_TABLE, vhost.memory_table(region()), [fd]))  # type: ignore[misc]
    finally:
        for fd in (reader, writer, directory):
            os.close(fd)


def test_queues_outside_of_the_memory_are_refused(served: Served) -> None:
    for descriptors, used, available in (
        (USER_BASE + Disk.SIZE, USER_BASE, USER_BASE + PAGE),
        (USER_BASE, USER_BASE + Disk.SIZE - 16, USER_BASE + PAGE),
        (USER_BASE, USER_BASE + PAGE, 2**64 - 64),
        (USER_BASE + 1, USER_BASE + PAGE, USER_BASE + 2 * PAGE),
        (0, 0, 0),
    ):
        disk = served.connect()
        try:
            disk.front.tell(Message.SET_MEM_TABLE, vhost.memory_table(disk.memory.region), [disk.memory.fd])
            disk.front.tell(Message.SET_VRING_NUM, vhost.STATE.pack(0, 64))
            disk.front.tell(Message.SET_VRING_KICK, vhost.U64.pack(0), [disk.ring.kick_fd])
            with pytest.raises(RefusedError):
                disk.front.tell(Message.SET_VRING_ADDR, vhost.ADDRESS.pack(0, 0, descriptors, used, available, 0))
        finally:
            disk.close()


def test_random_messages_harm_nobody(served: Served) -> None:
    for seed in range(rounds(60)):
        disk = served.connect()
        chance = random.Random(seed)  # noqa: S311 - repeatable
        try:
            if chance.random() < 0.5:
                disk.start()
            with contextlib.suppress(RefusedError):
                for _ in range(chance.randrange(1, 20)):
                    send_something(disk, chance)
        finally:
            disk.close()


def send_something(disk: Disk, chance: random.Random) -> None:
    """A message by chance: a right one, one with other numbers, or bytes."""
    fds = [chance.choice([disk.memory.fd, disk.ring.kick_fd, disk.ring.call_fd]) for _ in range(chance.randrange(3))]
    numbers = (0, 1, 8, 64, 65, PAGE, GUEST_BASE, USER_BASE, disk.SIZE, 2**63, 2**64 - 1)
    payload = chance.choice([
        b"",
        vhost.STATE.pack(chance.randrange(10), chance.choice([0, 1, 64, 65536])),
        vhost.U64.pack(chance.choice(numbers)),
        vhost.memory_table(disk.memory.region),
        vhost.memory_table(*(vhost.REGION.pack(*chance.choices(numbers, k=4)) for _ in range(chance.randrange(9)))),
        disk.ring.addresses(chance.randrange(2)),
        bytes(8) + disk.memory.region,
        vhost.INFLIGHT.pack(*chance.choices(numbers, k=2), chance.randrange(3), chance.randrange(66)),
        chance.randbytes(chance.randrange(60)),
    ])  # fmt: skip
    flags = chance.choice([vhost.VERSION] * 6 + [vhost.VERSION | vhost.NEED_REPLY, 0, 5, 0xFFFFFFFF])
    size = chance.choice([None] * 8 + [0, 7, 300, 0xFFFFFFFF])
    disk.front.send(chance.choice(list(Message)), payload, fds, flags=flags, size=size)
    if chance.random() < 0.3:
        disk.ring.offer(whole(disk))
        disk.ring.kick()


# ---- memory that changes while requests run -------------------------------------------------------------------------


def keep_busy(disk: Disk, count: int = 16) -> None:
    """Requests in flight: writes of 64 KiB."""
    for number in range(count):
        at = Ring.FREE + PAGE + number * (80 << 10)
        disk.ring.offer(disk.chain(vhost.OUT, number * 128, os.urandom(1 << 16), first=number * 3, at=at))
    disk.ring.kick()


def test_memory_that_is_mapped_anew_while_requests_run_is_followed(disk: Disk) -> None:
    more = vhost.Memory(1 << 20, GUEST_BASE + (1 << 30), USER_BASE + (1 << 30))
    try:
        for turn in range(rounds(30)):
            keep_busy(disk)
            memories = [more, disk.memory] if turn % 2 else [disk.memory]
            regions = vhost.memory_table(*(memory.region for memory in memories))
            disk.front.tell(Message.SET_MEM_TABLE, regions, [memory.fd for memory in memories])
            disk.ring.wait(16)
    finally:
        more.close()
    disk.run(vhost.FLUSH, 0)


def test_memory_that_moves_away_from_under_the_queue_is_refused(disk: Disk) -> None:
    moved = vhost.REGION.pack(GUEST_BASE, disk.SIZE, USER_BASE + disk.SIZE, 0)
    with pytest.raises(RefusedError):
        disk.front.tell(Message.SET_MEM_TABLE, vhost.memory_table(moved), [disk.memory.fd])
    disk.run(vhost.FLUSH, 0)


def test_memory_is_added_and_removed_while_requests_run(disk: Disk) -> None:
    more = vhost.Memory(1 << 20, GUEST_BASE + (1 << 30), USER_BASE + (1 << 30))
    try:
        for _ in range(rounds(20)):
            keep_busy(disk)
            disk.front.tell(Message.ADD_MEM_REG, bytes(8) + more.region, [more.fd])
            head = disk.chain(vhost.OUT, 0, bytes(512), first=60)
            disk.ring.descriptor(61, more.guest, 4096, NEXT, 62)
            disk.ring.offer(head)
            disk.ring.kick()
            disk.ring.wait(17)
            disk.front.tell(Message.REM_MEM_REG, bytes(8) + more.region)
    finally:
        more.close()


def test_memory_that_requests_use_may_go(disk: Disk) -> None:
    """A request in flight keeps its memory; the queue's own memory cannot go."""
    keep_busy(disk)
    with pytest.raises(RefusedError):
        disk.front.tell(Message.REM_MEM_REG, bytes(8) + disk.memory.region)
    disk.ring.wait(16)
    assert disk.run(vhost.IN, 0, 512)


def test_a_memory_table_that_shrinks_while_requests_run_is_refused_or_breaks_the_ring(served: Served) -> None:
    with vhost.disk_of(served.socket) as disk:
        keep_busy(disk)
        small = vhost.REGION.pack(GUEST_BASE, 4 * PAGE, USER_BASE, 0)  # the rings only
        disk.front.tell(Message.SET_MEM_TABLE, vhost.memory_table(small), [disk.memory.fd])
        disk.front.number(Message.GET_FEATURES)


# ---- VMMs that die, and more than one -------------------------------------------------------------------------------


def open_files(pid: int) -> int:
    """Number of descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def guest_mappings(pid: int) -> int:
    """Number of mappings of a process that are memory of guests or of requests in flight."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return maps.count("memfd:guest") + maps.count("inflight")


def test_a_vmm_that_dies_with_requests_in_flight_leaves_nothing(served: Served) -> None:
    pid = served.pid
    served.works()
    wait_until(lambda: guest_mappings(pid) == 0, "the memory of the last guest is unmapped")
    before = open_files(pid)
    for _ in range(rounds(30)):
        disk = served.connect()
        disk.share_inflight()
        keep_busy(disk.start())
        disk.close()
    wait_until(lambda: guest_mappings(pid) == 0, "the memory of all guests is unmapped")
    wait_until(lambda: open_files(pid) <= before, "all descriptors are closed")


def test_a_second_vmm_is_refused_and_the_first_is_served(disk: Disk, served: Served) -> None:
    disk.run(vhost.OUT, 0, b"first" + bytes(507))
    other = Front(served.socket)
    try:
        with pytest.raises(RefusedError):
            other.number(Message.GET_FEATURES)
    finally:
        other.close()
    assert disk.run(vhost.IN, 0, 512)[:5] == b"first"


def test_a_vmm_that_sends_half_a_message_can_be_replaced(served: Served) -> None:
    front = Front(served.socket)
    front.socket.sendall(vhost.HEADER.pack(Message.SET_FEATURES, vhost.VERSION, 8)[:7])
    front.close()


def test_a_vmm_that_does_not_read_its_replies_is_left(served: Served) -> None:
    front = Front(served.socket)

    def ask_without_end() -> None:
        while True:
            front.send(Message.GET_FEATURES)

    try:
        with pytest.raises(RefusedError):
            ask_without_end()
    finally:
        front.close()


def test_kicks_without_end_and_without_requests_harm_nobody(disk: Disk, served: Served) -> None:
    ended = threading.Event()

    def kick() -> None:
        while not ended.is_set():
            disk.ring.kick()

    kicking = threading.Thread(target=kick)
    kicking.start()
    try:
        for _ in range(50):
            disk.run(vhost.IN, 0, 512)
        assert served.daemon.json("ping")
    finally:
        ended.set()
        kicking.join()


def test_an_eventfd_that_blocks_and_is_full_blocks_nobody(served: Served) -> None:
    disk = served.connect()
    try:
        os.eventfd_write(disk.ring.call_fd, 2**64 - 2)
        os.set_blocking(disk.ring.call_fd, True)
        disk.start()
        disk.run(vhost.IN, 0, 512)
    finally:
        disk.close()


def fill(fd: int) -> None:
    """Make an eventfd one that blocks, and full: the next write() waits until somebody reads it."""
    while True:
        os.set_blocking(fd, False)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(fd)
        with contextlib.suppress(BlockingIOError):  # the engine has signalled in between
            os.eventfd_write(fd, 2**64 - 2)
            os.set_blocking(fd, True)
            return


def test_an_eventfd_that_blocks_later_and_is_full_blocks_nobody(served: Served) -> None:
    """The VMM shares the flag O_NONBLOCK of the open file, and clears it when the engine has looked."""
    with vhost.disk_of(served.socket) as disk, error_fd_of(disk) as error_fd:
        for _ in range(20):
            fill(disk.ring.call_fd)
            disk.run(vhost.IN, 0, 512)
        assert disk.ring.called()
        disk.run(vhost.IN, 0, 512)
        assert disk.ring.called()
        fill(error_fd)
        disk.ring.offer(64)  # a head that is out of range
        disk.ring.kick()
        served.daemon.wait_logged("the guest broke virtqueue 0")
        assert disk.front.number(Message.GET_FEATURES)


def test_an_area_of_requests_in_flight_that_lies_harms_nobody(served: Served) -> None:
    for seed in range(rounds(20)):
        disk = served.connect()
        try:
            disk.share_inflight()
            size = os.fstat(disk.inflight_fd).st_size
            chance = random.Random(seed)  # noqa: S311 - repeatable
            os.pwrite(disk.inflight_fd, chance.randbytes(size), 0)
            # version 1, as many entries as the queue has: so the lies are believed
            os.pwrite(disk.inflight_fd, struct.pack("<QHHHH", 0, 1, 64, chance.randrange(66), chance.randrange(66)), 0)
            whole(disk)
            disk.start()
            disk.ring.kick()
            disk.front.number(Message.GET_FEATURES)
        finally:
            disk.close()
