"""Hostile connections: too many, silent, or with a routing id of their own; libzmq would abort the process."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import struct
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_protocol import wire
from aiod_protocol.wire import MessageType
from tests.patience import scaled
from tests.service.zmtp import send_frame, wait_for_end, zmtp_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HELLO = wire.pack(MessageType.HELLO, {"versions": [1]})


@pytest.mark.parametrize(
    "identity", [b"chosen", b"\0" + os.urandom(4), b"\0"], ids=["a name", "like one of libzmq", "a byte"]
)
def test_a_peer_that_chose_its_routing_id_is_shut_down(
    shared_daemon: Any, locate: Callable[[str], str], identity: bytes
) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client, client.open("scratch/held", "w+") as file:
        for endpoint in (locate(shared_daemon.endpoint), shared_daemon.endpoint):
            with zmtp_connection(endpoint, identity) as connection:
                send_frame(connection, HELLO)
                wait_for_end(connection)
        assert file.pwrite(b"x", 0) == 1
    shared_daemon.wait_logged("chose its own routing id")


def test_a_peer_with_an_assigned_routing_id_is_answered(shared_daemon: Any, locate: Callable[[str], str]) -> None:
    """The same connection with a valid id is accepted, so the test above fails only for the id."""
    for endpoint in (locate(shared_daemon.endpoint), shared_daemon.endpoint):
        with zmtp_connection(endpoint) as connection:
            send_frame(connection, HELLO)
            assert connection.recv(65536)


def test_a_silent_connection_is_shut_down(shared_daemon: Any, locate: Callable[[str], str]) -> None:
    """With a handshake, and without one."""
    for endpoint in (locate(shared_daemon.endpoint), shared_daemon.endpoint):
        with socket.socket(socket.AF_UNIX) as silent, zmtp_connection(endpoint) as mute:
            silent.settimeout(scaled(60))
            silent.connect(endpoint.removeprefix("ipc://"))
            wait_for_end(mute)
            wait_for_end(silent)
    shared_daemon.wait_logged("had sent nothing")


def test_failed_handshakes_are_counted_once(
    new_daemon: Callable[..., Any], locate: Callable[[str], str], wait_until: Callable[..., None]
) -> None:
    daemon = new_daemon()
    daemon.start()
    endpoint = locate(daemon.endpoint)
    with ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(zmtp_connection(endpoint))
            send_frame(connection, HELLO)
            assert connection.recv(65536)
        for _ in range(30):
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(endpoint.removeprefix("ipc://"))
        wait_until(lambda: daemon.engine["loop"]["connections"] == 10, "those that live are counted")
    wait_until(lambda: daemon.engine["loop"]["connections"] == 0, "all have gone")


def test_connections_above_the_limit_are_refused(
    new_daemon: Callable[..., Any], locate: Callable[[str], str], wait_until: Callable[..., None]
) -> None:
    """Without a limit libzmq would abort the process when accept() finds no descriptor."""
    daemon = new_daemon()
    daemon.start(prefix=["prlimit", "--nofile=4096:4096"])
    endpoint, pid = locate(daemon.endpoint), daemon.engine["pid"]
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/held", "w+") as file:
        for place in (endpoint, daemon.endpoint):
            with many_connections(place, 5000):
                assert file.pwrite(b"x", 0) == 1
        wait_until(lambda: daemon.ctl("ping", check=False).returncode == 0, "the front endpoint answers again")
        assert file.pread(1, 0) == b"x"
    assert daemon.engine["pid"] == pid
    daemon.wait_logged("connections above 1024")


@contextmanager
def many_connections(endpoint: str, count: int) -> Iterator[None]:
    """So many connections at once, as far as they are accepted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 1000)), hard))
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(endpoint.removeprefix("ipc://"))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_second_hello_ends_the_connections_first_session(raw: Any) -> None:
    first = raw.token
    raw.hello()
    assert raw.token != first
    assert raw.ask(MessageType.HEARTBEAT, first)[:2] == [MessageType.REFUSAL, errno.ENOTCONN]
    assert raw.ask(MessageType.HEARTBEAT, raw.token) == [MessageType.HEARTBEAT]


