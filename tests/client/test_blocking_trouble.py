"""The daemon dies, falls silent, breaks the protocol, ends the session; the client is closed, dropped or forked."""

from __future__ import annotations

import errno
import gc
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_protocol.wire import MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.client.conftest import Peer

PATIENCE_S = scaled(60.0)


@pytest.fixture
def client(peer: Peer) -> Iterator[aiod_client.Client]:
    """A connected client."""
    peer.files["file"] = bytearray(100)
    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as connected:
        yield connected


def in_threads(count: int, call: Callable[[], Any]) -> tuple[list[threading.Thread], list[BaseException]]:
    """Run `call` in `count` threads; returns these and the list that gets their errors."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, errors


def joined(threads: list[threading.Thread]) -> None:
    """Wait until all threads have ended."""
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread hangs"


def test_every_waiting_thread_gets_an_error_when_the_daemon_dies(client: aiod_client.Client, peer: Peer) -> None:
    file = client.open("scratch/file")
    peer.hold = True
    threads, errors = in_threads(5, lambda: file.pread(1, 0))
    peer.wait_seen(MessageType.SUBMIT, 5)
    peer.die()
    joined(threads)
    assert [type(error) for error in errors] == [aiod_client.SessionLostError] * 5
    assert all("unknown whether done" in str(error) for error in errors)
    assert all(isinstance(error, ConnectionError) for error in errors)


def test_errors_after_the_daemons_death_say_which_requests_had_been_sent(new_peer: Callable[..., Peer]) -> None:
    with new_peer(depth_max=4) as peer:
        peer.files["file"] = bytearray(100)
        with aiod_client.connect(peer.endpoint) as client, client.open("scratch/file") as file:
            peer.hold = True
            futures = file.submit([("read", 1, 0)] * 10)
            peer.wait_seen(MessageType.SUBMIT)
            peer.die()
            texts = [str(future.exception(PATIENCE_S)) for future in futures]
            assert ["unknown whether done" in text for text in texts] == [True] * 4 + [False] * 6
            assert ["not sent" in text for text in texts] == [False] * 4 + [True] * 6
            with pytest.raises(aiod_client.SessionLostError, match="not sent"):
                file.pread(1, 0)
            with pytest.raises(aiod_client.DaemonUnreachableError):
                client.open("scratch/file")


def test_after_a_lost_session_open_finds_the_new_daemon_and_old_files_stay_lost(new_peer: Callable[..., Peer]) -> None:
    with new_peer() as first:
        first.files["file"] = bytearray(b"old")
        client = aiod_client.connect(first.endpoint)
        lost = client.open("scratch/file")
        first.hold = True
        (future,) = lost.submit([("write", b"late", 0)])
        first.wait_seen(MessageType.SUBMIT)
    assert isinstance(future.exception(PATIENCE_S), aiod_client.SessionLostError)
    with new_peer() as second:
        second.files["file"] = bytearray(b"new")
        with client.open("scratch/file") as file:
            assert file.pread(10, 0) == b"new"
        with pytest.raises(aiod_client.SessionLostError):
            lost.pread(1, 0)
        lost.close()
        client.close()
        second.wait_seen(MessageType.GOODBYE)
        assert second.seen.count(MessageType.SUBMIT) == 1, "the dead daemon's requests went to its successor"
        assert second.complaints == []


def test_a_session_with_a_silent_daemon_ends_although_no_call_has_a_timeout(new_peer: Callable[..., Peer]) -> None:
    with new_peer(heartbeat_s=0.05, session_timeout_s=1.5) as peer:
        peer.files["file"] = bytearray(100)
        with aiod_client.connect(peer.endpoint, timeout=None) as client, client.open("scratch/file") as file:
            peer.wait_seen(MessageType.HEARTBEAT, 3)
            assert file.pread(1, 0) == b"\0"
            peer.mute = True
            with pytest.raises(aiod_client.SessionLostError, match="silent"):
                file.pread(1, 0)


def test_a_session_with_a_silent_daemon_ends_although_requests_and_cancels_are_sent(
    new_peer: Callable[..., Peer],
) -> None:
    with new_peer(depth_max=100_000, heartbeat_s=0.2, session_timeout_s=0.5) as peer:
        peer.files["file"] = bytearray(100)
        with aiod_client.connect(peer.endpoint, timeout=None) as client, client.open("scratch/file") as file:
            peer.mute = True
            ended: OSError | None = None
            while not isinstance(ended, aiod_client.SessionLostError):
                with pytest.raises(OSError, match=r"silent|no answer") as caught:
                    file.pread(1, 0, timeout=0.01)
                ended = caught.value
                assert len(peer.seen) < 2000, "it is asked for ever"
            assert "silent" in str(ended)


def test_a_close_that_timed_out_in_the_backlog_is_sent_nevertheless(new_peer: Callable[..., Peer]) -> None:
    with new_peer(depth_max=1, heartbeat_s=1000.0) as peer:
        peer.files["file"] = bytearray(100)
        with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client:
            file = client.open("scratch/file")
            peer.hold = True
            futures = file.submit([("size",)] * 3)
            with pytest.raises(TimeoutError, match=r"close 1: .*unknown whether done"):
                file.close(timeout=0)
            file.close()
            peer.release()
            assert [future.result(PATIENCE_S) for future in futures] == [100] * 3
            peer.wait_seen(MessageType.CLOSE)
            assert peer.complaints == []


def test_the_daemons_reason_for_ending_the_session_is_in_the_error(client: aiod_client.Client, peer: Peer) -> None:
    file = client.open("scratch/file")
    peer.hold = True
    threads, errors = in_threads(1, lambda: file.pread(1, 0))
    peer.wait_seen(MessageType.SUBMIT)
    peer.say(MessageType.REFUSAL, errno.ESHUTDOWN, "the daemon is stopping", {"versions": [1]})
    joined(threads)
    (error,) = errors
    assert isinstance(error, aiod_client.SessionLostError)
    assert "the daemon is stopping" in str(error)


def test_a_message_that_breaks_the_protocol_ends_the_session(client: aiod_client.Client, peer: Peer) -> None:
    file = client.open("scratch/file")
    peer.hold = True
    (future,) = file.submit([("read", 1, 0)])
    peer.wait_seen(MessageType.SUBMIT)
    peer.say(MessageType.COMPLETE, b"half a record", {})
    assert isinstance(future.exception(PATIENCE_S), aiod_client.ProtocolError)


def test_a_daemon_that_does_not_answer_open_times_out_and_a_late_handle_is_closed(
    client: aiod_client.Client, peer: Peer
) -> None:
    client.open("scratch/file").close()
    peer.answers[MessageType.OPEN] = lambda _: None
    with pytest.raises(TimeoutError, match="scratch/file: open scratch file"):
        client.open("scratch/file", timeout=0.05)
    cookie = 3
    peer._handles[9] = bytearray()
    peer.say(MessageType.REPLY, cookie, 9, None, {"size": 0})
    peer.wait_seen(MessageType.CLOSE, 2)
    assert 9 not in peer._handles


def test_a_daemon_of_another_version_refuses_hello(peer: Peer) -> None:
    peer.answers[MessageType.HELLO] = lambda _: [
        MessageType.REFUSAL,
        errno.EPROTONOSUPPORT,
        "this daemon speaks 9",
        {"versions": [9]},
    ]
    with pytest.raises(aiod_client.ProtocolError, match="speaks 9") as caught:
        aiod_client.connect(peer.endpoint)
    assert caught.value.errno == errno.EPROTONOSUPPORT


def test_closing_the_client_wakes_all_waiting_threads(client: aiod_client.Client, peer: Peer) -> None:
    file = client.open("scratch/file")
    peer.hold = True
    (future,) = file.submit([("size",)])
    called = threading.Event()
    future.add_done_callback(lambda _: called.set())
    threads, errors = in_threads(4, lambda: file.pread(1, 0))
    peer.wait_seen(MessageType.SUBMIT, 5)
    client.close()
    joined(threads)
    assert [error.errno for error in errors if isinstance(error, aiod_client.AiodError)] == [errno.ESHUTDOWN] * 4
    assert isinstance(future.exception(0), aiod_client.AiodError)
    assert called.wait(PATIENCE_S)
    peer.wait_seen(MessageType.GOODBYE)


def test_a_closed_client_or_file_raises(client: aiod_client.Client) -> None:
    file, other = client.open("scratch/file"), client.open("scratch/file")
    file.close()
    file.close()
    uses: list[Callable[[], Any]] = [lambda: file.pread(1, 0), file.flush, lambda: file.submit([("size",)])]
    for use in uses:
        with pytest.raises(aiod_client.AiodError, match="scratch/file is closed") as caught:
            use()
        assert caught.value.errno == errno.EBADF
    client.close()
    client.close()
    for use in [lambda: other.pread(1, 0), lambda: client.open("scratch/file"), lambda: client.control("ping")]:
        with pytest.raises(aiod_client.AiodError, match="the client is closed"):
            use()
    other.close()
    assert "closed" in repr(client)
    assert "closed" in repr(file)


def test_a_callback_may_close_the_client(client: aiod_client.Client, peer: Peer) -> None:
    file = client.open("scratch/file")
    closed = threading.Event()

    def close(_: object) -> None:
        client.close()
        closed.set()

    peer.hold = True
    file.submit([("size",)])[0].add_done_callback(close)
    peer.release()
    assert closed.wait(PATIENCE_S)
    with pytest.raises(aiod_client.AiodError):
        file.size()


def test_a_slow_callback_delays_no_heartbeat_and_its_wait_ends_with_the_session(
    new_peer: Callable[..., Peer],
) -> None:
    with new_peer(heartbeat_s=0.05) as peer:
        peer.files["file"] = bytearray(100)
        with aiod_client.connect(peer.endpoint, timeout=None) as client, client.open("scratch/file") as file:
            peer.hold = True
            heard: list[BaseException | None] = []
            over = threading.Event()
            killer = threading.Thread(target=peer.die)

            def slow(_: object) -> None:
                peer.wait_seen(MessageType.HEARTBEAT, peer.seen.count(MessageType.HEARTBEAT) + 3)
                peer.hold = True
                (never,) = file.submit([("size",)])
                killer.start()
                heard.append(never.exception())
                over.set()

            (future,) = file.submit([("size",)])
            future.add_done_callback(slow)
            peer.release()
            assert over.wait(PATIENCE_S)
            assert [type(error) for error in heard] == [aiod_client.SessionLostError]
        killer.join()


def test_a_file_or_client_dropped_unclosed_warns_and_is_closed(new_peer: Callable[..., Peer]) -> None:
    with new_peer(heartbeat_s=0.05) as peer:
        peer.files["file"] = bytearray(100)
        client = aiod_client.connect(peer.endpoint)
        with pytest.warns(ResourceWarning, match="unclosed <aiod_client.File 'scratch/file'"):
            client.open("scratch/file")  # and dropped at once
        peer.wait_seen(MessageType.CLOSE)
        with pytest.warns(ResourceWarning, match="unclosed <aiod_client.Client"):
            del client
        peer.wait_seen(MessageType.GOODBYE)


def test_a_file_keeps_its_client_alive(peer: Peer) -> None:
    peer.files["file"] = bytearray(b"kept")
    file = aiod_client.connect(peer.endpoint).open("scratch/file")
    gc.collect()
    assert file.pread(4, 0) == b"kept"
    file.close()
    file._client.close()  # type: ignore[attr-defined]


def test_calls_in_a_forked_child_raise_and_the_parent_continues(client: aiod_client.Client, peer: Peer) -> None:
    file = client.open("scratch/file")
    (future,) = file.submit([("size",)])
    assert future.result(PATIENCE_S) == 100
    peer.hold = True
    (pending,) = file.submit([("size",)])
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, _uses_in_child(client, file, future, pending).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        output = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert output.splitlines() == ["before fork()"] * 6 + ["100", "closed"]
    peer.release()
    assert pending.result(PATIENCE_S) == 100
    assert file.pread(1, 0) == b"\0"
    file.close()


def _uses_in_child(client: aiod_client.Client, file: aiod_client.File, done: Any, pending: Any) -> str:
    lines = []
    for use in (
        lambda: file.pread(1, 0),
        lambda: file.submit([("size",)]),
        lambda: client.open("scratch/file"),
        pending.result,
        pending.cancel,
        lambda: pending.add_done_callback(print),
    ):
        try:
            lines.append(repr(use()))
        except aiod_client.AiodError as error:
            lines.append("before fork()" if "before fork()" in str(error) else str(error))
    lines.append(str(done.result()))
    file.close()
    client.close()
    return "\n".join([*lines, "closed"])


def test_control_returns_the_supervisors_reply(client: aiod_client.Client) -> None:
    assert client.control("stats", {"x": 1}) == {"verb": "stats", "arguments": {"x": 1}}


def test_a_thread_interrupted_while_it_waits_leaves_a_usable_client(
    client: aiod_client.Client, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = client.open("scratch/file")
    peer.hold = True

    class Interrupted:
        def wait(self, timeout_s: float, *, alone: bool) -> None:  # noqa: ARG002
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(file._link.leading, "poll", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            file.pread(1, 0)
    peer.wait_seen(MessageType.CANCEL)
    peer.release()
    assert file.pread(1, 0) == b"\0"
