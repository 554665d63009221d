"""Progress of a blocking session with one waiting thread, many, or none (callbacks, wait()); timeouts; cancellation."""

from __future__ import annotations

import concurrent.futures
import gc
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client.blocking.maintenance import SKIPPED_MAX
from aiod_client.blocking.shared_session import WATCH_S
from aiod_protocol.wire import MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.client.conftest import Peer

PATIENCE_S = scaled(60.0)


def wait_until(condition: Callable[[], object]) -> None:
    """Poll until `condition()` is true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


@pytest.fixture
def file(peer: Peer) -> Iterator[aiod_client.File]:
    """An open file of 100 bytes; the peer must have no complaints in the end."""
    peer.files["file"] = bytearray(range(100))
    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client, client.open("scratch/file", "r+") as opened:
        yield opened
    assert peer.complaints == []


def test_every_operation_has_its_result(file: aiod_client.File) -> None:
    assert file.pread(4, 10) == bytes([10, 11, 12, 13])
    assert file.pread(50, 90) == bytes(range(90, 100))
    buffer = bytearray(3)
    assert file.pread_into(buffer, 50) == 3
    assert buffer == bytes([50, 51, 52])
    assert file.pwrite(b"data", 200) == 4
    file.flush()
    assert file.size() == 204
    futures = file.submit([("read", 2, 0), ("write", b"xy", 0), ("flush",), ("size",), ("read_into", buffer, 60)])
    assert [future.result(timeout=PATIENCE_S) for future in futures] == [bytes([0, 1]), 2, 0, 204, 3]
    assert buffer == bytes([60, 61, 62])
    assert file.submit([]) == []


def test_a_batch_travels_in_one_message(file: aiod_client.File, peer: Peer) -> None:
    concurrent.futures.wait(file.submit([("write", b"x", number) for number in range(32)]))
    assert peer.batches == [32]


def test_a_batch_with_one_bad_operation_submits_none(file: aiod_client.File, peer: Peer) -> None:
    with pytest.raises(OSError, match="negative"):
        file.submit([("read", 1, 0), ("read", -1, 0)])
    with pytest.raises(ValueError, match="unknown operation"):
        file.submit([("read", 1, 0), ("trim", 1, 0)])
    assert peer.batches == []


def test_a_hundred_thousand_requests_at_once_stay_within_the_credit(file: aiod_client.File, peer: Peer) -> None:
    futures = file.submit([("read", 1, number % 100) for number in range(100_000)])
    assert all(future.result(PATIENCE_S * 3) == bytes([number % 100]) for number, future in enumerate(futures))
    assert peer.depth_seen <= 256


def test_many_threads_on_one_file_each_get_their_own_results(file: aiod_client.File) -> None:
    def many(number: int) -> bool:
        for turn in range(200):
            if turn % 7 == 0:
                futures = file.submit([("read", 1, (number + turn) % 100)] * 3)
                assert {future.result(PATIENCE_S) for future in futures} == {bytes([(number + turn) % 100])}
            assert file.pread(1, number) == bytes([number])
        return True

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(many, range(16), timeout=PATIENCE_S * 3))


def test_a_follower_leads_when_the_leader_leaves(file: aiod_client.File, peer: Peer) -> None:
    peer.hold = True
    (slow,) = file.submit([("size",)])
    followers = [threading.Thread(target=slow.result) for _ in range(4)]
    with pytest.raises(TimeoutError):
        file.pread(1, 0, timeout=0.05)
    for thread in followers:
        thread.start()
    with pytest.raises(TimeoutError):
        slow.result(0.05)
    peer.release()
    for thread in followers:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in followers)


def test_callbacks_run_although_no_thread_waits(file: aiod_client.File) -> None:
    got: list[Any] = []
    all_there = threading.Event()

    def callback(future: concurrent.futures.Future[Any]) -> None:
        got.append(future.result(0))
        if len(got) == 1000:
            all_there.set()

    for future in file.submit([("read", 1, 7)] * 1000):
        future.add_done_callback(callback)
    assert all_there.wait(PATIENCE_S)
    assert set(got) == {bytes([7])}


def test_a_callback_may_use_the_client_and_may_raise(
    file: aiod_client.File, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    peer.hold = True
    got: list[bytes] = []
    there = threading.Event()

    def read_more(_: object) -> None:
        got.append(file.pread(1, 5))
        there.set()

    first, second = file.submit([("size",), ("size",)])
    first.add_done_callback(lambda _: 1 / 0)
    second.add_done_callback(read_more)
    peer.release()
    assert there.wait(PATIENCE_S)
    assert got == [bytes([5])]
    assert "ZeroDivisionError" in caplog.text


def test_the_functions_of_concurrent_futures_work(file: aiod_client.File) -> None:
    for _ in range(5):
        futures = file.submit([("read", 1, number) for number in range(50)])
        done, waiting = concurrent.futures.wait(futures, timeout=PATIENCE_S)
        assert (len(done), len(waiting)) == (50, 0)
        futures = file.submit([("read", 1, number) for number in range(50)])
        assert len(list(concurrent.futures.as_completed(futures, timeout=PATIENCE_S))) == 50


def test_a_timeout_error_says_whether_the_request_was_sent(new_peer: Callable[..., Peer]) -> None:
    with new_peer(depth_max=2) as peer:
        peer.files["file"] = bytearray(100)
        with (
            aiod_client.connect(peer.endpoint, timeout=0.1) as client,
            client.open("scratch/file", timeout=scaled(60)) as file,
        ):
            peer.hold = True
            futures = file.submit([("read", 1, 0)] * 3)
            with pytest.raises(TimeoutError, match=r"scratch/file: read of 1 bytes at 0: .*unknown whether done"):
                futures[0].result(0.05)
            with pytest.raises(TimeoutError, match="not sent"):
                futures[2].result(0)
            with pytest.raises(TimeoutError, match="not sent"):
                file.size()
            with pytest.raises(TimeoutError, match="unknown whether done"):
                futures[0].exception(0.05)
            peer.release()
            assert [future.result(PATIENCE_S) for future in futures] == [b"\0"] * 3


def test_a_timeout_gives_the_request_up_and_leaves_its_buffer_unchanged(file: aiod_client.File, peer: Peer) -> None:
    peer.hold = True
    buffer = bytearray(4)
    with pytest.raises(TimeoutError):
        file.pread_into(buffer, 10, timeout=0.05)
    peer.wait_seen(MessageType.CANCEL)
    peer.release()
    assert file.pread(1, 0) == b"\0"
    assert buffer == bytes(4)


def test_cancel_ends_a_queued_request_and_leaves_a_started_one(file: aiod_client.File, peer: Peer) -> None:
    """A request that the daemon has not begun is cancelled; one that it has begun is not affected."""
    peer.hold = peer.cancel_ends = True
    cancelled, kept = file.submit([("read", 1, 0), ("read", 1, 1)])
    called: list[object] = []
    cancelled.add_done_callback(called.append)
    assert cancelled.cancel()
    assert cancelled.cancel()
    assert (cancelled.cancelled(), cancelled.done()) == (True, True)
    wait_until(lambda: called == [cancelled])
    with pytest.raises(concurrent.futures.CancelledError):
        cancelled.result()
    done, _ = concurrent.futures.wait([cancelled], timeout=0)
    assert done == {cancelled}
    peer.cancel_ends = False  # as if it had begun the request
    assert not kept.cancel()
    assert not kept.done()
    assert len(peer.cancelled) == 2
    peer.release()
    assert kept.result(PATIENCE_S) == bytes([1])
    assert not kept.cancel()


def test_cancelling_an_unsent_request_sends_nothing(new_peer: Callable[..., Peer]) -> None:
    with new_peer(depth_max=1) as peer:
        peer.files["file"] = bytearray(100)
        with aiod_client.connect(peer.endpoint) as client, client.open("scratch/file") as file:
            peer.hold = True
            sent, waiting = file.submit([("read", 1, 0), ("read", 1, 1)])
            assert waiting.cancel()
            assert waiting.cancelled()
            peer.release()
            assert sent.result(PATIENCE_S) == b"\0"
    assert peer.cancelled == []
    assert sum(peer.batches) == 1


def test_cancel_waits_no_longer_than_the_clients_timeout(peer: Peer) -> None:
    peer.files["other"] = bytearray(range(100))
    with (
        aiod_client.connect(peer.endpoint, timeout=0.1) as client,
        client.open("scratch/other", timeout=scaled(60)) as file,
    ):
        peer.hold = True
        peer.answers[MessageType.CANCEL] = lambda _: None
        (future,) = file.submit([("read", 1, 5)])
        assert not future.cancel()
        assert not future.done()
        peer.release()
        assert future.result(PATIENCE_S) == bytes([5])


def test_a_cancelled_future_wakes_the_threads_that_wait_for_it(new_peer: Callable[..., Peer]) -> None:
    woken: list[BaseException] = []

    def wait(future: aiod_client.RequestFuture) -> None:
        try:
            future.result()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            woken.append(error)

    with new_peer(heartbeat_s=1000.0) as peer:  # else the answer to a heartbeat would wake them
        peer.files["file"] = bytearray(100)
        with aiod_client.connect(peer.endpoint) as client, client.open("scratch/file") as file:
            peer.hold = peer.cancel_ends = True
            (future,) = file.submit([("size",)])
            threads = [threading.Thread(target=wait, args=(future,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            link = file._link
            wait_until(lambda: link.leading.led_for is future._request and len(link.leading.parked) == 2)
            future.cancel()
            for thread in threads:
                thread.join(PATIENCE_S)
            assert [type(error) for error in woken] == [concurrent.futures.CancelledError] * 3


def test_finished_futures_are_freed_without_the_garbage_collector(file: aiod_client.File) -> None:
    gc.collect()
    gc.disable()
    try:
        (future,) = file.submit([("read", 1, 0)])
        future.result(PATIENCE_S)
        reference = weakref.ref(future)
        del future
        assert reference() is None
    finally:
        gc.enable()


def test_the_session_of_a_closed_client_is_freed_without_the_garbage_collector(peer: Peer) -> None:
    peer.files["file"] = bytearray(100)
    client = aiod_client.connect(peer.endpoint, timeout=PATIENCE_S)
    with client.open("scratch/file") as file:
        file.pread(1, 0)
    gc.collect()
    gc.disable()
    try:
        references: list[weakref.ref[Any]] = [weakref.ref(file._link), weakref.ref(file._link.session)]
        client.close()
        del client, file
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()


def test_the_maintenance_thread_never_leads_for_a_lone_blocking_reader(file: aiod_client.File) -> None:
    leaders = set()
    leading, maintenance = file._link.leading, file._link.maintenance
    lead = leading.lead

    def lead_noted(pending: Any, remaining_s: float, *, alone: bool) -> None:
        leaders.add(threading.current_thread())
        lead(pending, remaining_s, alone=alone)

    def led() -> bool:
        leaders.add(maintenance.thread)
        return False

    leading.lead, maintenance._has_led = lead_noted, led  # type: ignore[method-assign]
    for _ in range(200):
        file.pread(1, 0)
    assert leaders == {threading.current_thread()}


def test_the_maintenance_thread_leaves_out_looks_while_others_use_the_session(file: aiod_client.File) -> None:
    class Watch:
        polls = 0

        def poll(self, _: float | None) -> list[tuple[int, int]]:
            self.polls += 1
            return []

    def polls(*, used_s: float = math.inf, held_until_s: float = math.inf, timeout_s: float = WATCH_S) -> int:
        watch: Any = Watch()
        with link.lock:  # which keeps the real thread from changing anything
            link.mailbox.watching, link.leading.last_use_s, link.session.held_until_s = True, used_s, held_until_s
            link.maintenance._sleep(watch, timeout_s)
            link.leading.last_use_s, link.session.held_until_s = 0.0, math.inf
        return int(watch.polls)

    link = file._link
    assert polls() == 1 + SKIPPED_MAX
    assert polls(used_s=0.0) == 1
    assert polls(held_until_s=0.0) == 1
    assert polls(timeout_s=WATCH_S / 2) == 1
