"""Connecting a session to the engine that serves its export: at first, and again when that engine has gone.

Everything here blocks, and may be called in any thread.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from aiod_client import endpoint as endpoints
from aiod_client.connection.converse import converse
from aiod_client.connection.dealer import LINGER_MS
from aiod_client.connection.polling import milliseconds, poll_of
from aiod_client.connection.tour import Tour
from aiod_client.errors import AiodError, DaemonUnreachableError, SpoiltSessionError, closed
from aiod_client.ring.attach import attach
from aiod_client.session.handshake import (
    ShutdownNotice,
    final_refusal,
    goodbye,
    is_refusal,
    locate,
    resume_session,
    shutdown_notice,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiod_client._ring import Ring
    from aiod_client.connection.dealer import Dealer
    from aiod_client.connection.hosts import Hosts
    from aiod_client.ring.attach import Transport
    from aiod_client.session.handshake import Welcome
    from aiod_client.session.open_files import OpenFile
    from aiod_client.session.reconnection import Reconnection

NOTICE_WAIT_S: Final = 0.1


_RECONNECT_S: Final = 30.0


def reconnect_time(given_s: float | None) -> float:
    """The `given_s` reconnect_timeout of connect(), else AIOD_RECONNECT_TIMEOUT, else 30 (seconds)."""
    return float(os.environ.get("AIOD_RECONNECT_TIMEOUT") or _RECONNECT_S) if given_s is None else given_s


def is_away(error: OSError) -> bool:
    """Whether a LOCATE that failed with `error` may succeed soon: the daemon or an engine is being restarted."""
    return isinstance(error, DaemonUnreachableError) or error.errno in {errno.EIO, errno.ESHUTDOWN}


def read_shutdown_notice(dealer: Dealer) -> tuple[OSError | None, ShutdownNotice]:
    """The REFUSAL that may still come on a lost connection: (the error, if it is final; its shutdown notice).

    A final error means that no other engine is to be looked for. Waits for NOTICE_WAIT_S, unless the connection has
    ended.
    """
    deadline_s = time.monotonic() + NOTICE_WAIT_S
    poll = poll_of(dealer.fd, dealer.monitor_fd)
    while True:
        ended = dealer.has_ended()
        frames = dealer.receive()
        if frames is not None and is_refusal(frames):
            return final_refusal(frames), shutdown_notice(frames)
        remaining_s = deadline_s - time.monotonic()
        if frames is None and (ended or remaining_s <= 0):
            return None, ShutdownNotice()
        if frames is None:
            poll.poll(milliseconds(remaining_s))


class EngineConnection(NamedTuple):
    """A connection to an engine, and what the engine grants."""

    dealer: Dealer
    welcome: Welcome
    ring: Ring | None
    lost: dict[int, OSError]
    """Handles of the files that the engine could not open again, and why."""
    moved: tuple[str, str] | None = None
    """The front endpoints of the daemon that was left and of the one that was taken; None: it is the same daemon."""


class Resumed(NamedTuple):
    """The session that an engine is to continue."""

    token: bytes = b""
    """b"": a new one."""
    files: Mapping[int, OpenFile] = MappingProxyType({})
    elsewhere: bool = False
    """Another daemon has opened the files."""


class Attempt(NamedTuple):
    """The outcome of asking one daemon."""

    found: EngineConnection | None
    error: OSError | None = None
    answers: bool = False
    """The daemon answers, but its engine is away."""


class Reconnect:
    """How the engine of one session's export is found. It refers to no client, and so keeps none alive."""

    def __init__(self, hosts: Hosts, front: str, transport: Transport, export: str, timeout_s: float) -> None:
        """For a session at the daemon `front`, one of `hosts`.

        `timeout_s` is how long the session looks for another engine; 0: not at all.
        """
        self.hosts = hosts
        self.front = front
        """Only the search changes it, and a session has one at a time."""
        self.transport = transport
        self.export = export
        self.timeout_s = timeout_s

    def __call__(
        self,
        token: bytes,
        files: Mapping[int, OpenFile],
        deadline_s: float,
        check: Callable[[], None],
        left: str | None = None,
    ) -> EngineConnection:
        """Continue the session `token` with its `files` at the engine that serves the export now.

        `left` is the endpoint of an engine whose connection the client has given up itself. If that engine still serves
        the export, it has lost nothing: the changes that it has acknowledged are in the kernel.

        Raises OSError while there is no engine, and what `check` raises, which is called now and then.
        """
        endpoint = self.locate(self.front, deadline_s, check)
        if endpoint == left:
            files = _settled(files)
        return connect_engine(self.hosts, endpoint, Resumed(token, files), self.transport, deadline_s, check)

    def locate(self, front: str, deadline_s: float, check: Callable[[], None], patience_s: float | None = None) -> str:
        """The endpoint of the engine that serves the export at the daemon `front`."""
        keys = self.hosts.keys_of(front)
        dealer, location = converse(front, keys, locate(self.export), deadline_s, check, patience_s)
        dealer.close()
        return endpoints.of_engine(front, location.endpoint)

    def attempt(self, search: Reconnection, front: str, patience_s: float | None, check: Callable[[], None]) -> Attempt:
        """Continue the session of `search` at the daemon `front`."""
        try:
            endpoint = self.locate(front, search.deadline_s, check, patience_s)
        except OSError as error:
            return Attempt(None, error, answers=error.errno == errno.EIO and not isinstance(error, AiodError))
        try:
            if front == self.front:
                return Attempt(self._stay(search, endpoint, patience_s, check))
            return Attempt(self._move(search, endpoint, front, patience_s, check))
        except OSError as error:
            return Attempt(None, error, answers=True)

    def _stay(
        self, search: Reconnection, endpoint: str, patience_s: float | None, check: Callable[[], None]
    ) -> EngineConnection:
        files = search.files
        if endpoint == search.abandoned:
            files = _settled(files)
        resumed = Resumed(search.token, files)
        return connect_engine(self.hosts, endpoint, resumed, self.transport, search.deadline_s, check, patience_s)

    def _move(
        self,
        search: Reconnection,
        endpoint: str,
        front: str,
        patience_s: float | None,
        check: Callable[[], None],
    ) -> EngineConnection:
        """Begin a session at the engine `endpoint` of another daemon, and have it open the files."""
        resumed = Resumed(b"", search.files_in_doubt, elsewhere=True)
        found = connect_engine(self.hosts, endpoint, resumed, self.transport, search.deadline_s, check, patience_s)
        moved = self.front, front
        self.front = self.hosts.current = front
        return found._replace(moved=moved)

    def find(
        self, search: Reconnection, is_wanted: Callable[[], bool], pause: Callable[[float], None]
    ) -> EngineConnection | None:
        """Find the next engine, at any of the daemons; see find_next_engine()."""
        if not self.hosts.several:
            return find_next_engine(search, self, is_wanted, pause)
        return find_next_host(search, self, is_wanted, pause)


