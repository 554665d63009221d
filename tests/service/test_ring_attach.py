"""Attaching rings: success, fallback to ZeroMQ, and refusals."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import _ring
from aiod_client.connection.converse import converse
from aiod_client.session import handshake
from aiod_protocol import ring_wire
from aiod_protocol.ring_wire import RingMessage
from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Daemon

MIB = 2**20


@pytest.fixture(name="daemon")
def daemon_fixture(renewed_daemon: Daemon) -> Daemon:
    """The same one for all tests."""
    return renewed_daemon


def use(daemon: Any, transport: Any) -> bool:
    """Write and read a file; returns whether a ring was used."""
    with aiod_client.connect(daemon.endpoint, transport=transport) as client:
        with client.open("scratch/used", "w+") as file:
            assert file.pwrite(b"data", 0) == 4
            file.flush()
            assert file.pread(10, 0) == b"data"
        wait_until(lambda: len(daemon.json("clients")["clients"]) == 1, "earlier sessions have ended")
        (shown,) = daemon.json("clients")["clients"]
        return bool(shown["ring"])


def has_nothing(daemon: Any, *counts: str) -> bool:
    """Whether these counts of the engine are 0."""
    engine = daemon.engine
    return not any(engine[name] for name in counts)


def raw_socket(daemon: Any) -> socket.socket:
    """A connection to the ring socket, by the export's link."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(scaled(60))
    connection.connect(str(daemon.runtime_dir / "ring" / "scratch"))
    return connection


def attach_message(*, version: int = 1, ticket: bytes = bytes(16), entries: int = 8, area_bytes: int = MIB) -> bytes:
    """ATTACH."""
    return ring_wire.ATTACH.pack(RingMessage.ATTACH, version, ticket, entries, 0, area_bytes, b"raw")


def refusal_of(daemon: Any, message: bytes) -> tuple[int, str]:
    """The errno and text of a REPLY, after which the engine closes."""
    with raw_socket(daemon) as connection:
        connection.send(message)
        answer = connection.recv(8192)
        assert connection.recv(8192) == b""
    kind, _, cookie, result = ring_wire.REPLY.unpack_from(answer)
    assert (kind, cookie) == (RingMessage.REPLY, 0)
    return -result, answer[ring_wire.REPLY.size :].decode()


def test_a_local_client_uses_a_ring_by_default(daemon: Any) -> None:
    assert use(daemon, "auto")
    assert use(daemon, "ring")
    assert not use(daemon, "zmq")
    wait_until(lambda: daemon.engine["rings"] == daemon.engine["ring_bytes"] == 0, "its memory is released")


@pytest.mark.parametrize("trouble", ["no rings", "no socket"])
def test_a_client_works_without_a_ring(new_daemon: Callable[..., Any], trouble: str) -> None:
    daemon = new_daemon(**({"engine.main": {"rings_max": 0}} if trouble == "no rings" else {}))
    daemon.start()
    for path in daemon.runtime_dir.glob("engine-*.ring"):
        path.unlink()
    assert not use(daemon, "auto")
    with (
        aiod_client.connect(daemon.endpoint, transport="ring") as client,
        pytest.raises(aiod_client.AiodError, match="transport ring: "),
    ):
        client.open("scratch/used", "r")


def test_rings_above_rings_max_are_refused(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"engine.main": {"rings_max": 1}})
    daemon.start()
    with aiod_client.connect(daemon.endpoint) as first, first.open("scratch/x", "w"):
        with (
            aiod_client.connect(daemon.endpoint, transport="ring") as second,
            pytest.raises(aiod_client.AiodError, match="rings_max") as caught,
        ):
            second.open("scratch/x")
        assert caught.value.errno == errno.EAGAIN
        with aiod_client.connect(daemon.endpoint) as third, third.open("scratch/x") as file:
            assert file.pread(1, 0) == b""
            assert [client["ring"] for client in daemon.json("clients")["clients"]] == [True, False]
    wait_until(lambda: daemon.engine["rings"] == 0, "the first has gone")
    assert use(daemon, "ring")


