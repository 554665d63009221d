"""Finalizers and signal handlers that use a client while they interrupt the same thread's use of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import gc
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from aiod_client.requests import payload
from aiod_client.requests.batch_steps import no_records
from aiod_client.requests.pending import Request
from aiod_client.session import session
from aiod_protocol.wire import MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.client.conftest import Peer

PATIENCE_S = scaled(60.0)


class Interruption:
    """Runs `use` once, at fire(), in a finalizer that the garbage collector calls; keeps the outcome."""

    def __init__(self) -> None:
        """Without a use yet."""
        self.use: Callable[[], Any] | None = None
        self.outcomes: list[Any] = []

    def fire(self) -> None:
        """Collect garbage whose finalizer is `use`."""
        use, self.use = self.use, None
        if use is not None:
            _Garbage(self, use)
            gc.collect()

    def errno(self) -> Any:
        """The errno of the AiodError that `use` has raised."""
        (error,) = self.outcomes
        assert isinstance(error, aiod_client.AiodError)
        assert "a finalizer or signal handler cannot wait" in str(error)
        return error.errno


class _Garbage:
    def __init__(self, interruption: Interruption, use: Callable[[], Any]) -> None:
        self.interruption, self.use, self.me = interruption, use, self

    def __del__(self) -> None:
        try:
            self.interruption.outcomes.append(self.use())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            self.interruption.outcomes.append(error)


def wait_until(condition: Callable[[], object]) -> None:
    """Poll until `condition()` is true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, interruption: Interruption) -> None:
    """Interrupt `owner.name()` when it is called."""
    usual = getattr(owner, name)

    def interrupted(*arguments: Any) -> Any:
        interruption.fire()
        return usual(*arguments)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.fixture
def client(peer: Peer) -> Iterator[aiod_client.Client]:
    """A connected client; the peer must have no complaints in the end."""
    peer.files["file"] = bytearray(range(100))
    peer.files["other"] = bytearray(10)
    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as connected:
        yield connected
    assert peer.complaints == []


@pytest.fixture
def file(client: aiod_client.Client) -> aiod_client.File:
    """An open file of 100 bytes."""
    return client.open("scratch/file", "r+")


@pytest.fixture(params=["packing", "sending", "receiving", "done", "leading"])
def place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, file: aiod_client.File
) -> Callable[[Callable[[], Any]], Interruption]:
    """Makes an interruption at one place of the next write, in this thread only."""

    def interrupt(use: Callable[[], Any]) -> Interruption:
        interruption, link, me = Interruption(), file._link, threading.current_thread()
        if request.param == "packing":
            before(monkeypatch, payload.Payload, "frames", interruption)
        elif request.param == "sending":
            before(monkeypatch, link.dealer, "send", interruption)
        elif request.param == "receiving":
            complete = Request.complete
            monkeypatch.setattr(session, "complete_records", no_records)  # whose loop in Python has such a place

            def completed(*arguments: Any) -> None:
                if threading.current_thread() is me:
                    interruption.fire()
                complete(*arguments)

            monkeypatch.setattr(Request, "complete", completed)
        elif request.param == "done":
            before(monkeypatch, link, "hand_over", interruption)
        else:
            poll = link.leading.poll

            class Poll:
                def wait(self, timeout_s: float, *, alone: bool) -> Any:
                    interruption.fire()
                    return poll.wait(timeout_s, alone=alone)

            link.leading.poll = Poll()  # type: ignore[assignment]
        interruption.use = use
        return interruption

    return interrupt


def write(file: aiod_client.File, interruption: Interruption) -> int:
    """Write, be interrupted, and check this write and later reads; returns the number of requests."""
    assert file.pwrite(b"outer", 50) == 5
    count = 1
    while interruption.use is not None:  # an answer that is there at once needs no poll
        assert file.pread(3, 10) == bytes([10, 11, 12])
        count += 1
    assert file.pread(5, 50) == b"outer"
    return count + 1


def test_a_call_that_would_have_to_wait_raises_edeadlk(file: aiod_client.File, peer: Peer, place: Any) -> None:
    interruption = place(lambda: file.pwrite(b"inner", 0))
    count = write(file, interruption)
    assert interruption.errno() == errno.EDEADLK
    assert file.pread(5, 0) == bytes(range(5))
    assert sum(peer.batches) == count + 1, "the inner write was sent"


