"""Connections that mean harm: too many, mute, with a routing id of their own. libzmq aborts a process for less."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import wire
from aiod_client.wire import MessageType
from tests.service.zmtp import send_frame, wait_for_end, zmtp_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HELLO = wire.pack(MessageType.HELLO, {"versions": [1]})


@pytest.mark.parametrize("identity", [b"chosen", b"\0" + os.urandom(4), b"\0"])
def test_a_peer_that_chose_its_routing_id_is_shut_down(
    shared_daemon: Any, locate: Callable[[str], str], identity: bytes
) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client, client.open("scratch/held", "w+") as file:
        for endpoint in (locate(shared_daemon.endpoint), shared_daemon.endpoint):
            with zmtp_connection(endpoint, identity) as connection:
                send_frame(connection, HELLO)
                wait_for_end(connection)
        assert file.pwrite(b"x", 0) == 1
    assert "chose its own routing id" in shared_daemon.log


def test_a_peer_with_a_given_routing_id_is_answered(shared_daemon: Any, locate: Callable[[str], str]) -> None:
    """The same by hand, so that the test above cannot pass for another reason."""
    for endpoint in (locate(shared_daemon.endpoint), shared_daemon.endpoint):
        with zmtp_connection(endpoint) as connection:
            send_frame(connection, HELLO)
            assert connection.recv(65536)


def test_a_mute_connection_is_shut_down(shared_daemon: Any, locate: Callable[[str], str]) -> None:
    """Also one that does not even shake hands."""
    for endpoint in (locate(shared_daemon.endpoint), shared_daemon.endpoint):
        with socket.socket(socket.AF_UNIX) as silent, zmtp_connection(endpoint) as mute:
            silent.settimeout(20)
            silent.connect(endpoint.removeprefix("ipc://"))
            wait_for_end(mute)
            wait_for_end(silent)
    assert "had said nothing" in shared_daemon.log


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


def test_more_connections_than_descriptors(
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
    assert "connections above 1024" in daemon.log


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
