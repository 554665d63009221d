"""Hands each message to the stage that carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import zmq

    from aiod.engine.directory_operations import DirectoryOperations
    from aiod.engine.dispatch import Dispatch
    from aiod.engine.fd_store_client import FdStoreClient
    from aiod.engine.file_requests import ReopenRequest
    from aiod.engine.grace_period import GracePeriod
    from aiod.engine.handles import Handles
    from aiod.engine.pool_maintenance import PoolMaintenance
    from aiod.engine.replies import Replies
    from aiod.engine.session import Session
    from aiod.engine.sessions import Sessions
    from aiod.net.peer import Peer


class MessageHandlers:
    """The message router's handlers (message_router.Handlers). Main loop thread only."""

    def __init__(
        self,
        sessions: Sessions,
        fd_store: FdStoreClient,
        grace_period: GracePeriod,
        handles: Handles,
        directory_operations: DirectoryOperations,
        dispatch: Dispatch,
        pool_maintenance: PoolMaintenance,
        replies: Replies,
    ) -> None:
        self._sessions = sessions
        self._fd_store = fd_store
        self._grace_period = grace_period
        self._handles = handles
        self._directory_operations = directory_operations
        self._dispatch = dispatch
        self._pool_maintenance = pool_maintenance
        self._replies = replies

    def find_session(self, token: bytes, peer: Peer) -> Session | None:
        """See Sessions.find."""
        return self._sessions.find(token, peer)

    def end_session(self, session: Session, reason: str) -> None:
        """See Sessions.end."""
        self._sessions.end(session, reason)

    def hello(self, peer: Peer, version: int, software: str, resume: bytes, lease_s: float) -> list[Any] | None:
        """See Sessions.hello. New clients are held until the grace period ends."""
        if not resume:
            if self._grace_period.active:
                self._grace_period.hold(lambda: self._hello_late(peer, version, software, lease_s))
                return None
            return self._sessions.hello(peer, version, software, b"", lease_s, grace=False)
        self._sessions.end_earlier(resume, peer)
        known = self._fd_store.has_session(resume, peer.principal)
        grace = self._grace_period.active and (known or self._grace_period.unclean)
        return self._sessions.hello(peer, version, software, resume if known else b"", lease_s, grace=grace)

    def _hello_late(self, peer: Peer, version: int, software: str, lease_s: float) -> None:
        self._replies.send(peer, self._sessions.hello(peer, version, software, b"", lease_s, grace=False))

    def begin_by_socket(
        self, peer: Peer, gids: frozenset[int], software: str, resume: bytes, *, resumable: bool
    ) -> Session:
        """See Sessions.begin_by_socket. New clients are refused until the grace period ends."""
        known = False
        if resume:
            self._sessions.end_earlier(resume, peer)
            known = self._fd_store.has_session(resume, peer.principal)
        grace = self._grace_period.active and (known or (bool(resume) and self._grace_period.unclean))
        token = resume if known else b""
        return self._sessions.begin_by_socket(peer, gids, software, token, resumable=resumable, grace=grace)

    def reopen(self, session: Session, cookie: int, handle: int, opened: ReopenRequest) -> None:
        """See Handles.reopen."""
        self._handles.reopen(session, cookie, handle, opened)
        self._pool_maintenance.pool_changed()

    def repeated(self, session: Session) -> None:
        """The session has finished its replay; it is released once every session has."""
        if self._grace_period.active:
            self._grace_period.done(session.token)
        if not self._grace_period.active and session.resumed:
            self._release(session)

    def release_resumed(self) -> None:
        """Let the resumed sessions send new requests: the grace period is over."""
        for session in self._sessions:
            if session.resumed:
                self._release(session)

    def _release(self, session: Session) -> None:
        session.resumed = False
        self._replies.go(session)

    def open(self, session: Session, cookie: int, export: str, path: str, flags: int, mode: int) -> None:
        """See Handles.open."""
        self._handles.open(session, cookie, export, path, flags, mode)
        self._pool_maintenance.pool_changed()

    def close(self, session: Session, cookie: int, handle: int) -> None:
        """See Handles.close."""
        if not session.core.has_handle(handle):
            self._handles.ring_opens.collect(session)
        self._handles.close(session, cookie, handle)

    def lock(
        self, session: Session, cookie: int, handle: int, flags: int, offset: int, length: int, wait_ms: int
    ) -> None:
        """See Locks.lock. The file may be one that the session's ring has opened."""
        self._handles.ring_opens.collect(session)
        self._handles.locks.lock(session, cookie, handle, flags, offset, length, wait_ms)
        self._pool_maintenance.pool_changed()

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
        """See Locks.claim."""
        self._handles.locks.claim(session, cookie, handle, flags, offset, length, number, wait_ms)
        self._pool_maintenance.pool_changed()

    def unlock(self, session: Session, cookie: int, handle: int, offset: int, length: int) -> None:
        """See Locks.unlock."""
        self._handles.ring_opens.collect(session)
        self._handles.locks.unlock(session, cookie, handle, offset, length)
        self._pool_maintenance.pool_changed()

    def name(self, session: Session, cookie: int, verb: str, export: str, path: str, arguments: dict[str, Any]) -> None:
        """See DirectoryOperations.request."""
        self._directory_operations.request(session, cookie, verb, export, path, arguments)
        self._pool_maintenance.pool_changed()

    def submit(self, session: Session, received: int, records: bytes, payloads: Sequence[zmq.Frame]) -> None:
        """See Dispatch.submit. The records may name files that the session's ring has opened."""
        self._handles.ring_opens.collect(session)
        self._dispatch.submit(session, received, records, payloads)

    def cancel(self, session: Session, cookies: list[int]) -> int:
        """See Dispatch.cancel."""
        return self._dispatch.cancel(session, cookies)
