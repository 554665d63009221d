"""Limits of one user over all sessions ([users.NAME])."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_protocol.wire import MessageType
from tests.service.access import open_to_all, run_as

if TYPE_CHECKING:
    from collections.abc import Callable

ME = f"users.{os.getuid()}"
OTHER = 12001
KIB = 1024


@pytest.fixture
def limited(new_daemon: Callable[..., Any]) -> Callable[..., Any]:
    """Starts a daemon with limits for this user."""

    def start(**limits: Any) -> Any:
        daemon = new_daemon(**{ME: limits})
        open_to_all(daemon)
        return daemon

    return start


def test_sessions_max_limits_a_users_sessions(limited: Callable[..., Any]) -> None:
    daemon = limited(sessions_max=2)
    with aiod_client.connect(daemon.endpoint) as one, aiod_client.connect(daemon.endpoint) as two:
        for client in (one, two):
            client.open("scratch/file", "w+")
        with aiod_client.connect(daemon.endpoint) as three, pytest.raises(OSError, match="has 2 sessions") as refusal:
            three.open("scratch/file")
        assert refusal.value.errno == errno.EAGAIN
        opened = "print(aiod_client.connect(sys.argv[1]).open('scratch/file').pread(1, 0))"
        assert run_as(opened, daemon.endpoint, uid=OTHER) == "b''"
    with aiod_client.connect(daemon.endpoint) as again:
        again.open("scratch/file")


@pytest.mark.parametrize("transport", ["zmq", "ring"])
def test_handles_max_limits_a_users_open_files(limited: Callable[..., Any], transport: Any) -> None:
    daemon = limited(handles_max=3)
    with (
        aiod_client.connect(daemon.endpoint, transport=transport) as one,
        aiod_client.connect(daemon.endpoint, transport=transport) as two,
    ):
        files = [client.open("scratch/file", "w+") for client in (one, two, one)]
        with pytest.raises(OSError, match="has 3 handles") as refusal:
            two.open("scratch/file")
        assert refusal.value.errno == errno.EMFILE
        files[0].close()
        two.open("scratch/file")


def test_the_sessions_of_a_user_share_requests_max_and_bytes_max(
    limited: Callable[..., Any], connect: Callable[[str], Any], locate: Callable[[str], str]
) -> None:
    daemon = limited(requests_max=300, bytes_max=33 * 1024 * KIB)
    endpoint = locate(daemon.endpoint)
    grants = [connect(endpoint).hello() for _ in range(2)]
    assert [grant["depth_max"] for grant in grants] == [256, 44]
    assert [grant["bytes_max"] for grant in grants] == [32 * 1024 * KIB, 1024 * KIB]
    assert grants[1]["request_bytes_max"] == 1024 * KIB
    kind, number, text, _ = connect(endpoint).ask(
        MessageType.HELLO, {"versions": [1], "features": [], "software": "raw"}
    )
    assert (kind, number) == (MessageType.REFUSAL, errno.EDQUOT)
    assert "this user may have 300 requests in flight, and 300 are granted" in text


def test_a_small_credit_carries_large_transfers(limited: Callable[..., Any]) -> None:
    daemon = limited(requests_max=3, bytes_max=64 * KIB, rings_max=1)
    data = os.urandom(1024 * KIB)
    with aiod_client.connect(daemon.endpoint, transport="zmq") as client:
        file = client.open("scratch/file", "w+")
        assert file.pwrite(data, 0) == len(data)
        assert file.pread(len(data), 0) == data


def test_rings_max_limits_a_users_rings(limited: Callable[..., Any]) -> None:
    daemon = limited(rings_max=1)
    with aiod_client.connect(daemon.endpoint) as one, aiod_client.connect(daemon.endpoint) as two:
        for client in (one, two):
            client.open("scratch/file", "w+").pwrite(b"x", 0)
        assert sorted(client["ring"] for client in daemon.json("clients")["clients"]) == [False, True]
    with aiod_client.connect(daemon.endpoint, transport="ring") as again:
        again.open("scratch/file").pread(1, 0)


def test_ring_bytes_max_limits_the_memory_of_a_users_rings(limited: Callable[..., Any]) -> None:
    daemon = limited(ring_bytes_max=1024 * KIB)
    with (
        aiod_client.connect(daemon.endpoint, transport="ring") as client,
        pytest.raises(OSError, match=f"may have {1024 * KIB}") as refusal,
    ):
        client.open("scratch/file", "w+")
    assert refusal.value.errno == errno.EDQUOT


def test_a_session_above_messages_per_second_max_is_ended(
    limited: Callable[..., Any], connect: Callable[[str], Any], locate: Callable[..., str]
) -> None:
    daemon = limited(messages_per_second_max=100)
    raw = connect(locate(daemon.endpoint))
    raw.hello()
    for _ in range(1000):
        raw.send(MessageType.HEARTBEAT, raw.token)
    beats = 0
    while (answer := raw.answer())[0] == MessageType.HEARTBEAT:
        beats += 1
    kind, number, text, _ = answer
    assert kind == MessageType.REFUSAL
    assert 100 <= beats < 1000
    assert number == errno.EAGAIN
    assert "more than 100 messages a second" in text
    with aiod_client.connect(daemon.endpoint) as other:
        other.open("scratch/file", "w+")


def test_a_reload_changes_the_limits_of_users(limited: Callable[..., Any]) -> None:
    daemon = limited(handles_max=1)
    with aiod_client.connect(daemon.endpoint) as client:
        client.open("scratch/one", "w+")
        with pytest.raises(OSError, match="has 1 handles"):
            client.open("scratch/two", "w+")
        daemon.write_config({ME: {"handles_max": 2}})
        assert daemon.json("reload")["changed"] == [f"{ME}.handles_max: 1 -> 2"]
        client.open("scratch/two", "w+")
        daemon.write_config({})
        daemon.ctl("reload")
        client.open("scratch/three", "w+")


def test_the_limits_of_other_users_apply_to_each_of_them(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{'users."*"': {"handles_max": 1}, ME: {}})
    open_to_all(daemon)
    (daemon.path / "file").touch()
    program = """
client = aiod_client.connect(sys.argv[1])
first = client.open("scratch/file")
try:
    client.open("scratch/file")
except OSError as error:
    print(error.errno)
"""
    assert run_as(program, daemon.endpoint, uid=OTHER) == str(errno.EMFILE)
    with aiod_client.connect(daemon.endpoint) as client:
        for _ in range(3):
            client.open("scratch/file")
