"""The daemons that a client may use: which one it uses now, and in which order it asks the others.

Preferred ones come first, then those of this host (ipc), then the others in an order that each client draws for itself:
so the clients of a daemon that has gone spread over those that are left, without knowing of each other. A measured
latency would send them all to the one that answers fastest at that moment.

Safe from any thread: what changes is one attribute.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from typing import TYPE_CHECKING, Final

from aiod_client import endpoint as endpoints
from aiod_client.errors import AiodError, DaemonUnreachableError
from aiod_client.keys import find_keys
from aiod_client.requests.timeouts import seconds
from aiod_client.session.handshake import NO_TERMS, Terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiod_client.keys import Keys
    from aiod_protocol.key_files import StrPath

HOST_TIMEOUT_S: Final = 5.0
"""The default of connect()'s `host_timeout`."""

_LEASE_PART: Final = 0.8
"""A daemon ends the session before its client takes another: what comes late is refused by then."""

_random: Final = random.SystemRandom()  # forked processes would draw the same order from another


class Hosts:
    """The daemons of one client."""

    def __init__(
        self,
        endpoint: str,
        key: StrPath | None = None,
        server_key: StrPath | None = None,
        prefer: str | Sequence[str] | None = None,
        host_timeout: float | None = None,
    ) -> None:
        """`endpoint` is one, or several with commas between them. The others are arguments of connect()."""
        self.spec = endpoint
        """The endpoints as they were given."""
        self.endpoints = endpoints.split(endpoint)
        for each in self.endpoints:
            endpoints.check(each)
        self.prefer = _preferred(prefer, self.endpoints)
        self.timeout_s = _host_timeout_s(host_timeout)
        over_tcp = [each for each in self.endpoints if endpoints.is_tcp(each)]
        self.keys = find_keys((over_tcp or self.endpoints)[0], key, server_key)
        self._order = self._drawn()
        self.current = self._order[0]
        """The endpoint of the daemon that was found last: it is asked first."""

    def _drawn(self) -> list[str]:
        others = [each for each in self.endpoints if each not in self.prefer]
        _random.shuffle(others)
        return [*self.prefer, *sorted(others, key=endpoints.is_tcp)]

    @property
    def several(self) -> bool:
        """Whether there is another daemon to go on with."""
        return len(self.endpoints) > 1

    @property
    def terms(self) -> Terms:
        """What is asked of each session."""
        return Terms(self.timeout_s * _LEASE_PART, self.timeout_s) if self.several else NO_TERMS

    @property
    def patience_s(self) -> float | None:
        """How long to wait for one answer of a handshake while others may be asked; None: as long as there is time."""
        return self.timeout_s / 2 if self.several else None

    def keys_of(self, endpoint: str) -> Keys | None:
        """The keys for `endpoint`."""
        return self.keys if endpoints.is_tcp(endpoint) else None

    def candidates(self, left: str | None = None) -> list[str]:
        """The endpoints in the order of asking: the current one first, the one that was `left` last."""
        return sorted(self._order, key=lambda each: (each == left, each != self.current))


class Round:
    """One round of questions to the hosts, until one of them answers.

    asked = Round(hosts)
    for front in asked:
        with asked.attempt(front):
            return ...
    raise asked.error()
    """

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._failures: list[tuple[str, OSError]] = []

    def __iter__(self) -> Iterator[str]:
        """The endpoints to ask."""
        yield from self._hosts.candidates()

    @contextlib.contextmanager
    def attempt(self, front: str) -> Iterator[None]:
        """Take note of an error after which another host may be asked; without one `front` is in use from now on."""
        try:
            yield
        except OSError as error:
            if not may_ask_another(error):
                raise
            self._failures.append((front, error))
        else:
            self._hosts.current = front

    def error(self) -> OSError:
        """The exception for a round without an answer: what each host has said."""
        return none_answers(self._failures)


def may_ask_another(error: OSError) -> bool:
    """Whether another daemon may answer what this one has failed with `error`: it is away, or it does not let us in."""
    return isinstance(error, AiodError | TimeoutError) or error.errno in {errno.EIO, errno.ESHUTDOWN}


def none_answers(failures: Sequence[tuple[str, OSError]]) -> OSError:
    """The exception for hosts of which none has answered: of the kind of their errors, if these are alike."""
    first = failures[0][1]
    if len(failures) == 1:
        return first
    said = "; ".join(f"{front}: {_without(front, error)}" for front, error in failures)
    text = f"none of {len(failures)} daemons can be used: {said}"
    if len({(type(error), error.errno) for _, error in failures}) == 1:
        return type(first)(first.errno, text)
    return DaemonUnreachableError(errno.ECONNREFUSED, text)


def _without(front: str, error: OSError) -> str:
    """The error's text; the endpoint, with which many begin, stands before it already."""
    return (error.strerror or str(error)).removeprefix(f"{front} ").removeprefix(f"{front}: ")


def _preferred(prefer: str | Sequence[str] | None, among: tuple[str, ...]) -> tuple[str, ...]:
    if prefer is None:
        prefer = os.environ.get("AIOD_PREFER", "")
    named = endpoints.split(prefer) if isinstance(prefer, str) and prefer else tuple(prefer)
    for each in named:
        if each not in among:
            raise AiodError(errno.EINVAL, f"prefer names {each!r}, which is none of the endpoints {', '.join(among)}")
    return tuple(dict.fromkeys(named))


def _host_timeout_s(given: float | None) -> float:
    timeout_s = float(os.environ.get("AIOD_HOST_TIMEOUT") or HOST_TIMEOUT_S) if given is None else seconds(given)
    if timeout_s <= 0:
        raise ValueError(f"host_timeout is {timeout_s:g}: give a number of seconds above 0")
    return timeout_s
