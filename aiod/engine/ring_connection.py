"""One connection to the ring socket (docs/ring.md): its messages, the timeout of ATTACH, and its end."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final, Protocol

from aiod.net.peer import Peer
from aiod.net.peer_groups import credentials_of
from aiod.util import logs
from aiod_protocol import ring_wire
from aiod_protocol.ring_wire import RingFeature, RingMessage, SessionFlag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiod.engine.session import Session

log = logging.getLogger(__name__)

_ATTACH_TIMEOUT_S: Final = 10.0
_MESSAGES_A_TURN: Final = 16


class ConnectionOwner(Protocol):
    """Handles the messages of connections (rings.py)."""

    def receive(self, connection: Connection, message: bytes) -> None:
        """Handle one message of a client."""

    def is_attaching(self, connection: Connection) -> bool:
        """Whether the core is making its ring's memory."""

    def ended(self, session: Session, reason: str) -> None:
        """End the session of a connection that has ended."""

    def forget(self, connection: Connection) -> None:
        """Drop a connection that was closed."""


class Connection:
    """One connection to the ring socket. Main loop thread only."""

    def __init__(self, owner: ConnectionOwner, connection: socket.socket) -> None:
        """Take over `connection`, from which nothing has been read."""
        pid, uid, gid = credentials_of(connection)
        self.peer = Peer(b"", connection.fileno(), "ring", uid, gid, pid)
        self.socket = connection
        self.session: Session | None = None
        self._owner = owner
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_ATTACH_TIMEOUT_S, self._has_not_attached)
        loop.add_reader(connection, self._readable)

    def close(self) -> None:
        """Close the connection; the client sees that at once. Idempotent."""
        if self.socket.fileno() < 0:
            return
        self._timer.cancel()
        asyncio.get_running_loop().remove_reader(self.socket)
        # close() alone is not enough: the ring has a duplicate of it for as long as requests are in flight.
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("a ring's connection was closed already: %s", error.strerror)
        self.socket.close()
        self._owner.forget(self)

    def reply(
        self, cookie: int, result: int, text: str | None, *, reason: int, file: Iterable[int] | None = None
    ) -> None:
        """Answer a message, or a refused ATTACH. `file`: device, inode and generation of the opened file."""
        said = (text or "").encode(errors="replace")[: ring_wire.ERROR_MESSAGE_BYTES_MAX]
        if file is not None:
            said = ring_wire.FILE.pack(*file)
        self._send(ring_wire.REPLY.pack(RingMessage.REPLY, reason, cookie, result) + said)

    def go(self) -> None:
        """Let the client of a resumed session send new requests."""
        if not self._owner.is_attaching(self):  # else ATTACHED says it
            self._send(ring_wire.PLAIN.pack(RingMessage.GO, 0))

    def _send(self, message: bytes) -> None:
        try:
            self.socket.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            about = logs.about(client=self.session.short_id if self.session is not None else None, error=error)
            log.info("%s: cannot send an answer (%s)", self.session or self.peer, error.strerror, extra=about)
            self._end("it does not read its replies, or has gone")

    def attaches(self, session: Session) -> None:
        """Remember the session of its ATTACH. Nothing is read until attached(): later messages wait in the socket."""
        self._timer.cancel()
        self.session = session
        asyncio.get_running_loop().remove_reader(self.socket)

    def attached(self, session: Session, fds: list[int]) -> None:
        """Answer ATTACH. Raises OSError when the client has gone."""
        asyncio.get_running_loop().add_reader(self.socket, self._readable)
        message = ring_wire.ATTACHED.pack(
            RingMessage.ATTACHED,
            ring_wire.VERSION,
            session.ring_bytes,
            session.request_bytes_max,
            session.ring_entries,
            RingFeature.LOCKS if session.by_socket else 0,
        )
        if session.by_socket and session.resumable:
            flags = SessionFlag.GRACE if session.resumed else SessionFlag(0)
            message += ring_wire.SESSION.pack(session.token, flags, 0)
        socket.send_fds(self.socket, [message], fds, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _has_not_attached(self) -> None:
        log.info("%s connected to the ring socket, but did not attach", self.peer)
        self.close()

    def _readable(self) -> None:
        for _ in range(_MESSAGES_A_TURN):
            try:
                message = self.socket.recv(ring_wire.MESSAGE_BYTES_MAX, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._end("")
                return
            self._owner.receive(self, message)
            if self.socket.fileno() < 0 or self._owner.is_attaching(self):
                return

    def _end(self, reason: str) -> None:
        if self.session is not None:
            self._owner.ended(self.session, reason)
        self.close()