def connect_engine(
    hosts: Hosts,
    endpoint: str,
    resumed: Resumed,
    transport: Transport,
    deadline_s: float,
    check: Callable[[], None],
    patience_s: float | None = None,
) -> EngineConnection:
    """A session with the engine at `endpoint`: one that is `resumed`, or a new one."""
    token, files, elsewhere = resumed
    conversation = resume_session(token, files, hosts.terms, elsewhere=elsewhere, deadline_s=deadline_s)
    if any(file.locks for file in files.values()):
        patience_s = None  # the answer to a REOPEN waits for locks, which a dead host may have for a while
    keys = hosts.keys_of(endpoint)
    dealer, (welcome, lost) = converse(endpoint, keys, conversation, deadline_s, check, patience_s)
    try:
        return EngineConnection(dealer, welcome, attach(welcome, transport, endpoint), lost)
    except SpoiltSessionError:
        dealer.close(LINGER_MS)
        # With its token: the engine ends the spoilt session before it begins the new one, so that only one counts.
        again = resumed._replace(token=welcome.token)
        return connect_engine(hosts, endpoint, again, "zmq", deadline_s, check, patience_s)
    except BaseException:
        dealer.send(goodbye(welcome))
        dealer.close(LINGER_MS)
        raise


def _settled(files: Mapping[int, OpenFile]) -> dict[int, OpenFile]:
    return {handle: replace(file, settled=True) for handle, file in files.items()}


def find_next_engine(
    search: Reconnection, reconnect: Reconnect, is_wanted: Callable[[], bool], pause: Callable[[float], None]
) -> EngineConnection | None:
    """Try to connect until it succeeds; None: `search` has given up (its `reason` says why), or `is_wanted()` is false.

    `is_wanted` is called now and then, also during an attempt; `pause` waits for seconds, or less.
    """

    def check() -> None:
        if not is_wanted():
            raise closed("the client")

    while is_wanted():
        try:
            return reconnect(search.token, search.files, search.deadline_s, check, search.abandoned)
        except OSError as error:
            delay_s = search.failed(error, time.monotonic())
            if delay_s is None:
                return None
            pause(delay_s)
    return None


def find_next_host(
    search: Reconnection, reconnect: Reconnect, is_wanted: Callable[[], bool], pause: Callable[[float], None]
) -> EngineConnection | None:
    """As find_next_engine(), at one daemon after the other."""

    def check() -> None:
        if not is_wanted():
            raise closed("the client")

    tour = Tour(reconnect.hosts, reconnect.front, time.monotonic(), leaves=search.leaves)
    while is_wanted():
        front = tour.front
        found, error, answers = reconnect.attempt(search, front, tour.patience_s, check)
        if error is None:
            return found
        if search.failed(error, time.monotonic(), front) is None:
            return None
        pause(tour.failed(time.monotonic(), answers=answers))
    return None
