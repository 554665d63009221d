"""Waiting by looking and by sleeping: the window opens while it pays, and closes when it does not."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from aiod_client.connection import polling
from aiod_client.connection.polling import SPIN_MAX_S, SPIN_MIN_S, AdaptivePoll, Bell, Looks, may_look, next_window_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


def test_looks_that_keep_failing_are_left_out() -> None:
    looks = Looks()
    looked = 0
    for _ in range(10_000):
        if looks.begin():
            looked += 1
            looks.end(found=False)
    assert looked < 30
    while not looks.begin():
        pass
    looks.end(found=True)
    assert [looks.begin() for _ in range(3)] == [True] * 3


def in_a_thread(prepare: Callable[[], None]) -> bool:
    """Whether a new thread may look that has prepared itself so."""
    said: list[bool] = []

    def look() -> None:
        prepare()
        said.append(may_look(0.0))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return said[0]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="has one CPU")
def test_who_has_one_cpu_or_real_time_does_not_look() -> None:
    one = {min(os.sched_getaffinity(0))}
    assert in_a_thread(lambda: None)
    assert not in_a_thread(lambda: os.sched_setaffinity(0, one))
    try:
        policies = (os.SCHED_FIFO, os.SCHED_RR)
        assert not any(in_a_thread(lambda p=p: os.sched_setscheduler(0, p, os.sched_param(1))) for p in policies)  # type: ignore[misc]
    except (PermissionError, IndexError):
        pytest.skip("may not become a real-time thread")


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
