"""Who is connected: tokens, liveness, and the end of a session.

A session is known by the random token given at its hello, never by its routing id, which a client can choose; and a
token is good only for the user or key that it was given to. A session ends by GOODBYE, by silence, when its process has
exited, or by what it did wrong; its handles are closed then.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import time
from typing import TYPE_CHECKING, Any

from aiod import __version__
from aiod._core import Session as CoreSession
from aiod.engine.errors import refused
from aiod.engine.export_rate_limits import set_rate
from aiod.engine.session import TOKEN_BYTES, Session, short_id_of
from aiod.engine.user_quotas import Account
from aiod_client import ring_wire, wire
from aiod_client.wire import MessageType
from aiod_protocol.reasons import Reason, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiod._core import Core
    from aiod.engine_api.settings import EngineSettings, UserLimits
    from aiod.net.peer import Connection, Peer

log = logging.getLogger(__name__)


class Sessions:
    """All sessions of this engine. Main loop thread only."""

    def __init__(
        self, settings: EngineSettings, core: Core, is_deaf: Callable[[], bool], ended: Callable[[bytes], None]
    ) -> None:
        """`is_deaf()`: whether messages are left unread on purpose, so that silence proves nothing.

        `ended(token)` is called when a session has ended.
        """
        self._tell_ended = ended
        self._settings = settings
        self._core = core
        self._is_deaf = is_deaf
        self._by_token: dict[bytes, Session] = {}
        self._by_ticket: dict[bytes, Session] = {}  # those that have not attached a ring yet
        self._by_connection: dict[Connection, Session] = {}  # that HELLO came from: one each
        self._timer: asyncio.TimerHandle | None = None
        self._accounts: dict[str, Account] = {}  # by Peer.who
        self._refusing = ""

    def __len__(self) -> int:
        return len(self._by_token)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_token.values()))

    def apply(self, settings: EngineSettings) -> None:
        """Use other limits for the sessions that begin from now on; end those whose key is no longer what it was."""
        self._settings = settings
        for session in self:
            self._limit(session.account, settings.limits_of(session.peer.uid))
            owner = session.peer.owner
            if owner is not None and (settings.tcp is None or settings.tcp.owners.get(owner.public_key) != owner):
                self.end(session, f"key {owner.name} has been removed or changed")

    # ---- birth

    def end_earlier(self, token: bytes, peer: Peer) -> None:
        """End the session of `token`, whose client comes by another connection."""
        session = self._by_token.get(token)
        if session is not None and session.peer.who == peer.who:
            self.end(session, "its client has connected anew")

    def refuse_new(self, why: str) -> None:
        """Answer every further HELLO with ESHUTDOWN and the sentence `why`."""
        self._refusing = why

    def hello(self, peer: Peer, version: int, software: str, token: bytes, *, grace: bool) -> list[Any]:
        """A new session for `peer`: the elements of WELCOME, or of REFUSAL.

        `token`: of the session that it resumes; empty: none, or one that is not its own. `grace`: whether it has to
        wait with what is new.
        """
        try:
            session = self._create(peer, software, peer.groups(), token)
        except OSError as error:
            return wire.refusal(error.errno or errno.EIO, error.strerror or str(error), reason_of(error))
        session.resumed = grace
        self._greet(session, peer)
        log.debug("%s begins", session)
        settings = self._settings
        welcome = {
            "version": version,
            "features": [],
            "software": f"aiod {__version__}",
            "session": session.token,
            "grace": grace,
            "engine": settings.name,
            "depth_max": session.depth_max,
            "bytes_max": session.bytes_max,
            "request_bytes_max": session.request_bytes_max,
            "batch_max": settings.batch_max,
            "heartbeat_s": settings.heartbeat_ms / 1000,
            "session_timeout_s": settings.session_timeout_ms / 1000,
        }
        if session.ticket:
            welcome["ring"] = {
                "version": ring_wire.VERSION,
                "path": settings.ring_path,
                "ticket": session.ticket,
            }
        return [MessageType.WELCOME, welcome]

    def begin_by_socket(self, peer: Peer, gids: frozenset[int], software: str) -> Session:
        """A new session for a client of the ring socket. Raises OSError with a sentence when there can be none."""
        if self._core.takes_repeats:  # the grace period: nothing new is done
            what = "the engine has been started again, and serves its earlier clients first"
            raise refused(errno.EAGAIN, what, Reason.GRACE)
        session = self._create(peer, software, gids)
        session.by_socket = True
        log.debug("%s begins, by the ring socket", session)
        return session

    def by_ticket(self, ticket: bytes) -> Session | None:
        """The session that may attach a ring with `ticket`, which is used up by that."""
        return self._by_ticket.pop(ticket, None)

    def _check_room(self, peer: Peer) -> None:
        if self._refusing:
            raise refused(errno.ESHUTDOWN, self._refusing, Reason.STOPPING)
        limit = self._settings.sessions_max
        if len(self._by_token) >= limit:
            log.warning("refused a session to %s: there are %d already", peer, limit)
            raise refused(errno.EAGAIN, f"the engine has {limit} sessions already; try again later", Reason.LIMIT)

    def _create(self, peer: Peer, software: str, gids: frozenset[int], token: bytes = b"") -> Session:
        """Raises OSError with a sentence when there can be none."""
        self._check_room(peer)
        settings = self._settings
        account = self._accounts.get(peer.who) or self._open_account(peer)
        depth_max, bytes_max = account.grant(settings.depth_max, settings.bytes_max)
        request_bytes_max = min(settings.request_bytes_max, bytes_max)
        token = token or secrets.token_bytes(TOKEN_BYTES)
        core = CoreSession(
            None,
            client=short_id_of(token),
            depth_max=depth_max,
            bytes_max=bytes_max,
            request_bytes_max=request_bytes_max,
            batch_max=settings.batch_max,
            handles_max=settings.handles_max,
            rate=account.rate,
        )
        now_s = time.monotonic()
        session = Session(
            token=token,
            peer=peer,
            software=software,
            core=core,
            depth_max=depth_max,
            bytes_max=bytes_max,
            request_bytes_max=request_bytes_max,
            account=account,
            gids=gids,
            greeted_by=peer.connection,
            started_s=now_s,
            heard_s=now_s,
        )
        core.tag = session
        self._by_token[session.token] = session
        account.sessions.add(session)
        self._accounts[peer.who] = account
        self._watch_process(session)
        return session

    def _open_account(self, peer: Peer) -> Account:
        limits = self._settings.limits_of(peer.uid)
        account = Account(peer.who, limits)
        set_rate(self._core, account.rate, limits.rate)
        return account

    def _limit(self, account: Account, limits: UserLimits) -> None:
        if account.limits.rate != limits.rate:
            set_rate(self._core, account.rate, limits.rate)
        account.limits = limits

    def _greet(self, session: Session, peer: Peer) -> None:
        """Its connection is its own, and it may have a ring if it is on this host."""
        earlier = self._by_connection.get(session.greeted_by)
        if earlier is not None:
            self.end(earlier, "its connection has begun another")
        self._by_connection[session.greeted_by] = session
        if self._settings.rings_max > 0 and peer.is_local:
            session.ticket = secrets.token_bytes(ring_wire.TICKET_BYTES)
            self._by_ticket[session.ticket] = session

    def _watch_process(self, session: Session) -> None:
        """Hear of the client's exit at once, where the kernel told us its pid."""
        if session.peer.pid <= 0:
            return
        try:
            session.pidfd = os.pidfd_open(session.peer.pid)
        except ProcessLookupError:
            # It has exited already, or lives in another pid namespace: then silence has to tell.
            return
        except OSError as error:
            log.warning(
                "%s: its process cannot be watched (%s): its end is noticed by silence",
                session,
                error,
                extra=session.about,
            )
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(session.pidfd, self.end, session, "its process has exited")

    # ---- life

    def find(self, token: bytes, peer: Peer) -> Session | None:
        """The live session of `token`, if `peer` is whom it was given to; it has been heard of now."""
        session = self._by_token.get(token)
        if session is None:
            return None
        if session.peer.connection != peer.connection:
            if session.peer.who != peer.who or session.peer.is_local != peer.is_local:
                log.warning("%s: its token was used by %s", session, peer, extra=session.about)
                return None
            session.peer = peer
        session.heard_s = time.monotonic()
        return session

    def start(self) -> None:
        """Begin to look for silent sessions."""
        period_s = self._settings.session_timeout_ms / 4000
        self._timer = asyncio.get_running_loop().call_later(period_s, self._sweep)

    def _sweep(self) -> None:
        timeout_s = self._settings.session_timeout_ms / 1000
        now_s = time.monotonic()
        for session in self:
            if self._is_deaf():
                session.heard_s = now_s
            elif not session.by_socket and now_s - session.heard_s > timeout_s:
                self.end(session, f"not heard of for {timeout_s:g} s")
        self.start()

    # ---- end

    def end(self, session: Session, reason: str = "") -> None:
        """Forget the session and close its handles; its requests at work end unheard. Idempotent.

        `reason` goes to the log; without one the end was in order.
        """
        if session.ended:
            return
        session.ended = True
        del self._by_token[session.token]
        session.account.sessions.discard(session)
        if not session.account.sessions:
            self._accounts.pop(session.account.who, None)
        if self._by_connection.get(session.greeted_by) is session:
            del self._by_connection[session.greeted_by]
        if session.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(session.pidfd)
            os.close(session.pidfd)
        self._by_ticket.pop(session.ticket, None)
        self._core.end_session(session.core)
        session.core.tag = None
        self._tell_ended(session.token)
        if session.ring is not None:
            session.ring.close()
            session.ring = None
        if reason:
            log.info("ended %s: %s", session, reason, extra=session.about)
        else:
            log.debug("%s said goodbye", session)

    def greediest(self) -> Session | None:
        """The one with the most bytes in flight and unread; None: there is no session."""
        return max(self, key=lambda session: session.core.unacknowledged_bytes, default=None)

    def named(self, short_id: str) -> list[Session]:
        """Those that `aiodctl clients` shows as `short_id`: one, or none."""
        return [session for session in self if session.short_id == short_id]

    def end_all(self, reason: str) -> None:
        """End every session."""
        for session in list(self):
            self.end(session, reason)

    def stop(self) -> None:
        """No more timers."""
        if self._timer is not None:
            self._timer.cancel()

    def handles(self) -> list[dict[str, Any]]:
        """What `aiodctl handles` shows of each open file."""
        return [
            {
                "client": session.short_id,
                "pid": session.peer.pid,
                "uid": session.peer.uid,
                "file": session.names.get(handle["handle"], ""),
            }
            | handle
            for session in self
            for handle in session.core.describe_handles()
        ]

    def clients(self) -> list[dict[str, Any]]:
        """What `aiodctl clients` shows of each session."""
        now_s = time.monotonic()
        return [
            {
                "id": session.short_id,
                "pid": session.peer.pid,
                "uid": session.peer.uid,
                "address": session.peer.address,
                "key": session.peer.owner.name if session.peer.owner is not None else "",
                "software": session.software,
                "handles": session.core.handles,
                "inflight": session.core.inflight,
                "ring": session.core.has_ring,
                "age_s": now_s - session.started_s,
                "idle_s": now_s - session.heard_s,
                "ops": session.core.stats(),
            }
            for session in self
        ]
