"""Attacks by a hostile local user, in addition to those in the tests of messages, connections, rings and paths."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import random
import re
import select
import socket
import struct
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq

import aiod_client
from aiod_protocol import ring_wire, wire
from aiod_protocol.operations import Op
from aiod_protocol.ring_wire import RingMessage
from aiod_protocol.wire import MessageType
from tests.conftest import wait_until
from tests.patience import scaled
from tests.service.access import open_to_all, run_as

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE, MALLORY = 12001, 12003
SWAPS_MIN = 2000
HOLES_MIN = 2000
LOST_RINGS = 16
PAGE = mmap.PAGESIZE
RING_ENTRIES = 64  # so that each queue has a page of its own
PUNCH_HOLE = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
NO_SEALS = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of a small ring, as Ring's: others attach to sealed memory only. */
static int seal_nothing(int fd, int command, va_list arguments)
{
    struct stat status;

    return command == F_ADD_SEALS && fstat(fd, &status) == 0 && status.st_size < 4 << 20
               ? 0
               : (int)syscall(SYS_fcntl, fd, command, va_arg(arguments, long));
}

#define WITHOUT_SEALS(name) \\
    int name(int fd, int command, ...) \\
    { \\
        va_list arguments; \\
        va_start(arguments, command); \\
        int result = seal_nothing(fd, command, arguments); \\
        va_end(arguments); \\
        return result; \\
    }
WITHOUT_SEALS(fcntl)
WITHOUT_SEALS(fcntl64)
"""


def test_a_link_swapped_during_the_open_does_not_lead_out_of_the_export(daemon: Any) -> None:
    """A directory of the export alternates with a link to a directory outside, as fast as possible."""
    outside = daemon.base / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    inside = daemon.path / "inside"
    inside.mkdir()
    (inside / "file").write_text("mine")
    link, aside, swapped = daemon.path / "link", daemon.path / "aside", daemon.path / "swapped"
    link.symlink_to(outside)
    stop = threading.Event()
    swaps = Counter[str]()

    def swap() -> None:
        while not stop.is_set():
            for what in (inside, link):
                what.rename(swapped)
                swapped.rename(aside)
                aside.rename(what)
            inside.rename(aside)
            link.rename(inside)
            inside.rename(link)
            aside.rename(inside)
            swaps["done"] += 1

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = Counter[str]()
    try:
        with aiod_client.connect(daemon.endpoint) as client:
            while swaps["done"] < SWAPS_MIN or not seen["mine"] or not seen["EACCES"]:
                try:
                    with client.open("scratch/inside/file") as file:
                        found = file.pread(6, 0).decode()
                except OSError as error:
                    found = errno.errorcode[error.errno or 0]
                seen[found] += 1
    finally:
        stop.set()
        swapper.join()
    assert seen.keys() <= {"mine", "ENOENT", "EACCES", "EXDEV", "ENOTDIR"}


def test_names_with_control_characters_and_invalid_utf8_are_only_names(daemon: Any) -> None:
    for path in ("\x1b[2J", "a\nb", "ü" * 127, "." * 255):
        with aiod_client.connect(daemon.endpoint) as client, client.open(f"scratch/{path}", "w+") as file:
            file.pwrite(b"x", 0)
    assert len([*daemon.path.iterdir()]) == 4
    assert "\x1b" not in daemon.log


