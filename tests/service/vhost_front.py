"""A VMM and its guest's virtio-blk driver, in small: every message and every byte of a ring can be made wrong.

`Front` is the connection of a VMM, `Memory` a region of guest memory, `Ring` a split virtqueue in it. `Disk` joins them
into a device that works, for the tests that change one thing of it. The names and layouts are those of the vhost-user
specification and of virtio 1.2.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PAGE: Final = 4096
SECTOR: Final = 512
GUEST_BASE: Final = 1 << 32
USER_BASE: Final = 1 << 40
"""The VMM's addresses need not be those of this process: a server only compares them with the memory table."""


class Message(IntEnum):
    """Requests of a front end."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38


VERSION: Final = 1
REPLY: Final = 4
NEED_REPLY: Final = 8

VERSION_1: Final = 1 << 32
PROTOCOL_FEATURES: Final = 1 << 30
EVENT_INDEX: Final = 1 << 29
INDIRECT: Final = 1 << 28
BLK_FLUSH: Final = 1 << 9
BLK_DISCARD: Final = 1 << 13
BLK_WRITE_ZEROES: Final = 1 << 14

MQ: Final = 1 << 0
REPLY_ACK: Final = 1 << 3
CONFIG: Final = 1 << 9
INFLIGHT_SHMFD: Final = 1 << 12
CONFIGURE_MEM_SLOTS: Final = 1 << 15

HEADER: Final = struct.Struct("=III")
U64: Final = struct.Struct("=Q")
STATE: Final = struct.Struct("=II")
REGION: Final = struct.Struct("=QQQQ")
ADDRESS: Final = struct.Struct("=IIQQQQ")
INFLIGHT: Final = struct.Struct("=QQHH4x")
DESCRIPTOR: Final = struct.Struct("<QIHH")
USED: Final = struct.Struct("<II")
REQUEST: Final = struct.Struct("<IIQ")

NEXT: Final = 1
WRITE: Final = 2
TABLE: Final = 4

IN: Final = 0
OUT: Final = 1
FLUSH: Final = 4
GET_ID: Final = 8
OK: Final = 0


class RefusedError(Exception):
    """The server has refused a message, or has closed the connection."""


class Front:
    """The connection of a VMM to a server."""

    def __init__(self, path: Path | str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(scaled(60.0))
        self.socket.connect(str(path))
        self.acknowledged = False

    def close(self) -> None:
        """End the connection, as a VMM that dies does."""
        self.socket.close()

    def send(
        self,
        message: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        *,
        flags: int = VERSION,
        size: int | None = None,
    ) -> None:
        """Send one message; `size` is what its header says of the payload."""
        header = HEADER.pack(message, flags, len(payload) if size is None else size)
        try:
            socket.send_fds(self.socket, [header + payload], list(fds))
        except OSError as error:
            raise RefusedError(str(error)) from error

    def receive(self) -> tuple[int, bytes, list[int]]:
        """The next message of the server: its request, payload and descriptors."""
        try:
            head, fds, _, _ = socket.recv_fds(self.socket, HEADER.size, 8)
            while head and len(head) < HEADER.size:
                head += self.socket.recv(HEADER.size - len(head))
            if not head:
                raise RefusedError("the server has closed the connection")
            message, flags, size = HEADER.unpack(head)
            assert flags & REPLY
            payload = b""
            while len(payload) < size:
                payload += self.socket.recv(size - len(payload))
        except ConnectionError as error:
            raise RefusedError(str(error)) from error
        return message, payload, list(fds)

    def ask(self, message: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """The payload of the answer to a message that has one; descriptors in it are closed."""
        self.send(message, payload, fds)
        answered, reply, received = self.receive()
        for fd in received:
            os.close(fd)
        assert answered == message
        return reply

    def number(self, message: int) -> int:
        """The number that a question is answered with."""
        return int(U64.unpack(self.ask(message))[0])

    def tell(self, message: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a message without an answer of its own, and wait until it took effect. RefusedError if it is refused."""
        self.send(message, payload, fds, flags=VERSION | (NEED_REPLY if self.acknowledged else 0))
        if self.acknowledged:
            _, reply, _ = self.receive()
            if U64.unpack(reply)[0]:
                raise RefusedError(f"{message!r}: {U64.unpack(reply)[0]}")

    def negotiate(self, features: int = VERSION_1 | PROTOCOL_FEATURES | BLK_FLUSH) -> int:
        """Agree on features, as far as the server offers them; the protocol features."""
        self.features = features & self.number(Message.GET_FEATURES)
        protocol = self.number(Message.GET_PROTOCOL_FEATURES)
        protocol &= MQ | REPLY_ACK | CONFIG | INFLIGHT_SHMFD | CONFIGURE_MEM_SLOTS
        self.send(Message.SET_PROTOCOL_FEATURES, U64.pack(protocol))
        self.acknowledged = bool(protocol & REPLY_ACK)
        self.tell(Message.SET_OWNER)
        self.tell(Message.SET_FEATURES, U64.pack(self.features))
        return protocol

    def wait_closed(self) -> None:
        """Read until the server has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(4096):
                pass


class Memory:
    """One region of guest memory, of zeroes."""

    def __init__(self, size: int, guest: int = GUEST_BASE, user: int = USER_BASE) -> None:
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        self.bytes = mmap.mmap(self.fd, size)
        self.guest = guest
        self.user = user
        self.size = size

    def close(self) -> None:
        """Unmap it here."""
        self.bytes.close()
        os.close(self.fd)

    @property
    def region(self) -> bytes:
        """Its entry of a memory table."""
        return REGION.pack(self.guest, self.size, self.user, 0)


def memory_table(*regions: bytes) -> bytes:
    """The payload of SET_MEM_TABLE."""
    return STATE.pack(len(regions), 0) + b"".join(regions)


class Completion(NamedTuple):
    """An entry of the used ring."""

    head: int
    written: int


class Ring:
    """A split virtqueue at the beginning of `memory`: descriptors, available ring, used ring, each on its own page."""

    DESCRIPTORS: Final = 0
    AVAILABLE: Final = PAGE
    USED: Final = 2 * PAGE
    FREE: Final = 4 * PAGE
    """Memory from here on belongs to the test."""

    def __init__(self, memory: Memory, size: int = 64, at: int = 0) -> None:
        self.memory = memory
        self.size = size
        self.at = at
        self.kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.call_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.available = 0
        self.seen = 0

    def close(self) -> None:
        """Close its eventfds."""
        os.close(self.kick_fd)
        os.close(self.call_fd)

    def addresses(self, index: int = 0) -> bytes:
        """The payload of SET_VRING_ADDR."""
        base = self.memory.user + self.at
        return ADDRESS.pack(index, 0, base + self.DESCRIPTORS, base + self.USED, base + self.AVAILABLE, 0)

    def put(self, offset: int, data: bytes) -> None:
        """Write into the ring."""
        self.memory.bytes[self.at + offset : self.at + offset + len(data)] = data

    def descriptor(self, number: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        """Set one descriptor."""
        self.put(self.DESCRIPTORS + number * DESCRIPTOR.size, DESCRIPTOR.pack(address, length, flags, following))

    def offer(self, *heads: int) -> None:
        """Make chains available, without a kick."""
        for head in heads:
            self.put(self.AVAILABLE + 4 + self.available % self.size * 2, struct.pack("<H", head))
            self.available = (self.available + 1) % 65536
        self.set_available(self.available)

    def set_available(self, index: int) -> None:
        """Write the index of the available ring, whatever was made available."""
        self.put(self.AVAILABLE + 2, struct.pack("<H", index))

    def kick(self) -> None:
        """Kick the server."""
        os.eventfd_write(self.kick_fd, 1)

    @property
    def used(self) -> int:
        """The index of the used ring."""
        return int(struct.unpack_from("<H", self.memory.bytes, self.at + self.USED + 2)[0])

    def reap(self) -> list[Completion]:
        """The completions since the last call."""
        found = []
        while self.seen != self.used:
            offset = self.at + self.USED + 4 + self.seen % self.size * USED.size
            found.append(Completion(*USED.unpack_from(self.memory.bytes, offset)))
            self.seen = (self.seen + 1) % 65536
        return found

    def wait(self, count: int) -> list[Completion]:
        """That many completions."""
        found: list[Completion] = []

        def enough() -> bool:
            found.extend(self.reap())
            return len(found) >= count

        wait_until(enough, f"{count} completions")
        return found

    def called(self, timeout_s: float = 60.0) -> bool:
        """Whether the server calls within that time."""
        if not select.select([self.call_fd], [], [], scaled(timeout_s))[0]:
            return False
        os.eventfd_read(self.call_fd)
        return True


class Disk:
    """A device that works, with one queue in one region of memory."""

    SIZE: Final = 4 << 20

    def __init__(self, path: Path | str, *, features: int = VERSION_1 | PROTOCOL_FEATURES | BLK_FLUSH) -> None:
        self.front = Front(path)
        self.protocol = self.front.negotiate(features)
        self.memory = Memory(self.SIZE)
        self.ring = Ring(self.memory)
        self.inflight_fd = -1

    def close(self) -> None:
        """End the connection and free the memory."""
        self.front.close()
        self.ring.close()
        self.memory.close()
        if self.inflight_fd >= 0:
            os.close(self.inflight_fd)

    def start(self) -> Disk:
        """Share the memory and start the queue."""
        self.front.tell(Message.SET_MEM_TABLE, memory_table(self.memory.region), [self.memory.fd])
        self.start_ring()
        return self

    def share_inflight(self, queues: int = 1) -> None:
        """Ask the server for the memory of requests in flight, and give it back, as a VMM does."""
        self.front.send(Message.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, queues, self.ring.size))
        _, reply, fds = self.front.receive()
        (self.inflight_fd,) = fds
        self.front.tell(Message.SET_INFLIGHT_FD, reply, fds)

    def start_ring(self, base: int = 0) -> None:
        """Start the queue."""
        tell = self.front.tell
        tell(Message.SET_VRING_NUM, STATE.pack(0, self.ring.size))
        tell(Message.SET_VRING_BASE, STATE.pack(0, base))
        tell(Message.SET_VRING_ADDR, self.ring.addresses())
        tell(Message.SET_VRING_CALL, U64.pack(0), [self.ring.call_fd])
        tell(Message.SET_VRING_KICK, U64.pack(0), [self.ring.kick_fd])
        tell(Message.SET_VRING_ENABLE, STATE.pack(0, 1))

    def stop_ring(self) -> int:
        """Stop the queue; the index that it has come to."""
        return int(STATE.unpack(self.front.ask(Message.GET_VRING_BASE, STATE.pack(0, 0)))[1])

    def guest(self, offset: int) -> int:
        """The guest's address of a place in the memory."""
        return self.memory.guest + offset

    def chain(self, kind: int, sector: int, data: bytes | int, *, first: int = 0, at: int = Ring.FREE) -> int:
        """Write a request into the memory at `at`: data to write, or how many bytes to read. Returns its head."""
        size = data if isinstance(data, int) else len(data)
        status, place = at + 64, at + 128
        self.memory.bytes[at : at + REQUEST.size] = REQUEST.pack(kind, 0, sector)
        self.memory.bytes[status] = 0xFF
        if isinstance(data, bytes):
            self.memory.bytes[place : place + size] = data
        self.ring.descriptor(first, self.guest(at), REQUEST.size, NEXT, first + 1 if size else first + 2)
        if size:
            way = WRITE if isinstance(data, int) else 0
            self.ring.descriptor(first + 1, self.guest(place), size, NEXT | way, first + 2)
        self.ring.descriptor(first + 2, self.guest(status), 1, WRITE)
        return first

    def run(self, kind: int, sector: int, data: bytes | int = b"") -> bytes:
        """One request, from its submission to its completion; the bytes that were read."""
        self.ring.offer(self.chain(kind, sector, data))
        self.ring.kick()
        self.ring.wait(1)
        assert self.memory.bytes[Ring.FREE + 64] == OK
        size = data if isinstance(data, int) else 0
        return bytes(self.memory.bytes[Ring.FREE + 128 : Ring.FREE + 128 + size])


@contextlib.contextmanager
def disk_of(path: Path | str, **options: int) -> Iterator[Disk]:
    """A device that works, and is closed at the end."""
    disk = Disk(path, **options)
    try:
        yield disk.start()
    finally:
        disk.close()


def readable(fd: int) -> bool:
    """Whether the descriptor can be read without waiting."""
    return bool(select.select([fd], [], [], 0)[0])
