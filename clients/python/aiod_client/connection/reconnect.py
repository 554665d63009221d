"""Connecting a session to the engine that serves its export: at first, and again when that engine has gone.

Everything here blocks, and may be called in any thread.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from aiod_client import endpoint as endpoints
from aiod_client.connection.converse import converse
from aiod_client.connection.dealer import LINGER_MS
from aiod_client.connection.polling import milliseconds, poll_of
from aiod_client.errors import DaemonUnreachableError, SpoiltSessionError, closed
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
    from aiod_client.keys import Keys
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


class Reconnect(NamedTuple):
    """How the engine of one export is found. It refers to no client, and so keeps none alive."""

    front: str
    keys: Keys | None
    transport: Transport
    export: str
    timeout_s: float
    """How long a session looks for another engine; 0: not at all."""

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
        dealer, location = converse(self.front, self.keys, locate(self.export), deadline_s, check)
        dealer.close()
        endpoint = endpoints.of_engine(self.front, location.endpoint)
        if endpoint == left:
            files = {handle: replace(file, settled=True) for handle, file in files.items()}
        return connect_engine(endpoint, self.keys, token, files, self.transport, deadline_s, check)


def connect_engine(
    endpoint: str,
    keys: Keys | None,
    token: bytes,
    files: Mapping[int, OpenFile],
    transport: Transport,
    deadline_s: float,
    check: Callable[[], None],
) -> EngineConnection:
    """A session with the engine at `endpoint`: that of `token` with its `files`, or a new one (b"")."""
    dealer, (welcome, lost) = converse(endpoint, keys, resume_session(token, files), deadline_s, check)
    try:
        return EngineConnection(dealer, welcome, attach(welcome, transport, endpoint), lost)
    except SpoiltSessionError:
        dealer.close(LINGER_MS)
        # With its token: the engine ends the spoilt session before it begins the new one, so that only one counts.
        return connect_engine(endpoint, keys, welcome.token, files, "zmq", deadline_s, check)
    except BaseException:
        dealer.send(goodbye(welcome))
        dealer.close(LINGER_MS)
        raise


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
