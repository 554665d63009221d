"""The search for another engine: when it tries again, when it gives up, and the reason that it gives."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from aiod_client.connection import reconnect
from aiod_client.session.handshake import Welcome
from aiod_client.session.reconnection import RETRY_S, Reconnection
from aiod_client.session.session import Session

TIMEOUT_S = 10.0
REFUSED = OSError(errno.ECONNREFUSED, "nothing listens")
AWAY = OSError(errno.EIO, "the engine is being started")


@pytest.fixture
def search() -> Reconnection:
    """Begun at second 100, for TIMEOUT_S."""
    session = Session(Welcome(b"t" * 16, "main", 8, 1 << 20, 1 << 16, 8, 2.0, 30.0), 0.0)
    session.resumable = True
    session.interrupt("the connection has ended")
    return Reconnection(session, TIMEOUT_S, 100.0)


def test_a_failed_attempt_is_followed_by_another_until_the_time_is_up(search: Reconnection) -> None:
    assert search.failed(REFUSED, 100.0) == RETRY_S
    assert search.failed(REFUSED, 109.9) == RETRY_S
    assert search.failed(REFUSED, 110.0) is None


def test_the_reason_names_the_last_error_that_was_no_timeout(search: Reconnection) -> None:
    search.failed(REFUSED, 101.0)
    search.failed(AWAY, 102.0)
    search.failed(TimeoutError(errno.ETIMEDOUT, "no answer"), 110.0)
    assert "the connection has ended; no other engine for 10 s: " in search.reason
    assert "the engine is being started" in search.reason


def test_a_timeout_is_named_where_there_was_no_other_error(search: Reconnection) -> None:
    search.failed(TimeoutError(errno.ETIMEDOUT, "no answer"), 110.0)
    assert "no answer" in search.reason


def test_a_search_for_a_session_that_is_not_suspended_is_a_mistake() -> None:
    session = Session(Welcome(b"t" * 16, "main", 8, 1 << 20, 1 << 16, 8, 2.0, 30.0), 0.0)
    with pytest.raises(AssertionError):
        Reconnection(session, TIMEOUT_S, 0.0)


def at(now_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the driver see the time `now_s`."""
    monkeypatch.setattr("aiod_client.connection.reconnect.time", SimpleNamespace(monotonic=lambda: now_s))


class Attempts:
    """Stands for a Reconnect: each attempt takes the next of `outcomes`."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.given: list[tuple[Any, ...]] = []

    def __call__(self, token: bytes, files: Any, deadline_s: float, check: Any, abandoned: str | None) -> Any:
        """Make an attempt."""
        self.given.append((token, files, deadline_s, abandoned))
        check()
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome


def test_the_driver_pauses_between_attempts_and_returns_the_connection(
    search: Reconnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(100.0, monkeypatch)
    attempts, pauses = Attempts(REFUSED, AWAY, "connection"), list[float]()
    found: Any = reconnect.find_next_engine(search, attempts, lambda: True, pauses.append)  # type: ignore[arg-type]
    assert found == "connection"
    assert pauses == [RETRY_S, RETRY_S]
    assert attempts.given == [(b"t" * 16, {}, 110.0, None)] * 3


def test_the_driver_stops_when_the_session_is_not_wanted_any_more(
    search: Reconnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(100.0, monkeypatch)
    wanted = [True, True, False]
    attempts = Attempts(REFUSED)
    found = reconnect.find_next_engine(search, attempts, lambda: wanted.pop(0), lambda _: None)  # type: ignore[arg-type]
    assert found is None
    assert attempts.outcomes == []


def test_the_driver_returns_nothing_when_the_time_is_up(search: Reconnection, monkeypatch: pytest.MonkeyPatch) -> None:
    at(110.0, monkeypatch)
    attempts = Attempts(REFUSED)
    assert reconnect.find_next_engine(search, attempts, lambda: True, lambda _: None) is None  # type: ignore[arg-type]
    assert "nothing listens" in search.reason
