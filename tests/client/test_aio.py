"""The asyncio client on asyncio's loop and on uvloop: operations, coalescing, cancellation, errors, fairness."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import aiod_client
from aiod_client import aio
from aiod_client.aio import link as aio_link
from aiod_protocol.wire import MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.client.conftest import Peer

PATIENCE_S = scaled(60.0)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on the loop of that kind; fails if an exception is never retrieved."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run_on(coroutine: Coroutine[Any, Any, None]) -> None:
        unheard: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: unheard.append(context))
            runner.run(asyncio.wait_for(coroutine, PATIENCE_S * 2))
            gc.collect()
        assert unheard == []

    return run_on


@pytest.fixture(autouse=True)
def _file(peer: Peer) -> None:
    peer.files["file"] = bytearray(range(100))


async def seen(peer: Peer, kind: MessageType, count: int = 1) -> None:
    """Wait, without blocking the loop, until the peer has received `count` messages of `kind`."""
    await asyncio.to_thread(peer.wait_seen, kind, count)


def test_every_operation_has_its_result(run: Any, peer: Peer) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint) as client, await client.open("scratch/file", "r+") as file:
            assert await file.pread(4, 10) == bytes([10, 11, 12, 13])
            buffer = bytearray(3)
            assert await file.pread_into(buffer, 98) == 2
            assert buffer == bytes([98, 99, 0])
            assert await file.pwrite(b"data", 200) == 4
            await file.flush()
            assert await file.size() == 204
            futures = file.submit([("read", 2, 0), ("write", b"xy", 0), ("flush",), ("size",)])
            assert await asyncio.gather(*futures) == [bytes([0, 1]), 2, 0, 204]
            assert await client.control("ping") == {"verb": "ping", "arguments": {}}
            with pytest.raises(FileNotFoundError):
                await client.open("scratch/none")
        assert "closed" in repr(client)
        assert "closed" in repr(file)

    run(main())
    assert peer.complaints == []
    assert peer.seen[-1] == MessageType.GOODBYE


def test_connect_may_be_awaited(run: Any, peer: Peer) -> None:
    async def main() -> None:
        client = await aio.connect(peer.endpoint)
        async with client:
            assert not client.closed
        assert client.closed

    run(main())


def test_requests_of_tasks_in_one_turn_of_the_loop_travel_in_one_message(run: Any, peer: Peer) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint) as client, await client.open("scratch/file") as file:
            results = await asyncio.gather(*(file.pread(1, number) for number in range(50)))
            assert results == [bytes([number]) for number in range(50)]

    run(main())
    assert peer.batches == [50]


def test_many_tasks_stay_within_the_credit(run: Any, peer: Peer) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint) as client, await client.open("scratch/file") as file:
            futures = file.submit([("read", 1, number % 100) for number in range(20_000)])
            for number, data in enumerate(await asyncio.gather(*futures)):
                assert data == bytes([number % 100])

    run(main())
    assert peer.depth_seen <= 256
    assert peer.complaints == []


def test_other_callbacks_run_while_many_messages_arrive(
    run: Any, new_peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: Counter[int] = Counter()

    async def main(peer: Peer) -> None:
        turns = 0
        async with aio.connect(peer.endpoint) as client, await client.open("scratch/file") as file:
            dealer = file._link._dealer
            receive = dealer.receive

            def counted() -> Any:
                taken[turns] += 1
                return receive()

            peer.hold = True
            futures = file.submit([("read", 1, 0)] * 10_000)
            await seen(peer, MessageType.SUBMIT, 10_000 // 200)
            monkeypatch.setattr(dealer, "receive", counted)
            peer.release()  # the loop is blocked: everything has been sent when it continues
            while not all(future.done() for future in futures):
                await asyncio.sleep(0)
                turns += 1

    with new_peer(depth_max=10_000, batch_max=200) as peer:
        peer.files["file"] = bytearray(100)
        run(main(peer))
    assert sum(taken.values()) >= 10_000 / 32
    assert max(taken.values()) <= aio_link.TURN_MESSAGES_MAX * 3


def test_a_cancelled_await_cancels_the_request_and_leaves_its_buffer_unchanged(run: Any, peer: Peer) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint) as client, await client.open("scratch/file") as file:
            peer.hold = True
            buffer = bytearray(4)
            task = asyncio.create_task(file.pread_into(buffer, 10))
            await seen(peer, MessageType.SUBMIT)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            (future,) = file.submit([("size",)])
            await seen(peer, MessageType.SUBMIT, 2)
            assert future.cancel()
            assert not future.cancel()
            await seen(peer, MessageType.CANCEL, 2)
            await asyncio.to_thread(peer.release)
            assert await file.pread(1, 5) == bytes([5])
            assert buffer == bytes(4)

    run(main())
    assert len(peer.cancelled) == 2


def test_a_request_cancelled_before_it_is_sent_is_never_sent(run: Any, peer: Peer) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint) as client, await client.open("scratch/file") as file:
            (future,) = file.submit([("write", b"no", 0)])
            future.cancel()
            assert await file.pread(2, 0) == bytes([0, 1])

    run(main())
    assert peer.batches == [1]


def test_the_handle_of_an_open_whose_await_was_cancelled_is_closed(run: Any, peer: Peer) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint) as client:
            await (await client.open("scratch/file")).close()
            held: list[list[Any]] = []

            def hold(message: list[Any]) -> None:
                held.append(message)

            peer.answers[MessageType.OPEN] = hold
            task = asyncio.create_task(client.open("scratch/file"))
            await seen(peer, MessageType.OPEN, 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(peer.say, *peer._open(held[0]))
            await seen(peer, MessageType.CLOSE, 2)

    run(main())


def test_a_close_given_up_in_the_backlog_is_sent_nevertheless(run: Any, new_peer: Callable[..., Peer]) -> None:
    async def main(peer: Peer) -> None:
        async with aio.connect(peer.endpoint) as client:
            file, other = await client.open("scratch/file"), await client.open("scratch/file")
            peer.hold = True
            futures = file.submit([("size",)] * 3)
            with pytest.raises(TimeoutError, match=r"close 1: .*unknown whether done"):
                await file.close(timeout=0.01)
            task = asyncio.create_task(other.close())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(peer.release)
            assert await asyncio.gather(*futures) == [100] * 3
            await seen(peer, MessageType.CLOSE, 2)

    with new_peer(depth_max=1, heartbeat_s=1000.0) as peer:
        peer.files["file"] = bytearray(100)
        run(main(peer))
        assert peer.complaints == []


def test_a_timeout_error_says_whether_the_request_was_sent(run: Any, new_peer: Callable[..., Peer]) -> None:
    async def main(peer: Peer) -> None:
        async with (
            aio.connect(peer.endpoint, timeout=0.1) as client,
            await client.open("scratch/file", timeout=PATIENCE_S) as file,
        ):
            peer.hold = True
            first = asyncio.create_task(file.pread(1, 0))
            with pytest.raises(TimeoutError, match=r"scratch/file: size: .*not sent"):
                await asyncio.gather(file.pread(1, 1, timeout=PATIENCE_S), file.size(timeout=0.05))
            with pytest.raises(TimeoutError, match=r"within 0\.1 s .unknown whether done"):
                await first
            await asyncio.to_thread(peer.release)

    with new_peer(depth_max=1) as peer:
        peer.files["file"] = bytearray(100)
        run(main(peer))


def test_requests_fail_when_the_daemon_dies_or_falls_silent(run: Any, new_peer: Callable[..., Peer]) -> None:
    async def dies(peer: Peer) -> None:
        async with aio.connect(peer.endpoint, timeout=None) as client:
            file = await client.open("scratch/file")
            peer.hold = True
            task = asyncio.create_task(file.pread(1, 0))
            await seen(peer, MessageType.SUBMIT)
            await asyncio.to_thread(peer.die)
            with pytest.raises(aiod_client.SessionLostError, match="unknown whether done"):
                await task
            with pytest.raises(aiod_client.SessionLostError, match="not sent"):
                await file.pread(1, 0)
            await file.close()
            with pytest.raises(aiod_client.DaemonUnreachableError):
                await client.open("scratch/file")

    async def falls_silent(peer: Peer) -> None:
        async with aio.connect(peer.endpoint, timeout=None) as client, await client.open("scratch/file") as file:
            await seen(peer, MessageType.HEARTBEAT, 3)
            peer.mute = True
            with pytest.raises(aiod_client.SessionLostError, match="silent"):
                await file.pread(1, 0)

    for main in (dies, falls_silent):
        with new_peer(heartbeat_s=0.05, session_timeout_s=1.5) as peer:
            peer.files["file"] = bytearray(100)
            run(main(peer))


def test_connecting_to_a_daemon_that_does_not_answer_hello_times_out(run: Any, peer: Peer) -> None:
    async def main() -> None:
        peer.mute = True
        with pytest.raises(TimeoutError, match="not sent"):
            await aio.connect(peer.endpoint, timeout=0.1)

    run(main())


def test_closing_fails_requests_in_flight_and_later_calls_raise(run: Any, peer: Peer) -> None:
    async def main() -> None:
        client = await aio.connect(peer.endpoint)
        file, other = await client.open("scratch/file"), await client.open("scratch/file")
        await other.close()
        with pytest.raises(aiod_client.AiodError, match="scratch/file is closed"):
            await other.size()
        peer.hold = True
        task = asyncio.create_task(file.pread(1, 0))
        await seen(peer, MessageType.SUBMIT)
        await client.close()
        with pytest.raises(aiod_client.AiodError) as caught:
            await task
        assert caught.value.errno == errno.ESHUTDOWN
        for use in (file.size, lambda: client.open("scratch/file")):
            with pytest.raises(aiod_client.AiodError, match="the client is closed"):
                await use()
        await file.close()

    run(main())


def test_two_opens_at_once_share_a_session(run: Any, peer: Peer) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint) as client:
            files = await asyncio.gather(*(client.open("scratch/file") for _ in range(10)))
            assert await asyncio.gather(*(file.size() for file in files)) == [100] * 10
            await asyncio.gather(*(file.close() for file in files))

    run(main())
    assert peer.seen.count(MessageType.LOCATE) == 1


def test_a_file_or_client_dropped_unclosed_warns_and_is_closed(run: Any, peer: Peer) -> None:
    async def main() -> None:
        client = await aio.connect(peer.endpoint)
        with pytest.warns(ResourceWarning, match="unclosed <aiod_client.aio.File 'scratch/file'"):
            await client.open("scratch/file")  # and dropped at once
        await seen(peer, MessageType.CLOSE)
        with pytest.warns(ResourceWarning, match="unclosed <aiod_client.aio.Client"):
            del client
        await seen(peer, MessageType.GOODBYE)

    run(main())


def test_a_call_in_a_forked_child_raises(run: Any, peer: Peer) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint) as client, await client.open("scratch/file") as file:
            pid = os.fork()
            if pid == 0:
                try:
                    file.submit([("size",)])
                except aiod_client.AiodError as error:
                    os._exit(0 if "before fork()" in str(error) else 1)
                os._exit(2)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert await file.size() == 100

    run(main())


def test_a_request_refused_before_it_is_sent_fails_although_the_client_is_closed_at_once(run: Any, peer: Peer) -> None:
    async def main() -> None:
        client = await aio.connect(peer.endpoint)
        file = await client.open("scratch/file", "a")
        (future,) = file.submit([("append", bytes(5 << 20))])
        await client.close()
        with pytest.raises(OSError, match="append") as caught:
            await future
        assert caught.value.errno == errno.EMSGSIZE

    run(main())