def test_waiting_for_a_future_raises_edeadlk_and_the_future_completes_nevertheless(
    file: aiod_client.File, peer: Peer, place: Any
) -> None:
    peer.hold = True
    (future,) = file.submit([("read", 2, 1)])
    interruption = place(lambda: future.result(PATIENCE_S))
    peer.wait_seen(MessageType.SUBMIT)
    peer.hold = False  # with the next message
    write(file, interruption)
    if isinstance(interruption.outcomes[0], bytes):  # it completed before its thread was interrupted
        assert interruption.outcomes == [bytes([1, 2])]
    else:
        assert interruption.errno() == errno.EDEADLK
    assert future.result(PATIENCE_S) == bytes([1, 2])


def test_submitted_requests_are_executed_soon(file: aiod_client.File, place: Any) -> None:
    interruption = place(lambda: file.submit([("write", b"inner", 0), ("size",)]))
    write(file, interruption)
    (futures,) = interruption.outcomes
    assert [future.result(PATIENCE_S) for future in futures] == [5, 100]
    assert file.pread(5, 0) == b"inner"


def test_callbacks_of_submitted_requests_run(file: aiod_client.File, place: Any) -> None:
    came = threading.Event()

    def submit() -> None:
        (future,) = file.submit([("size",)])
        future.add_done_callback(lambda _: came.set())

    write(file, place(submit))
    assert came.wait(PATIENCE_S)


def test_a_cancelled_request_is_cancelled_soon(file: aiod_client.File, peer: Peer, place: Any) -> None:
    peer.hold = True
    (future,) = file.submit([("read", 1, 0)])
    peer.wait_seen(MessageType.SUBMIT)
    interruption = place(future.cancel)
    peer.hold = False  # with the next message
    write(file, interruption)
    (cancelled,) = interruption.outcomes
    if cancelled:
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(PATIENCE_S)
    else:
        assert future.result(PATIENCE_S) == bytes([0])
    wait_until(lambda: file._link.session.pending == 0)


@pytest.mark.parametrize("place", ["leading"], indirect=True)
def test_cancelling_while_the_same_thread_polls_is_deferred(file: aiod_client.File, peer: Peer, place: Any) -> None:
    def release() -> None:
        peer.wait_seen(MessageType.CANCEL)
        peer.release()

    peer.hold = peer.cancel_ends = True
    (future,) = file.submit([("read", 1, 0)])
    peer.wait_seen(MessageType.SUBMIT)
    interruption = place(future.cancel)
    releasing = threading.Thread(target=release)
    releasing.start()
    assert file.pwrite(b"outer", 50) == 5
    releasing.join(PATIENCE_S)
    assert interruption.outcomes == [False]
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(PATIENCE_S)


def test_an_unsent_request_is_dropped_although_its_cancellation_is_deferred(file: aiod_client.File, peer: Peer) -> None:
    peer.hold = True
    file.submit([("size",)] * 256)  # all of the credit
    (future,) = file.submit([("write", b"inner", 0)])
    with file._link.lock:
        assert not future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(PATIENCE_S)
    peer.release()
    assert file.pread(2, 0) == bytes([0, 1])


