"""What the blocking and the asyncio Client have in common: where the daemon is, and whether the client may be used.

Why neither client is generated from the other (as psycopg makes its blocking layer of the asynchronous one): the
methods that differ only by `await` hold one line each, since operations.py and the session do the work of both. The
rest differs in substance. A thread that waits for the ring does so in the native module and with the GIL released, a
task arms the ring to wake its loop; a blocking call has a deadline, an asyncio one a cancel scope; only the blocking
client has locks, and finalizers and signal handlers to keep out. A generator would save signatures and docstrings, and
those are what users and type checkers read; tests/client/test_same_names.py holds the signatures equal.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Final

from aiod_client import forks
from aiod_client.connection.hosts import Hosts
from aiod_client.connection.reconnect import Reconnect, reconnect_time
from aiod_client.errors import closed, deadline_passed, forked
from aiod_client.records import Counters, Entry
from aiod_client.requests.timeouts import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiod_client.keys import Keys
    from aiod_client.ring.attach import Transport
    from aiod_client.ring.routed_session import RoutedSession
    from aiod_protocol.key_files import StrPath

TIMEOUT_S: Final = 30.0
"""The default of connect()'s `timeout`."""

Entries = list[Entry]


def check_transport(transport: str) -> None:
    """Raise ValueError for an unknown transport."""
    if transport not in ("auto", "zmq", "ring"):
        raise ValueError(f"unknown transport {transport!r}: auto, zmq or ring")


def restore(kind: type[BaseClient], *configuration: Any) -> BaseClient:
    """A client of `kind` that has been unpickled or copied. It connects when it is used.

    It may be closed, and needs not be: dropped unclosed it ends its sessions without a warning.
    """
    client = kind.__new__(kind)
    client._set_up(*configuration)  # noqa: SLF001 - a constructor
    client._restored, client.closed = True, False  # noqa: SLF001
    return client


class BaseClient:
    """The settings of a Client. Only `closed` changes."""

    def _set_up(
        self,
        endpoint: str,
        timeout: float | None,
        transport: Transport,
        key: StrPath | None,
        server_key: StrPath | None,
        reconnect_timeout: float | None,
        prefer: str | Sequence[str] | None = None,
        host_timeout: float | None = None,
    ) -> None:
        """Make all attributes; connect nothing."""
        self.closed = True
        """Whether the client is closed, or not connected yet: __del__() does nothing then."""
        check_transport(transport)
        self._hosts = Hosts(endpoint, key, server_key, prefer, host_timeout)
        self.timeout_s = math.inf if timeout is None else seconds(timeout)
        """The timeout of every operation that is given none (seconds)."""
        self._transport: Transport = transport
        self._reconnect_s = reconnect_time(reconnect_timeout)
        self._forks = forks.count
        self._key_files = key, server_key
        self._past = Counters()  # of sessions that have ended
        self._restored = False  # by restore(): nobody is expected to close it
        self._set_up_links()

    @property
    def endpoint(self) -> str:
        """The front endpoint of the daemon in use; of several, the one that was found last."""
        return self._hosts.current

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The front endpoints of all daemons that the client may use."""
        return self._hosts.endpoints

    @property
    def _keys(self) -> Keys | None:
        return self._hosts.keys

    def _where(self) -> str:
        """The endpoint, for people."""
        return f"{self.endpoint} (of {len(self.endpoints)})" if self._hosts.several else self.endpoint

    def _set_up_links(self) -> None:
        """Make the attributes of the sessions; each client has its own."""
        raise NotImplementedError

    def _seconds(self, timeout: float | None, *what: object) -> float:
        """A method's `timeout`, or the client's own. Raises TimeoutError if it has passed: `what` is not begun."""
        timeout_s = self.timeout_s if timeout is None else seconds(timeout)
        if timeout_s <= 0:
            raise deadline_passed(" ".join(map(str, what)), sent=False)
        return timeout_s

    def _sessions(self) -> Sequence[RoutedSession]:
        """The sessions that the client has now."""
        raise NotImplementedError

    @property
    def is_connected(self) -> bool:
        """Whether the client is open, and none of its sessions is lost or looks for another engine."""
        return not self.closed and not self._is_forked() and all(each.is_connected for each in self._sessions())

    @property
    def counters(self) -> Counters:
        """What the client has done so far, also in sessions that have ended."""
        return functools.reduce(Counters.plus, (each.counters for each in self._sessions()), self._past)

    def _retire(self, sessions: Iterable[RoutedSession]) -> None:
        """Keep the counters of `sessions`, which the client forgets."""
        self._past = functools.reduce(Counters.plus, (each.counters for each in sessions), self._past)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the client as its configuration: restore() makes another client of it.

        The keys are pickled as connect() was given them: the secret one as the name of its file.
        """
        hosts = self._hosts
        configuration = (hosts.spec, self.timeout_s, self._transport, *self._key_files, self._reconnect_s)
        return restore, (type(self), *configuration, hosts.prefer, hosts.timeout_s)

    def _is_forked(self) -> bool:
        """Whether this process is a child of the one that created the client."""
        return self._forks != forks.count

    def _check(self) -> None:
        """Raise AiodError (EBADF) if the client is closed, or was made before a fork()."""
        if self._forks != forks.count:
            raise forked("this client")
        if self.closed:
            raise closed("the client")

    def _reconnect(self, export: str, front: str) -> Reconnect:
        """How a session at the daemon `front` finds the next engine that serves `export`."""
        return Reconnect(self._hosts, front, self._transport, export, self._reconnect_s)
