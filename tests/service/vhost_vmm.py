"""A VMM and the virtio-blk driver of its guest, with one virtqueue: the front end of vhost-user-blk, for tests."""

from __future__ import annotations

import array
import mmap
import os
import select
import socket
import struct
import time
from typing import Final

GET_FEATURES, SET_FEATURES, SET_MEM_TABLE = 1, 2, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL = 12, 13
SET_PROTOCOL_FEATURES, SET_VRING_ENABLE, SET_BACKEND_REQ_FD, GET_CONFIG = 16, 18, 21, 24
GET_INFLIGHT_FD, SET_INFLIGHT_FD = 31, 32

READ, WRITE, FLUSH, GET_ID = 0, 1, 4, 8
OK, FAILED = 0, 1
CONFIG_CHANGED: Final = 2

_PROTOCOL_FEATURES: Final = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 12
_BYTES: Final = 1 << 20
_GUEST, _USER = 0x40000000, 0x7F0000000000
_SIZE: Final = 16
_AVAILABLE, _USED, _HEADERS, _STATUSES, _DATA = 0x1000, 0x2000, 0x3000, 0x4000, 0x10000
_PAGE: Final = 4096
_WRITES, _NEXT = 2, 1


class Front:
    """One VMM. `connect` starts the queue, also with another engine after the death of the first."""

    def __init__(self, path: str) -> None:
        """`path` is the socket of the disk."""
        self._path = path
        self._memory_fd = os.memfd_create("guest")
        os.ftruncate(self._memory_fd, _BYTES)
        self._memory = mmap.mmap(self._memory_fd, _BYTES)
        self._kick = os.eventfd(0, os.EFD_NONBLOCK)
        self._call = os.eventfd(0, os.EFD_NONBLOCK)
        self._inflight_fd = -1
        self._inflight = b""
        self._available = 0
        self._seen = 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.news, self._news_end = socket.socketpair()
        """What the device sends by itself."""

    def close(self) -> None:
        """End the VMM."""
        self.socket.close()
        self.news.close()
        self._news_end.close()
        self._memory.close()
        for fd in (self._memory_fd, self._kick, self._call, *([self._inflight_fd] if self._inflight_fd >= 0 else [])):
            os.close(fd)

    # ---- messages

    def send(self, kind: int, payload: bytes = b"", fd: int = -1) -> None:
        """Send a message."""
        fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        self.socket.sendmsg([struct.pack("=III", kind, 1, len(payload)) + payload], fds)

    def answer(self) -> tuple[bytes, list[int]]:
        """The payload and the descriptors of the next answer; ConnectionError if there is none."""
        head, fds, _, _ = socket.recv_fds(self.socket, 12, 1)
        if len(head) < 12:
            raise ConnectionError("the device has ended the connection")
        (length,) = struct.unpack_from("=I", head, 8)
        return self.socket.recv(length, socket.MSG_WAITALL) if length else b"", list(fds)

    def ask(self, kind: int, payload: bytes = b"", fd: int = -1) -> bytes:
        """Send a message, and return the payload of its answer."""
        self.send(kind, payload, fd)
        return self.answer()[0]

    def connect(self, timeout_s: float = 60.0) -> None:
        """Connect, and start the queue. Raises ConnectionError if the device ends the connection."""
        self.socket.close()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout_s)
        self.socket.connect(self._path)
        (features,) = struct.unpack("=Q", self.ask(GET_FEATURES))
        self.send(SET_PROTOCOL_FEATURES, struct.pack("=Q", _PROTOCOL_FEATURES))
        self.send(SET_BACKEND_REQ_FD, fd=self._news_end.fileno())
        if self._inflight_fd < 0:
            self.send(GET_INFLIGHT_FD, struct.pack("=QQHH4x", 0, 0, 1, _SIZE))
            self._inflight, (self._inflight_fd,) = self.answer()
        self.send(SET_INFLIGHT_FD, self._inflight, self._inflight_fd)
        self.send(SET_FEATURES, struct.pack("=Q", features))
        self.send(SET_MEM_TABLE, struct.pack("=II4Q", 1, 0, _GUEST, _BYTES, _USER, 0), self._memory_fd)
        self.send(SET_VRING_NUM, struct.pack("=II", 0, _SIZE))
        self.send(SET_VRING_BASE, struct.pack("=II", 0, self._used()))
        self.send(SET_VRING_ADDR, struct.pack("=II4Q", 0, 0, _USER, _USER + _USED, _USER + _AVAILABLE, 0))
        self.send(SET_VRING_KICK, struct.pack("=Q", 0), self._kick)
        self.send(SET_VRING_CALL, struct.pack("=Q", 0), self._call)
        self.send(SET_VRING_ENABLE, struct.pack("=II", 0, 1))

    def config(self) -> dict[str, int]:
        """The configuration space."""
        space = self.ask(GET_CONFIG, struct.pack("=III60x", 0, 60, 0))[12:]
        return {
            "sectors": struct.unpack_from("=Q", space)[0],
            "block_size": struct.unpack_from("=I", space, 20)[0],
            "queues": struct.unpack_from("=H", space, 34)[0],
        }

    def truncate_memory(self) -> None:
        """Take the guest's memory away from the device, and have it look there."""
        os.ftruncate(self._memory_fd, 0)
        os.eventfd_write(self._kick, 1)

    # ---- requests

    def _used(self) -> int:
        return int(struct.unpack_from("=H", self._memory, _USED + 2)[0])

    def submit(self, number: int, kind: int, sector: int = 0, data: bytes | int = b"") -> None:
        """Submit request `number` (0 to 4): to write `data`, or to read so many bytes."""
        length = data if isinstance(data, int) else len(data)
        if not isinstance(data, int):
            self._memory[_DATA + number * _PAGE : _DATA + number * _PAGE + length] = data
        struct.pack_into("=IIQ", self._memory, _HEADERS + 16 * number, kind, 0, sector)
        self._memory[_STATUSES + number] = 77
        at = 3 * number
        parts = [
            (_GUEST + _HEADERS + 16 * number, 16, _NEXT, at + 1 if length else at + 2),
            (_GUEST + _DATA + number * _PAGE, length, _NEXT | (_WRITES if isinstance(data, int) else 0), at + 2),
            (_GUEST + _STATUSES + number, 1, _WRITES, 0),
        ]
        for i, part in enumerate(parts):
            struct.pack_into("=QIHH", self._memory, 16 * (at + i), *part)
        struct.pack_into("=H", self._memory, _AVAILABLE + 4 + 2 * (self._available % _SIZE), at)
        self._available = (self._available + 1) & 0xFFFF
        struct.pack_into("=H", self._memory, _AVAILABLE + 2, self._available)
        os.eventfd_write(self._kick, 1)

    def wait_used(self, timeout_s: float = 60.0) -> int:
        """The number of the request that has completed next."""
        struct.pack_into("=H", self._memory, _AVAILABLE + 4 + 2 * _SIZE, self._seen)  # used_event
        end_s = time.monotonic() + timeout_s
        while self._used() == self._seen:
            if time.monotonic() > end_s:
                raise TimeoutError("no request has completed")
            if select.select([self._call], [], [], 0.05)[0]:
                os.eventfd_read(self._call)
        head, _ = struct.unpack_from("=II", self._memory, _USED + 4 + 8 * (self._seen % _SIZE))
        self._seen = (self._seen + 1) & 0xFFFF
        return int(head) // 3

    def status(self, number: int) -> int:
        """The status of a request that has completed."""
        return self._memory[_STATUSES + number]

    def data(self, number: int, length: int) -> bytes:
        """The data of a request."""
        return self._memory[_DATA + number * _PAGE : _DATA + number * _PAGE + length]

    def run(self, kind: int, sector: int = 0, data: bytes | int = b"") -> int:
        """Submit a request, and wait for it: its status."""
        self.submit(0, kind, sector, data)
        assert self.wait_used() == 0
        return self.status(0)
