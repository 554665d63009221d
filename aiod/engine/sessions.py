"""The sessions of this engine: their tokens, liveness and end.

A session is identified by the random token of its WELCOME, never by its routing id, which a client can choose; and a
token is valid only for the user or key that it was given to. A session ends by GOODBYE, after silence, when its process
exits, or by a protocol error; then its handles are closed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from aiod import __version__
from aiod._core import Session as CoreSession
from aiod.engine.errors import refused
from aiod.engine.export_rate_limits import set_rate
from aiod.engine.session import TOKEN_BYTES, Session, short_id_of
from aiod.engine.user_quotas import ThrottledUsers, UserQuota
from aiod.engine_api.settings import OTHER_USERS
from aiod_protocol import ring_wire, wire
from aiod_protocol.reasons import Reason, reason_of
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiod._core import Core
    from aiod.engine_api.settings import EngineSettings, UserLimits
    from aiod.net.peer import Connection, Peer

log = logging.getLogger(__name__)

_LEASES_S: Final = 1.0
"""How often leases are looked at."""

_HANDLES_MAX: Final = 65535
"""The core's limit: a handle's number has a 16-bit index."""


def _clock_s() -> float:
    """Of leases: it counts on while the host is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Sessions:
    """All sessions of this engine. Main loop thread only."""

    def __init__(
        self, settings: EngineSettings, core: Core, is_paused: Callable[[], bool], ended: Callable[[Session], None]
    ) -> None:
        """`is_paused()`: whether messages are left unread on purpose, so that silence proves nothing.

        `ended(token)` is called when a session has ended.
        """
        self._ended = ended
        self._settings = settings
        self._core = core
        self._is_paused = is_paused
        self._by_token: dict[bytes, Session] = {}
        self._by_ticket: dict[bytes, Session] = {}  # those that have not attached a ring yet
        self._by_connection: dict[Connection, Session] = {}  # that its HELLO came by: one session per connection
        self._timer: asyncio.TimerHandle | None = None
        self._period_s = 0.0
        """How often silent sessions are looked for."""
        self._quotas: dict[str, UserQuota] = {}  # by Peer.principal
        self._throttled = ThrottledUsers(core)
        self._refusal = ""  # of every new session

    def __len__(self) -> int:
        return len(self._by_token)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_token.values()))

    def apply(self, settings: EngineSettings) -> None:
        """Use other limits for new sessions; end the sessions whose key has been removed or changed."""
        self._settings = settings
        for session in self:
            session.core.revoke_names()  # its client asks for others, by the new settings
            self._limit(session.quota, settings.limits_of(session.peer.uid))
            owner = session.peer.owner
            if owner is not None and (settings.tcp is None or settings.tcp.owners.get(owner.public_key) != owner):
                self.end(session, f"key {owner.name} has been removed or changed")

    # ---- begin

    def end_earlier(self, token: bytes, peer: Peer) -> None:
        """End the session of `token`: its client has connected again."""
        session = self._by_token.get(token)
        if session is not None and session.peer.principal == peer.principal:
            self.end(session, "its client has connected again")

    def refuse_new(self, why: str) -> None:
        """Answer every further HELLO with ESHUTDOWN and the message `why`."""
        self._refusal = why

    def hello(self, peer: Peer, version: int, software: str, token: bytes, lease_s: float, *, grace: bool) -> list[Any]:
        """Begin a session for `peer`; the elements of WELCOME, or of REFUSAL.

        `token`: of the session that it resumes; empty: it resumes none. `lease_s`: see Session. `grace`: whether it
        must not send new requests until it gets GO.
        """
        try:
            session = self._create(peer, software, peer.groups(), token)
        except OSError as error:
            return wire.refusal(error.errno or errno.EIO, error.strerror or str(error), reason_of(error))
        session.resumed = grace
        session.lease_s, session.leased_s = lease_s, _clock_s()
        self._renew_lease(session)
        if lease_s and self._period_s > _LEASES_S:
            self.stop()
            self.start()
        self._bind_to_connection(session, peer)
        log.debug("%s begins", session)
        settings = self._settings
        welcome = {
            "version": version,
            "features": [],
            "software": f"aiod {__version__}",
            "session": session.token,
            "grace": grace,
            "moves": True,
            "locks": True,
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

    def begin_by_socket(
        self, peer: Peer, gids: frozenset[int], software: str, token: bytes, *, resumable: bool, grace: bool
    ) -> Session:
        """Begin a session for a client of the ring socket. Raises OSError with a message when it is refused.

        `token` and `grace`: as of hello(). `resumable`: whether the next engine is to know it.
        """
        if self._core.takes_repeats and not grace:  # the grace period: new sessions have to wait
            what = "the engine was restarted, and resumes its earlier sessions first; try again"
            raise refused(errno.EAGAIN, what, Reason.GRACE)
        session = self._create(peer, software, gids, token)
        session.by_socket, session.resumable, session.resumed = True, resumable, grace
        log.debug("%s begins, by the ring socket", session)
        return session

    def by_ticket(self, ticket: bytes) -> Session | None:
        """The session that may attach a ring with `ticket`; a ticket is valid once."""
        return self._by_ticket.pop(ticket, None)

    def _check_room(self, peer: Peer) -> None:
        if self._refusal:
            raise refused(errno.ESHUTDOWN, self._refusal, Reason.STOPPING)
        limit = self._settings.sessions_max
        if len(self._by_token) >= limit:
            log.warning("refused a session to %s: there are %d sessions", peer, limit)
            raise refused(errno.EAGAIN, f"the engine has {limit} sessions already; try again later", Reason.LIMIT)

    def _create(self, peer: Peer, software: str, gids: frozenset[int], token: bytes = b"") -> Session:
        """Raises OSError with a message when the session is refused."""
        self._check_room(peer)
        settings = self._settings
        quota = self._quotas.get(peer.principal) or self._open_quota(peer)
        depth_max, bytes_max = quota.grant(settings.depth_max, settings.bytes_max)
        request_bytes_max = min(settings.request_bytes_max, bytes_max)
        token = token or secrets.token_bytes(TOKEN_BYTES)
        core = CoreSession(
            None,
            client=short_id_of(token),
            transport=peer.transport_name,
            depth_max=depth_max,
            bytes_max=bytes_max,
            request_bytes_max=request_bytes_max,
            batch_max=settings.batch_max,
            # beyond those of files: one handle for the names of each export
            handles_max=min(settings.handles_max + len(settings.exports), _HANDLES_MAX),
            rate=quota.rate,
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
            quota=quota,
            gids=gids,
            hello_connection=peer.connection,
            started_s=now_s,
            last_message_s=now_s,
        )
        core.tag = session
        self._by_token[session.token] = session
        quota.sessions.add(session)
        self._quotas[peer.principal] = quota
        self._watch_process(session)
        return session

    def _open_quota(self, peer: Peer) -> UserQuota:
        limits = self._settings.limits_of(peer.uid)
        quota = UserQuota(peer.principal, limits, peer.uid if peer.uid in self._settings.users else OTHER_USERS)
        set_rate(self._core, quota.rate, limits.rate)
        return quota

    def _limit(self, quota: UserQuota, limits: UserLimits) -> None:
        if quota.limits.rate != limits.rate:
            set_rate(self._core, quota.rate, limits.rate)
        quota.limits = limits

    def _bind_to_connection(self, session: Session, peer: Peer) -> None:
        """End the connection's earlier session; offer a ring if the client is on this host."""
        earlier = self._by_connection.get(session.hello_connection)
        if earlier is not None:
            self.end(earlier, "its connection has begun another session")
        self._by_connection[session.hello_connection] = session
        if self._settings.rings_max > 0 and peer.is_local:
            session.ticket = secrets.token_bytes(ring_wire.TICKET_BYTES)
            self._by_ticket[session.ticket] = session

    def _watch_process(self, session: Session) -> None:
        """Have the session end when the client's process exits, if its pid is known."""
        if session.peer.pid <= 0:
            return
        try:
            session.pidfd = os.pidfd_open(session.peer.pid)
        except ProcessLookupError:
            # It has exited already, or is in another pid namespace: then the session ends after silence.
            return
        except OSError as error:
            log.warning(
                "%s: cannot watch its process (%s): the session will end after silence only",
                session,
                error,
                extra=session.about,
            )
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(session.pidfd, self.end, session, "its process has exited")

    # ---- life

    def find(self, token: bytes, peer: Peer) -> Session | None:
        """The live session of `token`, if `peer` may use it; its timeout starts anew."""
        session = self._by_token.get(token)
        if session is None:
            return None
        if session.peer.connection != peer.connection:
            if session.peer.principal != peer.principal or session.peer.is_local != peer.is_local:
                log.warning("%s: its token was used by %s", session, peer, extra=session.about)
                return None
            session.peer = peer
        session.last_message_s = time.monotonic()
        return session if self._renew_lease(session) else None

    def _renew_lease(self, session: Session) -> bool:
        """A message has come. False: after a silence in which the client may have moved; the session ends then.

        The message may be an old one: from before this host was frozen, or from the far side of a cut link. So nothing
        of it is carried out, and no change that waits for a worker.
        """
        if not session.lease_s:
            return True
        now_s = _clock_s()
        silence_s, session.leased_s = now_s - session.leased_s, now_s
        if silence_s <= session.lease_s:
            session.core.lease_until_ns = int((now_s + session.lease_s) * 1e9)
            return True
        self._end_lease(session, silence_s)
        return False

    def _end_lease(self, session: Session, silence_s: float) -> None:
        session.core.lease_until_ns = 1  # for what waits for a worker
        self.end(session, f"no message for {silence_s:.1f} s: its client may have moved to another daemon")

    def renew(self, session: Session) -> None:
        """The session was silent because it waited for an answer, which it gets now."""
        session.last_message_s, session.leased_s = time.monotonic(), _clock_s()

    def start(self) -> None:
        """Begin to end silent sessions."""
        self._period_s = self._settings.session_timeout_ms / 4000
        if any(session.lease_s for session in self):  # what is locked is to be free soon
            self._period_s = min(self._period_s, _LEASES_S)
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._sweep)

    def _sweep(self) -> None:
        timeout_s = self._settings.session_timeout_ms / 1000
        now_s = time.monotonic()
        for session in self:
            if self._is_paused() or session.reclaiming:
                session.last_message_s = now_s
            elif session.lease_s and now_s - session.last_message_s > session.lease_s:
                self._end_lease(session, now_s - session.last_message_s)
            elif not session.by_socket and now_s - session.last_message_s > timeout_s:
                self.end(session, f"no message for {timeout_s:g} s")
        self.start()

    # ---- end

    def end(self, session: Session, reason: str = "") -> None:
        """End the session and close its handles; its active requests complete without an answer. Idempotent.

        `reason` goes to the log; empty: the client said goodbye.
        """
        if session.ended:
            return
        session.ended = True
        del self._by_token[session.token]
        session.quota.sessions.discard(session)
        if not session.quota.sessions:
            self._quotas.pop(session.quota.principal, None)
            self._throttled.end(session.quota)
        if self._by_connection.get(session.hello_connection) is session:
            del self._by_connection[session.hello_connection]
        if session.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(session.pidfd)
            os.close(session.pidfd)
        self._by_ticket.pop(session.ticket, None)
        self._core.end_session(session.core)
        session.core.tag = None
        self._ended(session)
        if session.ring is not None:
            session.ring.close()
            session.ring = None
        if reason:
            log.info("ended %s: %s", session, reason, extra=session.about)
        else:
            log.debug("%s said goodbye", session)

    def largest(self) -> Session | None:
        """The session with the most bytes in flight and unread; None: there is none."""
        return max(self, key=lambda session: session.core.unacknowledged_bytes, default=None)

    def named(self, short_id: str) -> list[Session]:
        """The sessions that `aiodctl clients` shows as `short_id`: one, or none."""
        return [session for session in self if session.short_id == short_id]

    def end_all(self, reason: str) -> None:
        """End every session."""
        for session in list(self):
            self.end(session, reason)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def handles(self, locks_of: Callable[[Session, int], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """The open files, for `aiodctl handles`. `locks_of`: the locks of a handle."""
        return [
            {
                "client": session.short_id,
                "pid": session.peer.pid,
                "uid": session.peer.uid,
                "file": session.names.get(handle["handle"], ""),
                "locks": locks_of(session, handle["handle"]),
            }
            | handle
            for session in self
            for handle in session.core.describe_handles()
        ]

    def throttled_users(self) -> list[dict[str, Any]]:
        """How the rates of users hold their requests back."""
        return self._throttled.shown(self._quotas.values())

    def clients(self, locks_of: Callable[[Session], dict[str, int]]) -> list[dict[str, Any]]:
        """The sessions, for `aiodctl clients`. `locks_of`: how many locks a session has and waits for."""
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
                "locks": locks_of(session),
                "inflight": session.core.inflight,
                "ring": session.core.has_ring,
                "age_s": now_s - session.started_s,
                "idle_s": now_s - session.last_message_s,
                "ops": session.core.stats(),
            }
            for session in self
        ]
