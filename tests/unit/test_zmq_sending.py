"""Messages are sent whole, with a copy of what may change, by each of the three ways to send."""

from __future__ import annotations

import ctypes
import errno
import sys
from typing import TYPE_CHECKING

import pytest
import zmq

from aiod import _core
from aiod_client import _ring
from aiod_protocol import zmq_sending
from aiod_protocol.zmq_sending import Sending, sending_by
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = 1 << 20
"""Bytes of a frame that is sent without a copy."""

Socket = zmq.Socket[bytes]


@pytest.fixture(params=["pyzmq", "daemon", "client"])
def sending(request: pytest.FixtureRequest) -> Sending:
    """Each way to send."""
    if request.param == "pyzmq":
        return sending_by(None)
    return sending_by(_core.ZmqSender if request.param == "daemon" else _ring.ZmqSender)


@pytest.fixture
def pair() -> Iterator[tuple[Socket, Socket]]:
    """A ROUTER, which refuses what it cannot deliver, and a DEALER connected to it by tcp."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        router.router_mandatory = True
        router.linger = dealer.linger = 0
        router.rcvtimeo = dealer.rcvtimeo = 60000
        dealer.connect(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
        yield router, dealer


def test_the_native_ways_are_used() -> None:
    # Else the tests below would try pyzmq three times.
    assert type(sending_by(_core.ZmqSender)) is not Sending
    assert type(sending_by(_ring.ZmqSender)) is not Sending


def hide_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a Python that was built without libffi."""
    monkeypatch.setitem(sys.modules, "ctypes", None)


def hide_libzmq(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where pyzmq has a libzmq without symbols."""
    monkeypatch.setattr(zmq_sending, "_FUNCTIONS", ("zmq_msg_no_such_function",))


def take_pyzmq_for_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where pyzmq calls libzmq by cffi: its module is no library."""
    monkeypatch.setattr(zmq.backend, "Socket", type("Socket", (), {"__module__": __name__}))


@pytest.mark.parametrize("lack", [hide_ctypes, hide_libzmq, take_pyzmq_for_python])
def test_it_goes_without_libzmqs_functions(monkeypatch: pytest.MonkeyPatch, lack: Callable[..., None]) -> None:
    monkeypatch.setattr(zmq_sending, "addresses_of", zmq_sending.addresses_of.__wrapped__)
    lack(monkeypatch)
    assert type(sending_by(_core.ZmqSender)) is Sending


def test_frames_of_all_sizes_arrive(sending: Sending, pair: tuple[Socket, Socket]) -> None:
    router, dealer = pair
    frames = [b"header", b"", bytes(range(256)) * (LARGE // 256), memoryview(b"a view"), bytearray(b"array"), b"last"]
    assert sending.send(dealer, frames) == 0
    identity, *received = router.recv_multipart()
    assert received == [bytes(frame) for frame in frames]
    assert sending.send(router, [identity, *frames]) == 0
    assert dealer.recv_multipart() == received


def test_what_is_writable_may_change_at_once(sending: Sending, pair: tuple[Socket, Socket]) -> None:
    router, dealer = pair
    array = bytearray(b"x" * LARGE)
    assert sending.send(dealer, [b"header", memoryview(array)]) == 0
    array[:] = b"y" * LARGE
    array.append(0)  # BufferError if a view of it were left
    assert router.recv_multipart()[2] == b"x" * LARGE


def test_a_buffer_is_released_once_it_was_sent(sending: Sending, pair: tuple[Socket, Socket]) -> None:
    router, dealer = pair
    payload = bytes(LARGE)
    before = sys.getrefcount(payload)
    for _ in range(3):
        assert sending.send(dealer, [payload, payload]) == 0
        router.recv_multipart()

    def released() -> bool:
        sending.release()
        return sys.getrefcount(payload) == before

    wait_until(released, "libzmq has given the buffer back")


def test_a_peer_that_has_gone_is_reported(sending: Sending, pair: tuple[Socket, Socket]) -> None:
    router, _ = pair
    payload = bytes(LARGE)
    before = sys.getrefcount(payload)
    assert sending.send(router, [b"\0none", payload]) == zmq.EHOSTUNREACH
    wait_until(lambda: sys.getrefcount(payload) == before, "the buffer is given back")  # by pyzmq's thread


def test_a_full_queue_is_reported(sending: Sending) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as alone:
        assert sending.send(alone, [b"to no peer"]) == zmq.EAGAIN


def test_a_closed_socket_is_an_error(sending: Sending) -> None:
    with zmq.Context() as context:
        socket = context.socket(zmq.DEALER)
        socket.close()
        assert sending.send(socket, [b"late"]) == zmq.ENOTSOCK


INIT_SIZE = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
INIT_DATA = ctypes.PYFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 5)


@pytest.mark.parametrize("native", [_core.ZmqSender, _ring.ZmqSender])
@pytest.mark.parametrize("count", [3, 20])
@pytest.mark.parametrize("failing", [0, 1])
def test_nothing_is_sent_where_there_is_no_memory_for_a_later_frame(
    native: type[zmq_sending.NativeSender], count: int, failing: int, pair: tuple[Socket, Socket]
) -> None:
    router, dealer = pair
    functions = zmq_sending.addresses_of(zmq_sending._FUNCTIONS)
    assert functions is not None
    kind = (INIT_SIZE, INIT_DATA)[failing]
    real, calls = kind(functions[failing]), []

    def fails_at_last(*arguments: int) -> int:
        calls.append(arguments)
        return -1 if len(calls) == count else real(*arguments)

    fails = kind(fails_at_last)
    addresses = list(functions)
    addresses[failing] = ctypes.cast(fails, ctypes.c_void_p).value or 0
    sender = native(*addresses)
    large = bytes(LARGE)
    before = sys.getrefcount(large)
    assert sender.send(dealer.underlying, [b"small", large] * count) == errno.ENOMEM
    assert len(calls) == count
    assert sys.getrefcount(large) == before
    assert sender.send(dealer.underlying, [b"whole", b"message"]) == 0
    assert router.recv_multipart()[1:] == [b"whole", b"message"]


def test_pyzmq_sends_nothing_where_a_later_frame_cannot_be_made(pair: tuple[Socket, Socket]) -> None:
    router, dealer = pair
    with pytest.raises(BufferError):
        sending_by(None).send(dealer, [b"first", memoryview(b"not contiguous")[::2]])
    assert sending_by(None).send(dealer, [b"whole", b"message"]) == 0
    assert router.recv_multipart()[1:] == [b"whole", b"message"]
