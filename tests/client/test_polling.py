"""Waiting by looking and by sleeping: the window opens while it pays, and closes when it does not."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from aiod_client import polling
from aiod_client.polling import SPIN_MAX_S, SPIN_MIN_S, AdaptivePoll, Bell, next_window_s

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bell() -> Iterator[Bell]:
    """Something to wait for."""
    made = Bell()
    yield made
    made.close()


def test_the_window_opens_by_doubling_up_to_its_most() -> None:
    window_s, seen = 0.0, []
    for _ in range(10):
        window_s = next_window_s(window_s, SPIN_MAX_S / 2)
        seen.append(window_s)
    assert seen[:2] == [SPIN_MIN_S, 2 * SPIN_MIN_S]
    assert seen == sorted(seen)
    assert seen[-1] == SPIN_MAX_S


def test_a_late_answer_closes_it() -> None:
    assert next_window_s(SPIN_MAX_S, SPIN_MAX_S) == 0.0
    assert next_window_s(SPIN_MAX_S, 10.0) == 0.0


def test_what_is_there_is_seen_without_a_wait(bell: Bell) -> None:
    poll = AdaptivePoll(bell.fd)
    poll.window_s = SPIN_MAX_S
    bell.ring()
    for alone in (True, False):
        assert [fd for fd, _ in poll.wait(10.0, alone=alone)] == [bell.fd]
    assert poll.window_s == SPIN_MAX_S


@pytest.mark.parametrize("alone", [True, False])
def test_nothing_comes(bell: Bell, alone: bool) -> None:  # noqa: FBT001 - a parameter of the test
    poll = AdaptivePoll(bell.fd)
    poll.window_s = SPIN_MAX_S
    assert poll.wait(0.01, alone=alone) == []
    assert poll.window_s == (0.0 if alone else SPIN_MAX_S)


def test_it_sleeps_after_looking(bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that takes long costs a window of looking, and no more."""
    looks = []

    class Counting:
        def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
            looks.append(timeout_ms)
            if timeout_ms:
                threading.Thread(target=bell.ring).start()
            return real.poll(timeout_ms)

    real = polling.poll_of(bell.fd)
    monkeypatch.setattr(polling, "poll_of", lambda *_: Counting())
    assert [fd for fd, _ in AdaptivePoll(bell.fd).wait(30.0, alone=True)] == [bell.fd]
    assert looks == [0, 30000]
    os.eventfd_read(bell.fd)