def test_rings_above_ring_bytes_max_are_refused(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"engine.main": {"ring_bytes_max": 8 * MIB}})
    daemon.start()
    assert not use(daemon, "auto")
    code, text = refusal_of(daemon, attach_message(area_bytes=9 * MIB))
    assert code == errno.ENOBUFS
    assert "ring_bytes_max" in text
    assert daemon.engine["rings"] == 0


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (attach_message(version=2), errno.EPROTONOSUPPORT, "ring version 2"),
        (attach_message(entries=3), errno.EINVAL, "a power of two"),
        (attach_message(entries=0), errno.EINVAL, "a power of two"),
        (attach_message(ticket=b"x" * 16), errno.EACCES, "ticket"),
        (ring_wire.CLOSE.pack(RingMessage.CLOSE, 1, 1), errno.EPROTO, "not ATTACH"),
    ],
)
def test_invalid_attach_messages_are_refused(daemon: Any, message: bytes, code: int, said: str) -> None:
    refused, text = refusal_of(daemon, message)
    assert refused == code
    assert said in text
    assert use(daemon, "ring")


@pytest.mark.parametrize("message", [b"x", attach_message()[:-1], attach_message() + b"x"])
def test_malformed_first_messages_end_the_connection(daemon: Any, message: bytes) -> None:
    with raw_socket(daemon) as connection:
        connection.send(message)
        assert connection.recv(8192) == b""
    assert daemon.engine["sessions"] == 0


def test_malformed_messages_after_attach_end_the_session(daemon: Any) -> None:
    with raw_socket(daemon) as connection:
        connection.send(attach_message())
        message, fds, _, _ = socket.recv_fds(connection, 8192, 2)
        for fd in fds:
            os.close(fd)
        assert ring_wire.HEAD.unpack_from(message)[0] == RingMessage.ATTACHED
        assert daemon.engine["rings"] == 1
        connection.send(attach_message())
        assert connection.recv(8192) == b""
    wait_until(lambda: daemon.engine["rings"] == 0, "its memory is released")
    daemon.wait_logged("does not belong there")


def welcome_of(daemon: Any) -> tuple[Any, handshake.Welcome]:
    """A session that began over ZeroMQ, without its ring."""
    end_s = float("inf")
    dealer, location = converse(daemon.endpoint, None, handshake.locate("scratch"), end_s, lambda: None)
    dealer.close()
    dealer, (welcome, _) = converse(location.endpoint, None, handshake.resume_session(b"", {}), end_s, lambda: None)
    return dealer, welcome