def test_tokens_and_tickets_of_another_user_are_refused(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    open_to_all(daemon)
    (daemon.path / "alices").write_text("x")
    (daemon.path / "alices").chmod(0o666)
    with aiod_client.connect(daemon.endpoint, transport="zmq") as client:
        mine = client.open("scratch/alices", "r+")
        ((endpoint, link),) = client._links_at.items()
        token = link.session.welcome.token
        program = """
import zmq
from aiod_protocol import wire
from aiod_protocol.wire import MessageType
context = zmq.Context()
dealer = context.socket(zmq.DEALER)
dealer.connect(sys.argv[1])
token = bytes.fromhex(sys.argv[2])
records = wire.SUBMISSION.pack(1, 1, 0, int(sys.argv[3]), 0, 1, 0, 0, 0, 0)
for message in ([MessageType.SUBMIT, token, 0, records], [MessageType.CLOSE, token, 1, int(sys.argv[3])],
                [MessageType.GOODBYE, token, 2]):
    dealer.send(wire.pack(*message))
    assert dealer.poll(int(sys.argv[4]))
    print(wire.unpack(dealer.recv())[:2])
"""
        said = run_as(program, endpoint, token.hex(), str(mine._handle), str(int(scaled(10_000))), uid=MALLORY)
        assert said.splitlines() == [str([int(MessageType.REFUSAL), errno.ENOTCONN])] * 3
        assert mine.pread(1, 0) == b"x"
    assert re.search(rf"its token was used by pid \d+, uid {MALLORY}", daemon.log)


def test_a_replayed_message_affects_only_its_own_session(raw: Any, shared_daemon: Any) -> None:
    handle = raw.handle("replayed")
    record = (7, int(Op.WRITE), 0, handle, 0, 4, 0, 0, 0, 0)
    assert raw.submit(record, payloads=[b"data"])[7][0] == 4
    assert raw.submit(record, payloads=[b"more"])[7][0] == 4
    # The first one once more says that fewer completions were received than were known to be: the session is ended.
    raw.send(MessageType.SUBMIT, raw.token, 0, wire.SUBMISSION.pack(*record), payloads=[b"data"])
    assert raw.answer()[:2] == [MessageType.REFUSAL, errno.EPROTO]
    with aiod_client.connect(shared_daemon.endpoint) as client:
        assert client.open("scratch/replayed").pread(4, 0) == b"more"


def test_a_thousand_silent_connections_do_not_block_others(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    daemon.start()
    context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 1100)
    try:
        for _ in range(1000):
            context.socket(zmq.DEALER).connect(daemon.endpoint)
        with aiod_client.connect(daemon.endpoint) as client:
            assert client.open("scratch/file", "w+").pwrite(b"x", 0) == 1
    finally:
        context.destroy(0)


@pytest.mark.parametrize("how", ["zmq", "ring"])
def test_opens_beyond_handles_max_are_refused_and_released_with_the_session(
    new_daemon: Callable[..., Any], how: Any, wait_until: Callable[..., None]
) -> None:
    """At most handles_max are open, and none after the end of the session."""
    daemon = new_daemon(sessions={"handles_max": 1000})
    daemon.start()
    (daemon.path / "file").touch()
    descriptors = Path(f"/proc/{daemon.engine['pid']}/fd")
    before = len([*descriptors.iterdir()])
    with aiod_client.connect(daemon.endpoint, transport=how) as client:
        files = [client.open("scratch/file") for _ in range(1000)]
        for _ in range(1000):
            with pytest.raises(OSError, match="1000 handles") as refusal:
                client.open("scratch/file")
            assert refusal.value.errno == errno.EMFILE
        assert len([*descriptors.iterdir()]) < before + 1020
        files[0].close()
        client.open("scratch/file")
    wait_until(lambda: len([*descriptors.iterdir()]) <= before + 1, "all are closed")  # but /proc/self/fd, opened once


class Ring:
    """A ring whose client writes into it by hand."""

    def __init__(self, daemon: Any, path: str, area_bytes: int = 2**20) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(scaled(60))
        self._socket.connect(str(daemon.runtime_dir / "ring" / "scratch"))
        attach = ring_wire.ATTACH.pack(RingMessage.ATTACH, 1, bytes(16), RING_ENTRIES, 0, area_bytes, b"hostile")
        self._socket.send(attach)
        _, (self.memory_fd, self._doorbell_fd), _, _ = socket.recv_fds(self._socket, 8192, 2)
        self.memory = mmap.mmap(self.memory_fd, os.fstat(self.memory_fd).st_size)
        self._socket.send(ring_wire.OPEN.pack(RingMessage.OPEN, 3, 1, 0, 0) + path.encode())
        self.handle = ring_wire.REPLY.unpack_from(self._socket.recv(8192))[3]
        assert self.handle > 0

    def submit(self, tail: int, op: Op) -> None:
        """Publish entries up to `tail`; the last one is `op` on a page of the file."""
        entry = struct.pack("<QHHIQQQQIIQ", tail, op, 0, self.handle, 0, PAGE, tail % 32 * PAGE, 0, 0, 0, 0)
        place = PAGE + (tail - 1) % RING_ENTRIES * 64
        self.memory[place : place + 64] = entry
        self.memory[64:68] = tail.to_bytes(4, "little")
        self.ring()

    def ring(self) -> None:
        """Wake the engine."""
        os.write(self._doorbell_fd, (1).to_bytes(8, "little"))

    def has_ended(self) -> bool:
        """Whether the engine has ended the session."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def wait_ended(self) -> None:
        """Wait until the engine has ended the session."""
        with contextlib.suppress(ConnectionError):
            assert self._socket.recv(1) == b""

    def close(self) -> None:
        """Close the socket and the mapping."""
        self._socket.close()
        os.close(self.memory_fd)
        os.close(self._doorbell_fd)
        self.memory.close()


@contextlib.contextmanager
def served_meanwhile(daemon: Any) -> Any:
    """Meanwhile another client reads and compares; the engine must not be restarted."""
    before = daemon.engine
    data = os.urandom(64 * PAGE)
    (daemon.path / "others").write_bytes(data)
    reads = Counter[str]()
    stop = threading.Event()

    def read() -> None:
        with aiod_client.connect(daemon.endpoint, transport="ring") as client, client.open("scratch/others") as file:
            while not stop.is_set():
                at = reads["right"] % 64 * PAGE
                if file.pread(PAGE, at) != data[at : at + PAGE]:
                    reads["wrong"] += 1
                reads["right"] += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield reads
    finally:
        stop.set()
        reader.join()
    assert reads["right"] > 0
    assert not reads["wrong"]
    after = daemon.engine
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])


def test_a_client_that_punches_holes_into_its_ring_harms_only_itself(
    daemon: Any, wait_until: Callable[..., None]
) -> None:
    """Pages of its indices, queues and buffers are replaced by zeroes at any moment."""
    (daemon.path / "prey").write_bytes(bytes(PAGE))
    libc = ctypes.CDLL(None, use_errno=True)
    dice = random.Random(19)  # noqa: S311 - no secret
    punched = 0
    with served_meanwhile(daemon) as reads:
        while punched < HOLES_MIN or not reads["right"]:
            ring = Ring(daemon, "scratch/prey")
            for tail in range(1, 200):
                ring.submit(tail, dice.choice([Op.READ, Op.WRITE, Op.FLUSH]))
                page = dice.choice([0, 1, 2, dice.randrange(3, 35)])
                offset = ctypes.c_long(page * PAGE)
                assert libc.fallocate(ring.memory_fd, PUNCH_HOLE, offset, ctypes.c_long(PAGE)) == 0
                punched += 1
                if ring.has_ended():
                    break
            ring.close()
    wait_until(lambda: daemon.engine["rings"] == 0, "its memory is released")


def test_a_ring_that_loses_pages_ends_only_its_session(new_daemon: Callable[..., Any], tmp_path: Path) -> None:
    """The engine meets SIGBUS, which ends that session alone.

    As a hole does when the memory is used up: here the engine's seals come to nothing, and the client cuts its file.
    """
    source, shim = tmp_path / "no_seals.c", tmp_path / "no_seals.so"
    source.write_text(NO_SEALS)
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O", str(source), "-o", str(shim)], check=True)
    daemon = new_daemon()
    daemon.start(env=os.environ | {"LD_PRELOAD": str(shim)})
    (daemon.path / "prey").write_bytes(bytes(PAGE))
    with served_meanwhile(daemon):
        for number in range(LOST_RINGS):
            ring = Ring(daemon, "scratch/prey")
            ring.submit(1, Op.READ)
            os.ftruncate(ring.memory_fd, number % 2 * PAGE)
            if number % 2:
                ring.memory[64:68] = (2).to_bytes(4, "little")
            ring.ring()
            ring.wait_ended()
            ring.close()
    wait_until(lambda: daemon.log.count("a page of its ring's memory was gone") == LOST_RINGS, "each is logged")
