"""A ROUTER socket on the running event loop, which protects the process from libzmq's pitfalls.

The pitfalls, and the measures against them:

* libzmq silently takes over the ipc path of a live process, and a closing socket unlinks the path that its successor
  has bound meanwhile. So this module owns the listening socket (ZMQ_USE_FD): it is bound once, under the caller's lock,
  and kept over a rebind.
* ZMQ_FD is edge-triggered: any call on the socket may consume the edge. So after each event, and after each send, the
  socket is read until it is empty.
* A peer may choose its routing id. libzmq aborts the process when it assigns the same id (a zero byte and a number that
  counts up from an unseeded rand()) to another peer. So rand() is seeded, a peer whose id libzmq cannot have assigned
  is shut down with its first message, and so is a connection that sends nothing for SILENT_S.
* libzmq aborts the process when accept() has no descriptor left. So connections are counted by the socket monitor, and
  those above a limit far below RLIMIT_NOFILE are shut down. (Unbinding instead would end all connections.)
* libzmq aborts the process when a peer disconnects just after our socket was closed without linger in the middle of a
  message of several frames (clean_pipes() in its session_base.cpp, 4.3.5). So no socket is closed without linger.
* A peer's address on tcp can look like an ipc address, which contains its uid. So each transport has a Router of its
  own, the uid is read on ipc only, and a User-Id is trusted on CURVE only.
* libzmq buffers undelivered messages, and a message whose last frame never comes, without a bound. `rebind` drops them
  all; the owner calls it when the process has grown too large.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import math
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final, cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from aiod._core import ZmqReceiver, ZmqSender
from aiod.net.peer import Peer
from aiod.net.unix_listener import listen, stop_listening
from aiod.util.process_limits import connections_max
from aiod_protocol.zmq_calls import monitor_of, repeated
from aiod_protocol.zmq_receiving import receiving_by
from aiod_protocol.zmq_sending import sending_by

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiod.engine_api.settings import KeyOwner
    from aiod.net.curve import Curve

log = logging.getLogger(__name__)

SILENT_S: Final = 5.0
"""Time within which a connection has to send its first message."""

_MESSAGES_PER_TURN: Final = 64
_SEND_HWM_MESSAGES: Final = 1024
_RECEIVE_HWM_MESSAGES: Final = 64
_AUTO_ID_BYTES: Final = 5
_AUTO_IDS: Final = 1 << 32
_REBIND_LINGER_MS: Final = 50
_KEEPALIVE: Final = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 60,  # seconds, this and the next
    zmq.TCP_KEEPALIVE_INTVL: 10,
    zmq.TCP_KEEPALIVE_CNT: 6,
}
_UNREACHABLE: Final = (zmq.EAGAIN, zmq.EHOSTUNREACH, errno.ENOMEM)
"""Nothing of the message was sent. The owner ends the session, so that its requests end."""
# The value of both is the descriptor. That of a failed handshake is an errno; DISCONNECTED follows it.
_OPENED: Final = zmq.EVENT_ACCEPTED
_CLOSED: Final = zmq.EVENT_DISCONNECTED


class Router:
    """A bound ROUTER. Main loop thread only; nothing here blocks."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        on_message: Callable[[Peer, list[zmq.Frame]], None],
        *,
        message_bytes_max: int,
        name: str,
        listener: socket.socket | None = None,
        curve: Curve | None = None,
    ) -> None:
        """Serve `endpoint` (ipc://PATH). A stale socket file there is replaced, so the caller must hold a lock.

        `listener` listens there already, and stays the caller's; `rebind` keeps that endpoint then. tcp requires it,
        and `curve` has the keys of the clients; without `curve` anyone may connect, and has no identity.
        `on_message(peer, frames)` gets every message without its routing id. `message_bytes_max` bounds one frame.
        Raises OSError with a message when the endpoint cannot be bound.
        """
        self._context = context
        self._sending = sending_by(ZmqSender)
        self._receiving = receiving_by(ZmqReceiver)
        self._on_message = on_message
        self._message_bytes_max = message_bytes_max
        self._name = name
        self._paused = False
        self._drain_scheduled = False
        self._draining = False
        self._peers: dict[bytes, Peer] = {}
        self._connections: dict[int, float] = {}  # descriptor -> time of accept(); inf: it has sent a message
        self._accepted = 0
        self._silence_timer: asyncio.TimerHandle | None = None
        self._connections_max = connections_max()
        self._refused_connections = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self.endpoint = endpoint
        self._is_lent = listener is not None
        self._is_local = endpoint.startswith("ipc://")
        self._curve = curve
        self._listener = listener or listen(endpoint)
        self._open_socket()

    # ---- life

    def start(self) -> None:
        """Begin to serve on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._watch()

    def rebind(self, endpoint: str) -> None:
        """Drop all connections and buffered messages, and serve `endpoint`, old or new, with a new socket."""
        self._unwatch()
        self._close_socket(_REBIND_LINGER_MS)
        if endpoint != self.endpoint:
            self._close_listener()
            self.endpoint = endpoint
            self._listener = listen(endpoint)
        self._paused = False
        self._open_socket()
        self._watch()

    def pause(self) -> None:
        """Read no more messages until `resume`; libzmq buffers some, and then blocks the senders."""
        self._paused = True

    def resume(self) -> None:
        """Undo `pause`."""
        if self._paused:
            self._paused = False
            self._schedule_drain()

    @property
    def paused(self) -> bool:
        """Whether messages are left unread on purpose."""
        return self._paused

    def close(self, linger_ms: int) -> None:
        """Close the socket. Idempotent.

        Messages already sent have `linger_ms` to leave; the context's end waits for that.
        """
        if self._socket.closed:
            return
        self._unwatch()
        self._close_socket(linger_ms)
        self._close_listener()

    def stats(self) -> dict[str, int]:
        """Number of connections, and of connections refused so far because of the limit."""
        return {"connections": len(self._connections), "refused_connections": self._refused_connections}

    # ---- messages

    def send(self, peer: Peer, frames: Sequence[Any]) -> bool:
        """Queue a message for `peer`. False: the peer has gone, its queue is full, or there is no memory."""
        error = self._sending.send(self._socket, [peer.routing_id, *frames])
        # Sending may have consumed the FD's edge of a message that has arrived.
        if not self._draining:
            self._schedule_drain()
        if error and error not in _UNREACHABLE:
            raise zmq.ZMQError(error)
        return not error

    def shut_down(self, peer: Peer) -> None:
        """End the connection of `peer`, and drop the messages queued for it."""
        self._drain_monitor()
        if peer.fd in self._connections and self._peers.get(peer.routing_id) is peer:
            self._shut_down(peer.fd)

    def shut_down_unknown_keys(self) -> None:
        """End the connections of peers whose key was removed, or has another owner now."""
        for peer in list(self._peers.values()):
            if peer.owner is not None and peer.owner != self._owner(peer.owner.public_key):
                self.shut_down(peer)

    def _drain(self) -> None:
        """Deliver the messages that have arrived, a bounded number per turn of the loop."""
        self._drain_scheduled = False
        self._draining = True
        self._sending.release()
        try:
            for _ in range(_MESSAGES_PER_TURN):
                # Checked before each message: the answer to the last one may have consumed the FD's edge.
                if self._paused or self._socket.closed or not self._deliver():
                    return
        finally:
            self._draining = False
        self._schedule_drain()

    def _deliver(self) -> bool:
        """Receive one message, which libzmq prefixes with the routing id, and deliver it. False: there is none."""
        received = self._receiving.receive(self._socket, 1)
        if received is None:
            return False
        routing_id, *frames = received
        peer = self._peers.get(routing_id)
        if peer is None:
            peer = self._new_peer(routing_id, frames[0])
        if peer is not None:
            self._on_message(peer, frames)
        return True

    def _new_peer(self, routing_id: bytes, frame: zmq.Frame) -> Peer | None:
        """The peer with `routing_id`, whose first message begins with `frame`. None: it was rejected.

        libzmq never assigns an id twice, so each stands for one connection of this socket.
        """
        self._drain_monitor()
        fd = frame.get(zmq.SRCFD)
        peer = self._identify(routing_id, fd, frame)
        if not self._assigned(routing_id):
            log.warning("%s: shut down a connection of %s, which chose its own routing id", self._name, peer)
            self._shut_down(fd)
            return None
        if self._curve is not None and peer.owner is None:
            log.warning("%s: shut down a connection from %s, whose key has been removed", self._name, peer.address)
            self._shut_down(fd)
            return None
        if fd in self._connections:
            self._connections[fd] = math.inf
        if len(self._peers) > 2 * self._connections_max:
            self._peers.clear()
        self._peers[routing_id] = peer
        return peer

    def _identify(self, routing_id: bytes, fd: int, frame: zmq.Frame) -> Peer:
        address = str(frame.get("Peer-Address"))
        if self._is_local:
            uid, gid, pid = _credentials(address)
            return Peer(routing_id, fd, address, uid, gid, pid, None, self)
        owner = self._owner(str(frame.get("User-Id"))) if self._curve is not None else None
        if owner is None:
            return Peer(routing_id, fd, address, -1, -1, -1, None, self)
        return Peer(routing_id, fd, address, owner.uid, owner.gid, -1, owner, self)

    def _owner(self, public_key: str) -> KeyOwner | None:
        return self._curve.owners.get(public_key) if self._curve is not None else None

    def _assigned(self, routing_id: bytes) -> bool:
        """Whether libzmq can have assigned it: it has used one number for each connection."""
        if len(routing_id) != _AUTO_ID_BYTES or routing_id[0] != 0:
            return False
        return (int.from_bytes(routing_id[1:]) - self._first_id) % _AUTO_IDS <= self._accepted

    def _schedule_drain(self) -> None:
        if not self._drain_scheduled and self._loop is not None:
            self._drain_scheduled = True
            self._loop.call_soon(self._drain_if_open)

    def _drain_if_open(self) -> None:
        if not self._socket.closed:
            self._drain()

    # ---- connections

    def _drain_monitor(self) -> None:
        refused_before = self._refused_connections
        now_s = time.monotonic()
        while cast("int", self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
            if event["event"] & _OPENED:
                self._accepted += 1
                self._connections[event["value"]] = now_s
                if len(self._connections) > self._connections_max:
                    self._refused_connections += 1
                    self._shut_down(event["value"])
            elif event["event"] & _CLOSED:
                self._connections.pop(event["value"], None)
        self._log_refused(refused_before)

    def _shut_down(self, fd: int) -> None:
        """Shut down the connection whose descriptor in libzmq is `fd`.

        libzmq may have closed it meanwhile, and the number may have been reused: so only a connection that was accepted
        on our own path or port is shut down.
        """
        try:
            duplicate = os.dup(fd)
        except OSError:
            return  # closed meanwhile
        try:
            connection = socket.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)
            return  # the number was reused for something else
        with connection, contextlib.suppress(OSError):
            if connection.family == self._listener.family and self._accepted_here(connection):
                connection.shutdown(socket.SHUT_RDWR)

    def _accepted_here(self, connection: socket.socket) -> bool:
        here, listening = connection.getsockname(), self._listener.getsockname()
        return bool(here == listening if self._is_local else here[1] == listening[1])

    def _shut_down_silent(self) -> None:
        """End the connections that have sent nothing for SILENT_S. Release what was sent last."""
        assert self._loop is not None, "start() comes first"  # noqa: S101 - an internal error
        self._sending.release()
        until_s = time.monotonic() - SILENT_S
        if not self._paused:  # else their messages may be unread
            silent = [fd for fd, accepted_s in self._connections.items() if accepted_s < until_s]
            for fd in silent:
                self._connections[fd] = math.inf  # once is enough: the monitor reports its end
                self._shut_down(fd)
            if silent:
                log.warning(
                    "%s: shut down %d connections that had sent nothing for %g s", self._name, len(silent), SILENT_S
                )
        self._silence_timer = self._loop.call_later(SILENT_S / 4, self._shut_down_silent)

    def _log_refused(self, before: int) -> None:
        """Log one line for many connections, so that a flood of them does not cost time by logging."""
        refused = self._refused_connections - before
        if refused:
            log.warning("%s: refused %d connections above %d", self._name, refused, self._connections_max)

    # ---- the socket

    def _open_socket(self) -> None:
        _seed_rand()
        router = self._context.socket(zmq.ROUTER)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.MAXMSGSIZE, self._message_bytes_max)
        router.setsockopt(zmq.SNDHWM, _SEND_HWM_MESSAGES)
        router.setsockopt(zmq.RCVHWM, _RECEIVE_HWM_MESSAGES)
        self._first_id = _first_id(self._context, router)
        if not self._is_local:
            router.setsockopt(zmq.HANDSHAKE_IVL, int(SILENT_S * 1000))
            # Detects a peer that has lost its power or its network.
            for option, value in _KEEPALIVE.items():
                router.setsockopt(option, value)
            if self._curve is not None:
                self._curve.protect(router)
        self._monitor = monitor_of(router, _OPENED | _CLOSED)
        router.setsockopt(zmq.USE_FD, os.dup(self._listener.fileno()))
        router.bind(self.endpoint)
        self._peers.clear()
        self._connections.clear()
        self._accepted = 0
        self._socket = router

    def _watch(self) -> None:
        assert self._loop is not None, "start() comes first"  # noqa: S101 - an internal error
        self._loop.add_reader(self._socket.fileno(), self._drain)
        self._loop.add_reader(self._monitor.fileno(), self._drain_monitor)
        self._shut_down_silent()
        self._drain_monitor()
        self._schedule_drain()

    def _unwatch(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_reader(self._monitor.fileno())
        if self._silence_timer is not None:
            self._silence_timer.cancel()

    def _close_socket(self, linger_ms: int) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(linger_ms)

    def _close_listener(self) -> None:
        if not self._is_lent:
            stop_listening(self._listener, self.endpoint)


def _seed_rand() -> None:
    """Make libc's rand() unpredictable: libzmq takes a ROUTER's first id from it."""
    ctypes.CDLL(None).srand(ctypes.c_uint(int.from_bytes(os.urandom(4))))


def _first_id(context: zmq.Context[zmq.Socket[bytes]], router: zmq.Socket[bytes]) -> int:
    """The number in the first id that `router`, without connections, assigns: a connection of our own gets it."""
    endpoint = f"inproc://first-id-{os.urandom(8).hex()}"
    router.bind(endpoint)
    with context.socket(zmq.DEALER) as dealer:
        dealer.connect(endpoint)
        dealer.send(b"")
        routing_id = router.recv_multipart()[0]
    repeated(lambda: router.unbind(endpoint))
    return int.from_bytes(routing_id[1:])


def _credentials(address: str) -> tuple[int, int, int]:
    """uid, gid and pid of libzmq's Peer-Address on ipc: host:uid:gid:pid."""
    try:
        _, uid, gid, pid = address.rsplit(":", 3)
        return int(uid), int(gid), int(pid)
    except ValueError:
        return -1, -1, -1
