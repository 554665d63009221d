"""The ring socket: attaches rings to sessions, and takes the messages of sessions that begin here (docs/ring.md).

A connection begins with ATTACH. With a ticket, the ring is attached to a session that began over ZeroMQ; without one, a
session begins (so that a C program needs no ZeroMQ). The end of the connection is the end of the session: the kernel
reports it at once, however the client ended.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from aiod.engine import ring_links
from aiod.engine.errors import refused
from aiod.engine.file_requests import ReopenRequest
from aiod.engine.ring_connection import Connection
from aiod.net.peer_groups import groups_of
from aiod.util import logs
from aiod_protocol import ring_wire
from aiod_protocol.messages import errno_message
from aiod_protocol.reasons import Reason, reason_of
from aiod_protocol.ring_wire import AttachFlag, RingMessage

if TYPE_CHECKING:
    from aiod._core import AttachResult, Core
    from aiod.engine.ring_locks import RingLocks
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings
    from aiod.net.peer import Peer

log = logging.getLogger(__name__)

_NO_TICKET: Final = bytes(ring_wire.TICKET_BYTES)
_BACKLOG: Final = 128
_ENTRY_BYTES: Final = 64 + 32  # of both queues
_HEADER_BYTES: Final = 2 * 4096  # with rounding


class SessionBook(Protocol):
    """The sessions, as the ring socket needs them (sessions.py)."""

    def by_ticket(self, ticket: bytes) -> Session | None:
        """The session that may attach a ring with `ticket`; a ticket is valid once."""

    def end(self, session: Session, reason: str = "") -> None:
        """End the session."""


class Handlers(Protocol):
    """What the engine does with the messages of a session that began here (message_handlers.py)."""

    def begin_by_socket(
        self, peer: Peer, gids: frozenset[int], software: str, resume: bytes, *, resumable: bool
    ) -> Session:
        """Begin a session. Raises OSError.

        `resume`: token of the session that the client had with a previous engine; empty: it had none. `resumable`:
        whether it wants to resume this one at the next engine.
        """

    def open(self, session: Session, cookie: int, export: str, path: str, flags: int, mode: int) -> None:
        """OPEN; answered by REPLY."""

    def reopen(self, session: Session, cookie: int, handle: int, opened: ReopenRequest) -> None:
        """REOPEN; answered by REPLY."""

    def repeated(self, session: Session) -> None:
        """REPEATED; answered by GO."""

    def close(self, session: Session, cookie: int, handle: int) -> None:
        """CLOSE; answered by REPLY."""


class Rings:
    """The ring socket of this engine, and its connections. Main loop thread only."""

    def __init__(
        self, settings: EngineSettings, core: Core, sessions: SessionBook, handlers: Handlers, locks: RingLocks
    ) -> None:
        """`handlers` and `locks` handle the messages of sessions that began here."""
        self._settings = settings
        self._core = core
        self._sessions = sessions
        self._handlers = handlers
        self._locks = locks
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._attaching: dict[Session, Connection] = {}  # the core is making the ring's memory

    # ---- life

    def start(self) -> None:
        """Listen, if rings are allowed. Raises OSError when the socket cannot be bound."""
        if self._settings.rings_max == 0:
            return
        path = Path(self._settings.ring_path)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        self._listener.listen(_BACKLOG)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        ring_links.create(self._settings, self._settings.exports)

    def apply(self, settings: EngineSettings) -> None:
        """Use other exports and limits from now on."""
        before, self._settings = self._settings, settings
        if self._listener is not None:
            ring_links.create(settings, settings.exports.keys() - before.exports.keys())
            ring_links.remove(settings, before.exports.keys() - settings.exports.keys())

    def stop(self) -> None:
        """Close the socket and the connections."""
        for connection in list(self._connections):
            connection.close()
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        Path(self._settings.ring_path).unlink(missing_ok=True)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that was closed."""
        self._connections.discard(connection)
        if connection.session is not None:
            self._attaching.pop(connection.session, None)

    def is_attaching(self, connection: Connection) -> bool:
        """Whether the core is making its ring's memory."""
        return connection.session in self._attaching

    def ended(self, session: Session, reason: str) -> None:
        """End the session of a connection that has ended."""
        if not session.ended:
            default = "" if session.by_socket else "its process has exited, or has closed its ring"
            self._sessions.end(session, reason or default)

    def _accept(self) -> None:
        assert self._listener is not None, "start() comes first"  # noqa: S101 - an internal error
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ECONNABORTED}:
                log.warning(
                    "cannot accept a connection to the ring socket: %s", error.strerror, extra=logs.about(error=error)
                )
            return
        if len(self._connections) >= 2 * self._settings.rings_max:
            connection.close()
            return
        self._connections.add(Connection(self, connection))

    # ---- messages

    def receive(self, connection: Connection, message: bytes) -> None:
        """Handle one message of a client."""
        try:
            if connection.session is None:
                self._attach(connection, message)
            else:
                self._ask(connection, connection.session, message)
        except (struct.error, UnicodeDecodeError) as error:
            log.warning("%s: malformed message on its ring socket: %s", connection.peer, error)
            if connection.session is not None:
                self.ended(connection.session, "malformed message on its ring socket")
            connection.close()

    def _ask(self, connection: Connection, session: Session, message: bytes) -> None:
        kind = ring_wire.HEAD.unpack_from(message)[0]
        if kind == RingMessage.OPEN and session.by_socket:
            _, flags, cookie, mode, _ = ring_wire.OPEN.unpack_from(message)
            self._handlers.open(session, cookie, *_export_and_path(message[ring_wire.OPEN.size :]), flags, mode)
        elif kind == RingMessage.CLOSE and session.by_socket:
            _, handle, cookie = ring_wire.CLOSE.unpack(message)
            self._handlers.close(session, cookie, handle)
        elif kind == RingMessage.REOPEN and session.by_socket:
            self._reopen(session, message)
        elif kind == RingMessage.REPEATED and session.by_socket:
            self._handlers.repeated(session)
        elif kind in (RingMessage.LOCK, RingMessage.UNLOCK) and session.by_socket:
            self._locks.receive(session, message)
        elif kind == RingMessage.GOODBYE:
            self._sessions.end(session)
            connection.close()
        else:
            self.ended(session, f"message {kind} on its ring socket, which does not belong there")
            connection.close()

    def _reopen(self, session: Session, message: bytes) -> None:
        _, flags, cookie, handle, changed, dev, ino, generation = ring_wire.REOPEN.unpack_from(message)
        if handle == 0:
            raise struct.error("REOPEN of handle 0")
        export, path = _export_and_path(message[ring_wire.REOPEN.size :])
        opened = ReopenRequest(export, path, flags, dev, ino, generation, changed=bool(changed))
        self._handlers.reopen(session, cookie, handle, opened)

    def _attach(self, connection: Connection, message: bytes) -> None:
        try:
            entries, area_bytes, session = self._check_attach(connection, message)
        except OSError as error:
            self._refuse(connection, error)
            return
        try:
            memory_bytes = self._core.attach(session.core, connection.socket.fileno(), entries, area_bytes)
        except OSError as error:
            self._not_attached(connection, session, error.errno or errno.EIO)
            return
        connection.attaches(session)
        self._attaching[session] = connection
        session.ring, session.ring_entries, session.ring_bytes = connection, entries, memory_bytes

    def finished(self, result: AttachResult) -> None:
        """The memory of a session's ring is made, or cannot be made."""
        session: Session | None = result[0].tag
        connection = self._attaching.pop(session, None) if session is not None else None
        if session is None or connection is None:
            return  # the session has ended meanwhile, and its connection was closed with it
        _, number, *fds = result
        if number:
            session.ring, session.ring_entries, session.ring_bytes = None, 0, 0
            connection.session = None  # it continues without a ring, if it began over ZeroMQ
            self._not_attached(connection, session, number)
            return
        try:
            connection.attached(session, fds)
        except OSError:
            self.ended(session, "the client had gone before its ring was made")
            connection.close()
            return
        log.debug("%s has a ring of %d entries, %d bytes", session, session.ring_entries, session.ring_bytes)

    def _not_attached(self, connection: Connection, session: Session, number: int) -> None:
        if session.by_socket:
            self._sessions.end(session, "its ring could not be made")
        self._refuse(connection, OSError(number, errno_message("attach a ring", number)))

    def _check_attach(self, connection: Connection, message: bytes) -> tuple[int, int, Session]:
        """Entries, bytes of the buffer pool, and session. Raises OSError with a message when it is refused."""
        kind, version = ring_wire.HEAD.unpack_from(message)
        if kind != RingMessage.ATTACH:
            raise refused(errno.EPROTO, f"the first message was {kind}, not ATTACH", Reason.MALFORMED)
        if version != ring_wire.VERSION:
            raise refused(
                errno.EPROTONOSUPPORT,
                f"ring version {version}; this engine speaks {ring_wire.VERSION}",
                Reason.NO_VERSION,
            )
        _, _, ticket, entries, flags, area_bytes, software = ring_wire.ATTACH.unpack(message)
        entries = min(entries, ring_wire.ENTRIES_MAX, 1 << (self._settings.depth_max.bit_length() - 1))
        if entries == 0 or entries & (entries - 1):
            raise refused(
                errno.EINVAL,
                f"a ring of {entries} entries: must be a power of two up to {ring_wire.ENTRIES_MAX}",
                Reason.BAD_ENTRY,
            )
        nbytes = area_bytes + entries * _ENTRY_BYTES + _HEADER_BYTES
        self._check_room(nbytes)
        if ticket == _NO_TICKET or flags & AttachFlag.RESUMES:
            session = self._begin(connection, flags, ticket if flags & AttachFlag.RESUMES else b"", software)
        else:
            session = self._find_session(connection.peer, ticket)
        try:
            session.quota.check_ring(entries, nbytes)
        except OSError:
            if session.by_socket:
                self._sessions.end(session, "its user may not have another ring")
            raise
        return entries, area_bytes, session

    def _begin(self, connection: Connection, flags: int, resume: bytes, software: bytes) -> Session:
        name = software.split(b"\0", 1)[0].decode("ascii", errors="replace")
        printable = "".join(character if character.isprintable() else "?" for character in name)
        gids = groups_of(connection.socket)
        resumable = bool(flags & AttachFlag.RESUMABLE)
        return self._handlers.begin_by_socket(
            connection.peer, gids, printable or "unknown software", resume, resumable=resumable
        )

    def _check_room(self, nbytes: int) -> None:
        settings = self._settings
        if self._core.rings >= settings.rings_max:
            raise refused(
                errno.EAGAIN, f"the engine has rings_max ({settings.rings_max}) rings; try again later", Reason.LIMIT
            )
        if self._core.ring_bytes + nbytes > settings.ring_bytes_max:
            raise refused(
                errno.ENOBUFS,
                f"a ring of {nbytes} bytes: rings use {self._core.ring_bytes} of "
                f"ring_bytes_max ({settings.ring_bytes_max}); ask for less, or try again later",
                Reason.LIMIT,
            )

    def _find_session(self, peer: Peer, ticket: bytes) -> Session:
        session = self._sessions.by_ticket(ticket)
        if session is None:
            raise refused(errno.EACCES, "the ticket belongs to no session, or was used already", Reason.NOT_ALLOWED)
        if session.peer.uid != peer.uid or not session.peer.is_local:
            log.warning("%s: its ring's ticket was used by uid %d", session, peer.uid, extra=session.about)
            raise refused(
                errno.EACCES,
                f"the session belongs to uid {session.peer.uid}, the ring's client to uid {peer.uid}",
                Reason.NOT_ALLOWED,
            )
        return session

    def _refuse(self, connection: Connection, error: OSError) -> None:
        log.info("refused a ring to %s: %s", connection.peer, error.strerror)
        connection.reply(0, -(error.errno or errno.EIO), error.strerror, reason=reason_of(error))
        connection.close()


def _export_and_path(name: bytes) -> tuple[str, str]:
    export, _, path = name.decode(errors="surrogateescape").partition("/")
    return export, path
