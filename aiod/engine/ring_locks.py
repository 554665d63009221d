"""LOCK and UNLOCK of sessions that began on the ring socket (docs/ring.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aiod_protocol import ring_wire
from aiod_protocol.ring_wire import RingMessage
from aiod_protocol.wire import LOCK_CLAIM

if TYPE_CHECKING:
    from aiod.engine.session import Session


class Handlers(Protocol):
    """Carry the messages out (message_handlers.py)."""

    def lock(
        self, session: Session, cookie: int, handle: int, flags: int, offset: int, length: int, wait_ms: int
    ) -> None:
        """LOCK; answered by REPLY."""

    def claim(
        self,
        session: Session,
        cookie: int,
        handle: int,
        flags: int,
        offset: int,
        length: int,
        number: int,
        wait_ms: int,
    ) -> None:
        """LOCK with the flag CLAIM; answered by REPLY."""

    def unlock(self, session: Session, cookie: int, handle: int, offset: int, length: int) -> None:
        """UNLOCK; answered by REPLY."""


class RingLocks:
    """Main loop thread only."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def receive(self, session: Session, message: bytes) -> None:
        """Handle a LOCK or UNLOCK. Raises struct.error if it is malformed."""
        if ring_wire.HEAD.unpack_from(message)[0] == RingMessage.UNLOCK:
            _, handle, cookie, offset, length = ring_wire.UNLOCK.unpack(message)
            self._handlers.unlock(session, cookie, handle, offset, length)
            return
        _, handle, cookie, offset, length, number, flags, wait_ms = ring_wire.LOCK.unpack(message)
        if flags & LOCK_CLAIM:
            self._handlers.claim(session, cookie, handle, flags & ~LOCK_CLAIM, offset, length, number, wait_ms)
        else:
            self._handlers.lock(session, cookie, handle, flags, offset, length, wait_ms)
