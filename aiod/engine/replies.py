"""Sends messages to clients: over ZeroMQ, or over the ring socket to a session that began there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiod_protocol import wire
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiod.engine.session import Session
    from aiod.net.peer import Peer


class Replies:
    """Main loop thread only."""

    def __init__(self, end_session: Callable[[Session, str], None]) -> None:
        """`end_session(session, reason)` is called for a session that cannot be reached."""
        self._end_session = end_session

    def send(self, peer: Peer, elements: Sequence[Any], payloads: Sequence[Any] = ()) -> bool:
        """Send a message to a peer. False: the peer has gone, its queue is full, or there is no memory."""
        return peer.transport is not None and peer.transport.send(peer, [wire.pack(*elements), *payloads])

    def send_to(self, session: Session, elements: Sequence[Any], payloads: Sequence[Any] = ()) -> None:
        """Send a message to a session. If it cannot be reached, end it: the credit of its requests would be lost."""
        if not self.send(session.peer, elements, payloads) and not session.ended:
            self._end_session(session, "the client has gone or does not read its replies, or there is no memory")

    def go(self, session: Session) -> None:
        """Let a resumed session send new requests."""
        if not session.by_socket:
            self.send_to(session, [MessageType.GO])
        elif session.ring is not None:
            session.ring.go()

    def reply(
        self,
        session: Session,
        cookie: int,
        result: int,
        text: str | None = None,
        body: Any = None,
        reason: int = Reason.BY_KERNEL,
    ) -> None:
        """Answer the message with `cookie`, on the socket that it came by."""
        if not session.by_socket:
            self.send_to(session, wire.reply(cookie, result, text, body, reason))
        elif session.ring is not None:
            file = body["file"] if result >= 0 and body else None
            session.ring.reply(cookie, result, text, reason=reason, file=file)
