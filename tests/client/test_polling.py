"""Adaptive polling: the window opens while polling pays, and closes when it does not."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from aiod_client.connection import polling
from aiod_client.connection.polling import (
    SPIN_MAX_S,
    SPIN_MIN_S,
    AdaptivePoll,
    Bell,
    PollThrottle,
    may_poll,
    next_window_s,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def bell() -> Iterator[Bell]:
    """A bell to wait for."""
    made = Bell()
    yield made
    made.close()


def test_the_window_doubles_up_to_its_maximum() -> None:
    window_s, seen = 0.0, []
    for _ in range(10):
        window_s = next_window_s(window_s, SPIN_MAX_S / 2)
        seen.append(window_s)
    assert seen[:2] == [SPIN_MIN_S, 2 * SPIN_MIN_S]
    assert seen == sorted(seen)
    assert seen[-1] == SPIN_MAX_S


def test_a_late_answer_closes_the_window() -> None:
    assert next_window_s(SPIN_MAX_S, SPIN_MAX_S) == 0.0
    assert next_window_s(SPIN_MAX_S, 10.0) == 0.0


def test_an_event_that_is_there_is_returned_without_a_wait(bell: Bell) -> None:
    poll = AdaptivePoll(bell.fd)
    poll.window_s = SPIN_MAX_S
    bell.ring()
    for alone in (True, False):
        assert [fd for fd, _ in poll.wait(10.0, alone=alone)] == [bell.fd]
    assert poll.window_s == SPIN_MAX_S


def test_polls_that_keep_finding_nothing_are_skipped() -> None:
    throttle = PollThrottle()
    polled = 0
    for _ in range(10_000):
        if throttle.begin():
            polled += 1
            throttle.end(found=False)
    assert polled < 30
    while not throttle.begin():
        pass
    throttle.end(found=True)
    assert [throttle.begin() for _ in range(3)] == [True] * 3


def in_a_thread(prepare: Callable[[], None]) -> bool:
    """Whether a new thread may poll after it has called `prepare`."""
    results: list[bool] = []

    def poll() -> None:
        prepare()
        results.append(may_poll(0.0))

    thread = threading.Thread(target=poll)
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="has one CPU")
def test_a_thread_with_one_cpu_or_real_time_priority_does_not_poll() -> None:
    one = {min(os.sched_getaffinity(0))}
    assert in_a_thread(lambda: None)
    assert not in_a_thread(lambda: os.sched_setaffinity(0, one))
    try:
        policies = (os.SCHED_FIFO, os.SCHED_RR)
        assert not any(in_a_thread(lambda p=p: os.sched_setscheduler(0, p, os.sched_param(1))) for p in policies)  # type: ignore[misc]
    except (PermissionError, IndexError):
        pytest.skip("may not become a real-time thread")


@pytest.mark.parametrize("alone", [True, False])
def test_wait_returns_no_event_after_its_timeout(bell: Bell, alone: bool) -> None:  # noqa: FBT001 - a parameter of the test
    poll = AdaptivePoll(bell.fd)
    poll.window_s = SPIN_MAX_S
    assert poll.wait(0.01, alone=alone) == []
    assert poll.window_s == (0.0 if alone else SPIN_MAX_S)


def test_wait_sleeps_after_polling(bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow request costs one window of polling, and no more."""
    polls = []

    class Counting:
        def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
            polls.append(timeout_ms)
            if timeout_ms:
                threading.Thread(target=bell.ring).start()
            return real.poll(timeout_ms)

    real = polling.poll_of(bell.fd)
    monkeypatch.setattr(polling, "poll_of", lambda *_: Counting())
    assert [fd for fd, _ in AdaptivePoll(bell.fd).wait(30.0, alone=True)] == [bell.fd]
    assert polls == [0, 30000]
    os.eventfd_read(bell.fd)
