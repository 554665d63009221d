"""What a stopping daemon has refused goes to the next one by its reason: the words of its messages do not matter."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_protocol import wire
from aiod_protocol.wire import MessageType
from tests.patience import scaled
from tests.service.frozen import drain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.service.frozen import Frozen

REWORDED = "reworded"


@pytest.fixture
def reworded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message of the daemon says something else to clients of this process."""
    unpack = wire.unpack

    def unpack_reworded(header: bytes | memoryview, bytes_max: int = wire.HEADER_BYTES_MAX) -> list[Any]:
        elements = unpack(header, bytes_max)
        if elements[0] == MessageType.COMPLETE:
            elements[2] = dict.fromkeys(elements[2], REWORDED)
        elif elements[0] in {MessageType.REPLY, MessageType.REFUSAL}:
            place = 3 if elements[0] == MessageType.REPLY else 2
            elements[place] = elements[place] and REWORDED
        return elements

    monkeypatch.setattr(wire, "unpack", unpack_reworded)


def postponed(client: aiod_client.Client) -> int:
    """How many requests and calls the client's sessions keep for the next daemon."""
    return sum(len(link.session.backlog.postponed) for link in client._links_at.values())


@pytest.mark.usefixtures("reworded")
def test_a_drain_is_survived_whatever_the_messages_say(
    new_daemon: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None]
) -> None:
    daemon = new_daemon(**{"exports.frozen": {"path": str(frozen.path)}, "": {"drain_timeout_s": 60.0}})
    daemon.start()
    with aiod_client.connect(daemon.endpoint, transport="zmq", reconnect_timeout=scaled(60)) as client:
        file = client.open("scratch/log", "a+")
        drain(daemon, frozen)
        (appended,) = file.submit([("append", b"once")])
        opener = threading.Thread(target=lambda: client.open("scratch/new", "x+").close())
        opener.start()
        wait_until(lambda: postponed(client) == 2, "both are refused by the daemon that stops")
        frozen.thaw()
        assert daemon.process.wait(scaled(60)) == 0
        daemon.start()
        assert appended.result(timeout=scaled(60)) == 0
        opener.join(scaled(60))
    assert (daemon.path / "log").read_bytes() == b"once"
    assert (daemon.path / "new").exists()