def test_a_name_cannot_forge_log_lines(connect: Callable[[str], Any], new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    daemon.start()
    front = connect(daemon.endpoint)
    engine = connect(front.ask(MessageType.LOCATE, 1, "scratch")[4]["endpoint"])
    engine.ask(MessageType.HELLO, {"versions": [1], "software": "evil\nCRITICAL: all is lost\x1b[2J"})
    (shown,) = daemon.json("clients")["clients"]
    assert shown["software"] == "evil?CRITICAL: all is lost?[2J"
    assert "\nCRITICAL: all is lost" not in daemon.log


def test_a_client_that_reads_no_replies_is_ended_before_the_others(
    new_daemon: Callable[..., Any], connect: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """Its replies stay within its credit, but exceed memory_max: only its session is ended."""
    mib = 2**20
    sessions = {"bytes_max": 512 * mib, "depth_max": 512, "request_bytes_max": mib}
    engine = {"memory_max": 160 * mib, "bytes_inflight_max": 1024 * mib, "buffer_cache_max": 0}
    daemon = new_daemon(**{"engine.main": engine, "sessions": sessions})
    (daemon.path / "big").write_bytes(bytes(mib))
    daemon.start()
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/other", "w+") as file:
        pid = daemon.engine["pid"]
        front = connect(daemon.endpoint)
        greedy = connect(front.ask(MessageType.LOCATE, 1, "scratch")[4]["endpoint"], receive_hwm=1)
        greedy.hello()
        handle = greedy.ask(MessageType.OPEN, greedy.token, 1, "scratch", "big", 1, 0)[2]
        for number in range(400):
            record = wire.SUBMISSION.pack(2 + number, 1, 0, handle, 0, mib, 0, 0, 0, 0)
            greedy.send(MessageType.SUBMIT, greedy.token, 0, record)
        wait_until(lambda: "does not read its replies" in daemon.log, "the greedy one has been ended")
        assert file.pwrite(b"x", 0) == 1
    assert daemon.engine["pid"] == pid
    assert daemon.engine["loop"]["rebinds"] == 0


def flood(endpoint: str, count: int) -> None:
    """Send so many MiB of an endless message, or until the peer closes the connection."""
    frame = bytes(2**20)
    with zmtp_connection(endpoint) as connection, contextlib.suppress(OSError):
        for _ in range(count):
            connection.sendall(struct.pack(">BQ", 0x03, len(frame)) + frame)


def test_an_engine_that_cannot_rebind_is_restarted(
    new_daemon: Callable[..., Any], locate: Callable[[str], str], wait_until: Callable[..., None]
) -> None:
    daemon = new_daemon(**{"engine.main": {"memory_max": 128 * 2**20}})
    daemon.start()
    pid, endpoint = daemon.engine["pid"], locate(daemon.endpoint)
    Path(endpoint.removeprefix("ipc://").replace(".sock", ".1.sock")).mkdir()  # where it would go next
    flood(endpoint, 1500)
    wait_until(lambda: daemon.engine["state"] == "serving" and daemon.engine["pid"] != pid, "another engine serves")
    daemon.wait_logged("cannot serve any more")
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/after", "w+") as file:
        assert file.pwrite(b"x", 0) == 1


def test_the_front_endpoint_recovers_from_a_flood(new_daemon: Callable[..., Any]) -> None:
    """Endless messages are dropped once, and not again because of memory that malloc keeps."""
    daemon = new_daemon()
    daemon.start()
    small = bytes(4)
    with zmtp_connection(daemon.endpoint) as connection, contextlib.suppress(OSError):
        for _ in range(4000):
            connection.sendall((bytes([0x01, len(small)]) + small) * 2000)
    daemon.ctl("ping", "--wait", "20")
    dropped = daemon.log.count("dropping all connections and buffered messages")
    assert dropped >= 1
    for _ in range(5):  # each of them longer than the memory is looked at
        daemon.ctl("stats")
    assert daemon.log.count("dropping all connections and buffered messages") == dropped
