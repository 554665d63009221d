"""Messages are received whole, by each of the three ways to receive."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import zmq

from aiod import _core
from aiod_client import _ring
from aiod_protocol.zmq_receiving import Receiving, receiving_by
from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

Socket = zmq.Socket[bytes]
FRAMES = [b"header", b"", bytes(range(256)) * 4096, b"last"]


@pytest.fixture(params=["pyzmq", "daemon", "client"])
def receiving(request: pytest.FixtureRequest) -> Receiving:
    """Each way to receive."""
    if request.param == "pyzmq":
        return receiving_by(None)
    found = receiving_by(_core.ZmqReceiver if request.param == "daemon" else _ring.ZmqReceiver)
    assert type(found) is not Receiving  # else these tests would try pyzmq three times
    return found


@pytest.fixture
def pair() -> Iterator[tuple[Socket, Socket]]:
    """A ROUTER, and a DEALER connected to it by tcp."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        router.linger = dealer.linger = 0
        dealer.connect(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
        yield router, dealer


def received(receiving: Receiving, socket: Socket, leading: int) -> list[Any]:
    """The next message, for which it waits."""
    found: list[list[Any]] = []

    def arrived() -> bool:
        frames = receiving.receive(socket, leading)
        found.extend([] if frames is None else [frames])
        return bool(found)

    wait_until(arrived, "a message has arrived")
    return found[0]


def test_the_frames_are_those_that_were_sent(receiving: Receiving, pair: tuple[Socket, Socket]) -> None:
    router, dealer = pair
    assert receiving.receive(router) is None
    dealer.send_multipart(FRAMES)
    dealer.send_multipart([b"another"])
    identity, *frames = received(receiving, router, 1)
    assert type(identity) is bytes
    assert [bytes(memoryview(frame)) for frame in frames] == FRAMES
    assert [bytes(frame.buffer) for frame in frames] == FRAMES
    assert [len(frame) for frame in frames] == [len(frame) for frame in FRAMES]
    assert [bytes(frame) for frame in received(receiving, router, 2)] == [identity, b"another"]
    assert receiving.receive(router, 1) is None


def test_a_frame_tells_of_its_connection(receiving: Receiving, pair: tuple[Socket, Socket]) -> None:
    router, dealer = pair
    dealer.send(b"first")
    _, frame = received(receiving, router, 1)
    assert frame.get(zmq.SRCFD) > 2
    assert frame.get("Peer-Address") == "127.0.0.1"
    with pytest.raises((ValueError, zmq.ZMQError)):
        frame.get("User-Id")


def test_a_frame_outlives_its_socket(receiving: Receiving) -> None:
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
        one.bind("inproc://pair")
        other.connect("inproc://pair")
        one.send_multipart(FRAMES)
        views = [memoryview(frame) for frame in received(receiving, other, 0)]
    gc.collect()
    assert [bytes(view) for view in views] == FRAMES


def test_a_closed_socket_is_an_error(receiving: Receiving) -> None:
    with zmq.Context() as context:
        socket = context.socket(zmq.DEALER)
        socket.close()
        with pytest.raises(zmq.ZMQError, match="socket"):
            receiving.receive(socket)


SHORT_OF_MEMORY = """
import sys, _testcapi, zmq
from aiod import _core
from aiod_client import _ring
from aiod_protocol.zmq_receiving import receiving_by

receiving = receiving_by({"pyzmq": None, "daemon": _core.ZmqReceiver, "client": _ring.ZmqReceiver}[sys.argv[1]])
failures = 0
with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
    dealer.connect(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
    for allocation in range(30):
        dealer.send_multipart([b"one" * 20, bytes(5), b"x" * 100_000])
        dealer.send(b"next")
        router.poll()
        try:
            _testcapi.set_nomemory(allocation, allocation + 1)
            receiving.receive(router, 1)
        except MemoryError:
            failures += 1
        finally:
            _testcapi.remove_mem_hooks()
        frames = []
        while len(frames) != 2:
            router.poll()
            frames = receiving.receive(router, 1) or frames
            assert len(frames) in (0, 2, 4), [bytes(memoryview(frame))[:9] for frame in frames]
        assert bytes(memoryview(frames[1])) == b"next"
assert failures > 3
"""


@pytest.mark.skipif(importlib.util.find_spec("_testcapi") is None, reason="this Python has no _testcapi")
@pytest.mark.parametrize("way", ["pyzmq", "daemon", "client"])
def test_a_message_is_dropped_whole_where_memory_is_short(way: str) -> None:
    """What is left of it is not taken for another message, whose first frame would be the identity of a client."""
    command = [sys.executable, "-c", SHORT_OF_MEMORY, way]  # in a process of its own: no other thread allocates
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert done.returncode == 0, done.stderr