def test_a_ticket_is_valid_once(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()  # the session stays in it
    daemon.start()
    dealer, welcome = welcome_of(daemon)
    offer = welcome.ring
    assert offer is not None
    ring = _ring.attach(offer.path, offer.ticket, software="test", entries=8, area_bytes=MIB)
    with pytest.raises(OSError, match="used already") as caught:
        _ring.attach(offer.path, offer.ticket, software="test", entries=8, area_bytes=MIB)
    assert caught.value.errno == errno.EACCES
    ring.close()
    dealer.close()


@pytest.mark.skipif(os.getuid() != 0, reason="another uid needs root")
def test_a_ticket_is_valid_for_its_uid_only(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()  # the session stays in it
    daemon.start()
    dealer, welcome = welcome_of(daemon)
    offer = welcome.ring
    assert offer is not None
    daemon.runtime_dir.chmod(0o755)
    Path(offer.path).chmod(0o777)
    program = (
        "import os, socket, sys\n"
        "connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "os.setuid(65534)\n"
        "connection.connect(sys.argv[1])\n"
        "connection.send(bytes.fromhex(sys.argv[2]))\n"
        "print(connection.recv(8192))\n"
    )
    message = attach_message(ticket=offer.ticket).hex()
    command = [sys.executable, "-c", program, offer.path, message]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "the session belongs to uid 0, the ring's client to uid 65534" in done.stdout
    daemon.wait_logged("its ring's ticket was used by uid 65534")
    dealer.close()


def test_everything_of_a_killed_client_is_released(daemon: Any) -> None:
    program = (
        "import sys, aiod_client\n"
        "client = aiod_client.connect(sys.argv[1], transport='ring')\n"
        "file = client.open('scratch/held', 'w+')\n"
        "futures = file.submit([('write', b'x' * 65536, 65536 * number) for number in range(100)])\n"
        "print('sent', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, daemon.endpoint]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"sent\n"
    assert daemon.engine["rings"] == 1
    child.kill()
    child.communicate()
    counts = ("rings", "files", "ring_bytes", "sessions", "inflight")
    wait_until(lambda: has_nothing(daemon, *counts), "it has gone")


def test_many_ring_sessions_leave_no_descriptors(daemon: Any) -> None:
    def descriptors(pid: int) -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    use(daemon, "ring")
    wait_until(lambda: daemon.engine["rings"] == 0, "the first has gone")
    pid = daemon.engine["pid"]
    before = descriptors(pid), descriptors(os.getpid())
    for _ in range(40):
        with aiod_client.connect(daemon.endpoint, transport="ring") as client, client.open("scratch/used") as file:
            file.pread(4, 0)
    wait_until(lambda: daemon.engine["rings"] == 0, "all have gone")
    wait_until(lambda: descriptors(pid) <= before[0] + 2, "the engine's descriptors are closed")
    assert descriptors(os.getpid()) <= before[1] + 2


def test_each_export_has_a_link_to_the_ring_socket(daemon: Any) -> None:
    (link,) = (daemon.runtime_dir / "ring").iterdir()
    assert link.name == "scratch"
    assert link.resolve().is_socket()
    daemon.stop()
    assert not (daemon.runtime_dir / "ring").exists()


LARGE = 512 * MIB
"""Large, so that the engine needs some time to make it."""


def test_messages_sent_before_the_ring_is_made_are_answered_after_it(daemon: Any) -> None:
    """An OPEN sent right after ATTACH is answered after it."""
    (daemon.path / "file").write_bytes(b"data")
    with raw_socket(daemon) as connection:
        connection.send(attach_message(area_bytes=LARGE))
        connection.send(ring_wire.OPEN.pack(RingMessage.OPEN, 1, 7, 0, 0) + b"scratch/file")
        message, fds, _, _ = socket.recv_fds(connection, 8192, 2)
        for fd in fds:
            os.close(fd)
        assert ring_wire.HEAD.unpack_from(message)[0] == RingMessage.ATTACHED
        kind, _, cookie, handle = ring_wire.REPLY.unpack_from(connection.recv(8192))
        assert (kind, cookie) == (RingMessage.REPLY, 7)
        assert handle > 0


def test_a_client_may_leave_before_its_ring_is_made(daemon: Any) -> None:
    for area_bytes in (MIB, LARGE) * 4:
        with raw_socket(daemon) as connection:
            connection.send(attach_message(area_bytes=area_bytes))
    counts = ("rings", "sessions", "ring_bytes")
    wait_until(lambda: has_nothing(daemon, *counts), "everything is released")
    assert use(daemon, "ring")


def test_rings_that_are_being_made_count_against_the_limits(new_daemon: Callable[..., Any]) -> None:
    """Of two concurrent rings that exceed the limit together, one is refused."""
    daemon = new_daemon(**{"engine.main": {"ring_bytes_max": LARGE + MIB}})
    daemon.start()
    kinds = []
    with raw_socket(daemon) as first, raw_socket(daemon) as second:
        for connection in (first, second):
            connection.send(attach_message(area_bytes=LARGE))
        for connection in (first, second):
            message, fds, _, _ = socket.recv_fds(connection, 8192, 2)
            for fd in fds:
                os.close(fd)
            kinds.append(ring_wire.HEAD.unpack_from(message)[0])
    assert sorted(kinds) == [RingMessage.ATTACHED, RingMessage.REPLY]


def test_kick_and_stop_work_while_a_ring_is_made(daemon: Any) -> None:
    with raw_socket(daemon) as kicked, raw_socket(daemon) as stopped:
        kicked.send(attach_message(area_bytes=LARGE))
        for client in daemon.json("clients")["clients"]:
            daemon.ctl("kick", client["id"], check=False)
        stopped.send(attach_message(area_bytes=LARGE))
        assert daemon.stop() == 0
        for connection in (kicked, stopped):
            while connection.recv(8192):
                pass
    assert "Traceback" not in daemon.log
