"""One ZeroMQ connection to one endpoint. It never reconnects.

libzmq would deliver messages queued for a dead daemon to its successor. So a DEALER here lives as long as its first
connection; another connection needs another Dealer. Each has a context of its own, so that closing one waits for
nothing else. Not thread-safe: the owner's lock or event loop protects it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import struct
import sys
import traceback
from typing import TYPE_CHECKING, Final

import zmq

from aiod_client.errors import AiodError, gone, key_unknown, no_handshake
from aiod_client.ring import native
from aiod_protocol import zmq_calls
from aiod_protocol.zmq_receiving import receiving_by
from aiod_protocol.zmq_sending import sending_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiod_client.keys import Keys

FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
"""A longer frame ends the connection (session/in_flight.py asks for less)."""

QUEUE_MESSAGES_MAX: Final = 4096
"""Messages libzmq may hold unsent; credit keeps their bytes small."""

_LARGE_BLOCK_BYTES: Final = 32 * 1024 * 1024 - 64 * 1024  # just below the maximum of the thresholds

LINGER_MS: Final = 200
"""How long the close() of a session's connection may take to send the last messages.

There is another reason: libzmq 4.3.5 aborts the process when a peer disconnects just after a socket was closed without
linger in the middle of a message of several frames (clean_pipes() in its session_base.cpp; its issue 3442).
"""

_NEVER_MS: Final = 2**30
"""libzmq's delay before it reconnects: longer than a Dealer lives.

Not -1, which means never: with it the end of the connection drops messages that have arrived and are not received
(session_base_t::reconnect() has the endpoint terminated, and its pipe without delay).
"""

_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_EVENT: Final = struct.Struct("=HI")
"""Number and value of a monitor's event; the endpoint follows in a frame of its own."""
_NO_HANDSHAKE: Final = (
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_AUTH
)
_ENDINGS: Final = zmq.Event.DISCONNECTED | zmq.Event.CLOSED | _NO_HANDSHAKE


@functools.cache
def _keep_large_blocks() -> None:
    """Have glibc reuse blocks of megabytes, instead of mapping each one and faulting in all its pages.

    glibc raises its thresholds when the first large block is freed (mallopt(3), M_MMAP_THRESHOLD), which most programs
    do at some time. Reads of 1 MiB are 2.3 times as fast then. The block freed here is never touched.
    """
    bytes(_LARGE_BLOCK_BYTES)


class _OwnContext(zmq.Context["zmq.Socket[bytes]"]):
    """A context that ends its sockets itself when it is dropped.

    pyzmq's own finds them by weak references. The garbage collector clears these before it calls __del__ of what is
    part of a cycle (a client whose event loop has ended). Then the context would wait for its open sockets for ever.
    """

    held: Sequence[zmq.Socket[bytes]] = ()
    pid = 0

    def __del__(self) -> None:
        if self.pid == os.getpid() and not sys.is_finalizing():
            zmq_calls.end(self, self.held, LINGER_MS)
        super().__del__()


class Dealer:
    """A DEALER socket, and the monitor that reports the end of its connection.

    `fd` and `monitor_fd` become readable when something *may* have happened (edge-triggered): call receive() until it
    returns None, and again after every send().
    """

    def __init__(self, endpoint: str, keys: Keys | None = None) -> None:
        """Begin to connect to `endpoint`, with `keys` by CURVE. Raises AiodError if libzmq cannot."""
        _keep_large_blocks()
        self._sending = sending_by(None if native.ring is None else native.ring.ZmqSender)
        self._receiving = receiving_by(None if native.ring is None else native.ring.ZmqReceiver)
        self.endpoint = endpoint
        self._with_keys = keys is not None
        self._pid = os.getpid()
        self._ended = False
        self._refused: zmq.Event | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._context = _OwnContext()
        self._context.held, self._context.pid = self._sockets, self._pid
        try:
            self._socket = self._context.socket(zmq.DEALER)
            self._sockets.append(self._socket)
            self._connect(endpoint, keys)
            self.fd = int(self._socket.getsockopt(zmq.FD))
            self.monitor_fd = int(self._monitor.getsockopt(zmq.FD))
        except BaseException as error:
            # The traceback may hold a socket that is not in the list yet, and the context would wait for it.
            traceback.clear_frames(error.__traceback__)
            zmq_calls.end(self._context, self._sockets, 0)
            if not isinstance(error, zmq.ZMQError):
                raise
            raise AiodError(error.errno or errno.EINVAL, f"cannot connect to {endpoint}: {error.strerror}") from error

    def _connect(self, endpoint: str, keys: Keys | None) -> None:
        socket = self._socket
        socket.setsockopt(zmq.IPV6, 1)
        if keys is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        socket.setsockopt(zmq.RECONNECT_IVL, _NEVER_MS)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, QUEUE_MESSAGES_MAX)
        socket.setsockopt(zmq.RCVHWM, 0)  # the credit bounds what can arrive
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        self._monitor = zmq_calls.monitor_of(socket, _ENDINGS)
        self._sockets.append(self._monitor)
        zmq_calls.repeated(lambda: socket.connect(endpoint))

    def send(self, message: Sequence[bytes | memoryview]) -> bool:
        """Queue `message`; False: the queue is full, try again later (or the connection is known to have ended).

        Large read-only payloads are not copied.
        """
        if self._ended:
            return False
        error = self._sending.send(self._socket, message)
        if error and error != zmq.EAGAIN:
            raise zmq.ZMQError(error)
        return not error

    def receive(self) -> list[memoryview] | None:
        """The next message's frames, or None if there is none."""
        frames = self._receiving.receive(self._socket)
        return None if frames is None else [memoryview(frame) for frame in frames]

    def has_ended(self) -> bool:
        """Whether the connection has ended, or was not established. Messages received before may still be there.

        Buffers that were sent are released, also where nothing is sent or received any more.
        """
        self._sending.release()
        while self._monitor.getsockopt(_EVENTS) & _POLLIN:  # type: ignore[operator]
            # Not zmq.utils.monitor, which imports asyncio.
            event, _ = _EVENT.unpack(self._monitor.recv_multipart(_NOBLOCK)[0])
            self._ended = bool(event & _ENDINGS) or self._ended
            if event & _NO_HANDSHAKE:
                self._refused = zmq.Event(event)
        return self._ended

    def why_ended(self) -> OSError:
        """The exception for a connection that has ended before an answer."""
        if self._refused is None or not self.endpoint.startswith("tcp:"):
            return gone(self.endpoint)
        if self._refused == zmq.Event.HANDSHAKE_FAILED_AUTH:
            return key_unknown(self.endpoint)
        return no_handshake(self.endpoint, with_keys=self._with_keys)

    def close(self, linger_ms: int = 0) -> None:
        """Close the sockets. Does nothing in a forked child.

        Takes up to `linger_ms` where messages are still queued and the connection has not ended; give LINGER_MS once a
        message of several frames was sent.
        """
        if self._pid != os.getpid() or self._context.closed:
            return
        try:
            with contextlib.suppress(zmq.ZMQError):  # the monitor of a dead socket may be closed already
                self._socket.disable_monitor()
        finally:  # also if a signal handler raises
            zmq_calls.end(self._context, self._sockets, 0 if self._ended else linger_ms)
            self._sending.release()
