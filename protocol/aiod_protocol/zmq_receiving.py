"""Receives messages on sockets of pyzmq, by a native module (protocol/zmq_receiver.hpp) or pyzmq alone. Never waits."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final, Protocol

import zmq

from aiod_protocol.zmq_sending import addresses_of

if TYPE_CHECKING:
    Socket = zmq.Socket[bytes]

_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE_FOLLOWS: Final = int(zmq.RCVMORE)
_FUNCTIONS: Final = (
    "zmq_msg_init",
    "zmq_msg_recv",
    "zmq_msg_size",
    "zmq_msg_data",
    "zmq_msg_more",
    "zmq_msg_get",
    "zmq_msg_gets",
    "zmq_msg_close",
)


class NativeReceiver(Protocol):
    """A native module's ZmqReceiver."""

    def __init__(
        self, init: int, receive: int, size: int, data: int, more: int, get: int, gets: int, close: int
    ) -> None: ...

    def receive(self, socket: int, leading: int) -> Any:
        """The frames of the next message, of which the first `leading` are bytes; or the errno of why there is none."""


class Receiving:
    """Receives by pyzmq."""

    def receive(self, socket: Socket, leading: int = 0) -> list[Any] | None:
        """The frames of the next message; None: none has arrived. ZMQError if the socket is closed.

        MemoryError if there is none for a frame: then the whole message is dropped.
        The first `leading` are bytes; the others have what is used of zmq.Frame: `buffer`, get(), the buffer protocol.
        """
        events: Any = socket.getsockopt(_EVENTS)
        if not events & _POLLIN:
            return None
        try:
            return _frames_of(socket, leading)
        except MemoryError:
            while socket.getsockopt(_MORE_FOLLOWS):  # else taken for the next message
                socket.recv(_NOBLOCK)
            raise


def _frames_of(socket: Socket, leading: int) -> list[Any]:
    frames: list[Any] = []
    while True:
        frame = socket.recv(_NOBLOCK, copy=False)
        frames.append(frame if len(frames) >= leading else frame.bytes)
        if not frame.more:
            return frames


class _NativeReceiving(Receiving):
    def __init__(self, receiver: NativeReceiver) -> None:
        self._receive = receiver.receive

    def receive(self, socket: Socket, leading: int = 0) -> list[Any] | None:
        frames = self._receive(socket.underlying, leading)
        if type(frames) is not int:
            received: list[Any] = frames
            return received
        if frames != errno.EAGAIN:
            raise zmq.ZMQError(frames)
        return None


def receiving_by(native: type[NativeReceiver] | None) -> Receiving:
    """How to receive with a native module's ZmqReceiver; by pyzmq without one, or if libzmq's functions are hidden."""
    addresses = addresses_of(_FUNCTIONS)
    return Receiving() if native is None or addresses is None else _NativeReceiving(native(*addresses))