def test_a_request_cancelled_before_the_maintenance_thread_submits_it_is_not_sent(
    file: aiod_client.File, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = file._link
    with monkeypatch.context() as patch:
        patch.setattr(link.mailbox, "defer", link.mailbox._deferred.append)  # and the maintenance thread is not woken
        with link.lock:
            futures = file.submit([("write", b"inner", 0), ("size",)])
    assert futures[0].cancel()
    link.mailbox.ring()
    assert futures[1].result(PATIENCE_S) == 100
    assert peer.batches == [1]
    assert file.pread(2, 0) == bytes([0, 1])


def test_a_file_is_closed_soon(client: aiod_client.Client, file: aiod_client.File, peer: Peer, place: Any) -> None:
    other = client.open("scratch/other")
    interruption = place(other.close)
    write(file, interruption)
    assert interruption.outcomes == [None]
    peer.wait_seen(MessageType.CLOSE)
    file.close()


def test_the_client_is_closed_soon(client: aiod_client.Client, file: aiod_client.File, peer: Peer, place: Any) -> None:
    interruption = place(client.close)
    try:
        while interruption.use is not None:
            assert file.pwrite(b"outer", 50) == 5
    except aiod_client.AiodError as error:
        assert error.errno == errno.ESHUTDOWN  # noqa: PT017 - either may be
    assert interruption.outcomes == [None]
    peer.wait_seen(MessageType.GOODBYE)
    file._link.maintenance.thread.join(PATIENCE_S)
    assert not file._link.maintenance.thread.is_alive()
    with pytest.raises(aiod_client.AiodError, match="the client is closed"):
        file.size()


def test_a_deferred_submit_fails_when_the_session_ends_first(file: aiod_client.File, peer: Peer) -> None:
    with file._link.lock:
        (future,) = file.submit([("size",)])
        file._link.finish(file._link.session.lose("the test says so"))
    assert isinstance(future.exception(PATIENCE_S), aiod_client.SessionLostError)
    file._link.maintenance.thread.join(PATIENCE_S)
    with file._link.lock, pytest.raises(aiod_client.SessionLostError):
        file.submit([("size",)])
    assert peer.batches == []


def test_a_signal_handler_may_wait_while_its_thread_is_parked(new_peer: Callable[..., Peer]) -> None:
    """The leader must hand over to the handler, not to the wait that the handler has interrupted."""
    with new_peer(heartbeat_s=1000.0) as peer:  # else the answer to a heartbeat would help
        peer.files["file"] = bytearray(range(100))
        # No timeout: a thread that is not woken would find its answer when it gives up.
        with aiod_client.connect(peer.endpoint, timeout=None) as client, client.open("scratch/file") as file:
            interrupt_one_that_is_parked(peer, file)


def interrupt_one_that_is_parked(peer: Peer, file: aiod_client.File) -> None:
    """Another thread leads and leaves; this one is parked, and so is its signal handler."""
    link, main = file._link, threading.main_thread().ident
    assert main is not None
    got: list[bytes] = []
    peer.hold = peer.cancel_ends = True
    (led_for,) = file.submit([("size",)])

    def lead() -> None:
        with pytest.raises(concurrent.futures.CancelledError):
            led_for.result()

    def interrupt() -> None:
        wait_until(lambda: len(link.leading.parked) == 1)
        signal.pthread_kill(main, signal.SIGUSR1)
        wait_until(lambda: len(link.leading.parked) == 2)
        led_for.cancel()
        peer.release()

    usual = signal.signal(signal.SIGUSR1, lambda *_: got.append(file.pread(1, 7)))
    threads = [threading.Thread(target=lead), threading.Thread(target=interrupt)]
    try:
        threads[0].start()
        wait_until(lambda: link.leading.led_for is led_for._request)
        threads[1].start()
        assert file.pread(1, 5) == bytes([5])
    finally:
        for thread in threads:
            thread.join(PATIENCE_S)
        signal.signal(signal.SIGUSR1, usual)
    assert got == [bytes([7])]


@pytest.mark.parametrize("at", ["packing", "sending", "receiving"])
@pytest.mark.parametrize("what", ["submit", "cancel", "close_handle", "close"])
def test_a_finalizer_in_the_midst_of_a_task_may_use_the_client(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: str, what: str
) -> None:
    async def main() -> None:
        client = await aio.connect(peer.endpoint)
        file, other = await client.open("scratch/file", "r+"), await client.open("scratch/other")
        interruption = Interruption()
        places: dict[str, tuple[Any, str]] = {
            "packing": (payload.Payload, "frames"),
            "sending": (file._link._dealer, "send"),
            "receiving": (Request, "complete"),
        }
        monkeypatch.setattr(session, "complete_records", no_records)  # whose loop in Python has such a place
        before(monkeypatch, *places[at], interruption)
        first, second = file.submit([("write", b"outer", 50), ("size",)])
        uses: dict[str, Callable[[], Any]] = {
            "submit": lambda: file.submit([("write", b"inner", 0)])[0],
            "cancel": second.cancel,
            "close_handle": lambda: other._link.close_handle(other._handle),
            "close": file._link.close,
        }
        interruption.use = uses[what]
        if what == "close":
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
            assert all(isinstance(outcome, aiod_client.AiodError | int) for outcome in outcomes)
            await asyncio.to_thread(peer.wait_seen, MessageType.GOODBYE)
            with pytest.raises(aiod_client.AiodError):
                await file.size()
            await client.close()
            return
        assert await first == 5
        if what == "submit":
            assert await interruption.outcomes[0] == 5
            assert await file.pread(5, 0) == b"inner"
        elif what == "cancel":
            assert interruption.outcomes == [True]
            assert second.cancelled()
        else:
            await asyncio.to_thread(peer.wait_seen, MessageType.CLOSE)
            other.closed = True
        assert await file.pread(5, 50) == b"outer"
        await file.close()
        await client.close()

    peer.files["file"] = bytearray(100)
    peer.files["other"] = bytearray(10)
    asyncio.run(asyncio.wait_for(main(), PATIENCE_S * 2))
    assert peer.complaints == []
    assert "Exception in callback" not in caplog.text
