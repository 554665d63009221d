"""Sends messages on sockets of pyzmq, by a native module (protocol/zmq_sender.hpp) or by pyzmq alone. Never waits."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

import zmq
import zmq.backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    Socket = zmq.Socket[bytes]

COPY_BELOW_BYTES: Final = 256 * 1024
"""pyzmq sends larger frames without a copy; for smaller ones a copy is cheaper than its thread that frees buffers."""

_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_FUNCTIONS: Final = ("zmq_msg_init_size", "zmq_msg_init_data", "zmq_msg_data", "zmq_msg_send", "zmq_msg_close")


class NativeSender(Protocol):
    """A native module's ZmqSender."""

    def __init__(self, init_size: int, init_data: int, data: int, send: int, close: int) -> None: ...

    def send(self, socket: int, frames: Sequence[Any]) -> int:
        """Send a message; 0, or the errno of why not."""

    def release(self) -> None:
        """Release the buffers that were sent."""


class Sending:
    """Sends by pyzmq.

    A large frame is not copied if its buffer is read-only. A writable one is: libzmq releases a buffer some time after
    the message was sent, and a bytearray could not be resized although its write has completed.
    """

    def send(self, socket: Socket, frames: Sequence[Any]) -> int:
        """Send a message; 0, or the errno of why not (only the first frame can be refused).

        All frames are made first: where there is no memory for one, nothing of the message has been sent.
        """
        last = len(frames) - 1
        try:
            made = [zmq.Frame(frame, copy=_is_copied(frame)) for frame in frames]
            for index, frame in enumerate(made):
                socket.send(frame, _NOBLOCK if index == last else _MORE)
        except zmq.ZMQError as error:
            return error.errno or zmq.EAGAIN
        return 0

    def release(self) -> None:
        """Release the buffers that libzmq has sent; pyzmq has a thread for that."""


def _is_copied(frame: bytes | memoryview) -> bool:
    return len(frame) < COPY_BELOW_BYTES or (isinstance(frame, memoryview) and not frame.readonly)


class _NativeSending(Sending):
    def __init__(self, sender: NativeSender) -> None:
        self._send = sender.send
        self.release = sender.release  # type: ignore[method-assign]

    def send(self, socket: Socket, frames: Sequence[Any]) -> int:
        return self._send(socket.underlying, frames)


def sending_by(native: type[NativeSender] | None) -> Sending:
    """How to send with a native module's ZmqSender; by pyzmq if there is none, or libzmq's functions are hidden."""
    addresses = addresses_of(_FUNCTIONS)
    return Sending() if native is None or addresses is None else _NativeSending(native(*addresses))


@functools.cache
def addresses_of(functions: tuple[str, ...]) -> list[int] | None:
    """The addresses of `functions` in the libzmq that pyzmq has loaded: its wheels bring a library of their own."""
    module: Any = sys.modules[zmq.backend.Socket.__module__]
    try:
        import ctypes  # noqa: PLC0415 - a Python that was built without libffi has none

        library = ctypes.CDLL(module.__file__)
        return [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in functions]
    except (ImportError, OSError, AttributeError):
        return None
