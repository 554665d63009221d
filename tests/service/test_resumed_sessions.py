"""Resumption of sessions by a new engine, at the level of messages (docs/protocol.md, Resuming)."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aiod_protocol import ring_wire
from aiod_protocol.operations import Op
from aiod_protocol.reasons import Reason
from aiod_protocol.ring_wire import RingMessage
from aiod_protocol.wire import MessageType
from tests.conftest import alive, freeze
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE, FLUSH = int(Op.READ), int(Op.WRITE), int(Op.FLUSH)
REPEAT = 0x8000
ALL = 7  # READ, WRITE, CREATE
DIES = """
import sys, aiod_client
with aiod_client.connect(sys.argv[1]) as client, client.open("scratch/file", "w+"):
    print("open", flush=True)
    sys.stdin.readline()
"""


def record(op: int, handle: int, offset: int = 0, length: int = 0, *, flags: int = 0) -> tuple[int, ...]:
    return (1, op, flags, handle, offset, length, 0, 0, 0, 0)


class Crash:
    """A daemon whose engine is killed, and raw clients of the engines before and after."""

    def __init__(self, daemon: Any, connect: Callable[..., Any], locate: Callable[[str], str]) -> None:
        self.daemon = daemon
        self._connect = connect
        self._locate = locate
        self._endpoint = locate(daemon.endpoint)

    def fds(self) -> list[str]:
        """Descriptors of the supervisor."""
        found = []
        for path in Path(f"/proc/{self.daemon.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(str(path.readlink()))
        return found

    def client(self) -> Any:
        """A new session with the current engine."""
        made = self._connect(self._endpoint)
        made.hello()
        return made

    def happens(self, wait_until: Callable[..., None]) -> None:
        """Kill the engine, and wait for its replacement."""
        before = self._endpoint
        os.kill(self.daemon.engine["pid"], signal.SIGKILL)

        def is_back() -> bool:
            try:
                self._endpoint = self._locate(self.daemon.endpoint)
            except AssertionError:
                return False
            return self._endpoint != before

        wait_until(is_back, "another engine")

    def say_hello(self, token: bytes = b"") -> Any:
        """A client that has sent HELLO with the earlier `token` to the current engine."""
        made = self._connect(self._endpoint)
        made.token = token
        made.send(
            MessageType.HELLO,
            {"versions": [1], "features": [], "software": "raw"} | ({"resume": token} if token else {}),
        )
        return made

    def resume(self, earlier: Any) -> tuple[Any, dict[str, Any]]:
        """Resume the session of `client`; the new client and its WELCOME."""
        made = self.say_hello(earlier.token)
        kind, welcome = made.answer()
        assert kind == MessageType.WELCOME
        made.token = welcome["session"]
        return made, welcome


@pytest.fixture
def crash(daemon: Any, connect: Callable[..., Any], locate: Callable[[str], str]) -> Crash:
    return Crash(daemon, connect, locate)


def reopen(client: Any, handle: int, path: str, body: dict[str, Any], *, changed: bool = False) -> list[Any]:
    """[result, text, body] of a REOPEN."""
    answer = client.ask(MessageType.REOPEN, client.token, 9, handle, "scratch", path, ALL, body["file"], changed)
    return list(answer[2:])


def test_a_resumed_session_keeps_its_file_even_if_renamed_or_removed(
    crash: Crash, wait_until: Callable[..., None]
) -> None:
    client = crash.client()
    handle, _, body = client.open("file", ALL)
    assert client.submit(record(WRITE, handle, 0, 4), payloads=[b"data"])[1][0] == 4
    (crash.daemon.path / "file").unlink()
    crash.happens(wait_until)
    again, welcome = crash.resume(client)
    assert (welcome["session"], welcome["grace"]) == (client.token, True)
    assert reopen(again, handle, "file", body, changed=True)[0] == handle
    assert again.submit(record(READ, handle, 0, 10))[1][0] == 4
    assert again.submit(record(FLUSH, handle))[1] == (0, "")
    handles = crash.daemon.json("handles")["handles"]
    assert [(each["handle"], each["file"]) for each in handles] == [(handle, "scratch/file")]


def test_new_writes_wait_until_all_sessions_have_repeated_theirs(crash: Crash, wait_until: Callable[..., None]) -> None:
    """A new write is executed only after the repeated writes of all sessions."""
    one, other = crash.client(), crash.client()
    handle, _, body = one.open("file", ALL)
    assert other.open("file", ALL)[0] == handle
    crash.happens(wait_until)
    again, welcome = crash.resume(one)
    new = crash.say_hello()
    assert welcome["grace"]
    reopen(again, handle, "file", body)
    assert again.submit(record(WRITE, handle, 0, 4, flags=REPEAT), payloads=[b"olds"])[1][0] == 4
    again.send(MessageType.REPEATED, again.token)
    assert not new.dealer.poll(100)  # the other one may have something to repeat still
    second, _ = crash.resume(other)
    reopen(second, handle, "file", body)
    second.send(MessageType.REPEATED, second.token)
    assert again.answer() == second.answer() == [MessageType.GO]
    kind, welcome = new.answer()
    assert kind == MessageType.WELCOME
    assert not welcome["grace"]
    late = again.submit(record(WRITE, handle, 0, 4, flags=REPEAT), payloads=[b"late"])
    assert late[1][0] == -errno.EIO
    assert "unknown whether done" in late[1][1]
    assert again.submit(record(READ, handle, 0, 4))[1][0] == 4
    assert bytes(again.frames[0]) == b"olds"


def test_the_grace_period_ends_without_a_session_that_does_not_return(
    crash: Crash, wait_until: Callable[..., None]
) -> None:
    client = crash.client()
    client.open("file", ALL)
    crash.happens(wait_until)
    new = crash.say_hello()
    assert new.answer()[0] == MessageType.WELCOME
    again, welcome = crash.resume(client)  # late
    assert not welcome["grace"]
    assert again.token == client.token


def test_a_token_of_another_user_resumes_nothing(crash: Crash, wait_until: Callable[..., None]) -> None:
    client = crash.client()
    handle, _, body = client.open("file", ALL)
    crash.happens(wait_until)
    stranger = crash.say_hello(b"x" * 16)
    kind, welcome = stranger.answer()
    assert kind == MessageType.WELCOME
    assert not welcome["grace"]
    assert welcome["session"] not in {b"x" * 16, client.token}
    stranger.token = welcome["session"]
    (crash.daemon.path / "file").rename(crash.daemon.path / "other")
    assert reopen(stranger, handle, "file", body)[0] == -errno.ENOENT


@pytest.mark.parametrize("changed", [False, True])
def test_after_a_crash_of_the_daemon_files_are_reopened_by_name_and_one_flush_fails(
    crash: Crash,
    wait_until: Callable[..., None],
    changed: bool,  # noqa: FBT001
) -> None:
    """The file is reopened by name if it is the same; the first flush after unflushed writes fails, once."""
    client = crash.client()
    handle, _, body = client.open("file", ALL)
    gone, _, gone_body = client.open("gone", ALL)
    assert client.submit(record(WRITE, handle, 0, 4), payloads=[b"data"])[1][0] == 4
    pid = crash.daemon.engine["pid"]
    crash.daemon.process.kill()
    crash.daemon.process.wait()
    wait_until(lambda: not alive(pid), "the engine ends with its supervisor")
    (crash.daemon.path / "gone").unlink()
    (crash.daemon.path / "gone").write_text("another one")
    crash.daemon.start()
    crash._endpoint = crash._locate(crash.daemon.endpoint)
    again, _ = crash.resume(client)
    assert reopen(again, handle, "file", body, changed=changed)[0] == handle
    refusal = reopen(again, gone, "gone", gone_body)
    assert refusal[0] == -errno.ESTALE
    assert "another file has this name" in refusal[1]
    first, second = (again.submit(record(FLUSH, handle))[1] for _ in range(2))
    assert second == (0, "")
    if changed:
        assert first[0] == -errno.EIO
        assert "the daemon was started again" in first[1]
    else:
        assert first == (0, "")


def test_after_a_crash_the_first_flush_of_each_handle_of_a_changed_file_fails(
    crash: Crash, wait_until: Callable[..., None]
) -> None:
    """A flush covers the file: also a client that has not written must get the error."""
    writer, reader = crash.client(), crash.client()
    handle, _, body = writer.open("file", ALL)
    other, _, other_body = reader.open("file", ALL)
    assert writer.submit(record(WRITE, handle, 0, 4), payloads=[b"data"])[1][0] == 4
    pid = crash.daemon.engine["pid"]
    crash.daemon.process.kill()
    crash.daemon.process.wait()
    wait_until(lambda: not alive(pid), "the engine ends with its supervisor")
    crash.daemon.start()
    crash._endpoint = crash._locate(crash.daemon.endpoint)
    reader, _ = crash.resume(reader)
    assert reopen(reader, other, "file", other_body)[0] == other
    writer, _ = crash.resume(writer)
    assert reopen(writer, handle, "file", body, changed=True)[0] == handle
    for client, number in ((reader, other), (writer, handle)):
        told, then = (client.submit(record(FLUSH, number))[1] for _ in range(2))
        assert (told[0], then) == (-errno.EIO, (0, ""))
        assert "the daemon was started again" in told[1]


def test_the_descriptor_store_keeps_nothing_of_closed_files(crash: Crash, wait_until: Callable[..., None]) -> None:
    def held() -> int:
        return len([*Path(f"/proc/{crash.daemon.pid}/fd").iterdir()])

    before = held()
    client = crash.client()
    handles = [client.open(f"file{number}", ALL)[0] for number in range(10)]
    wait_until(lambda: held() == before + 10, "the supervisor keeps them")
    assert client.ask(MessageType.CLOSE, client.token, 1, handles[0])[2] == 0
    wait_until(lambda: held() == before + 9, "and releases a closed one")
    client.send(MessageType.GOODBYE, client.token, 2)
    wait_until(lambda: held() == before, "and of all when the session ends")


@pytest.fixture
def impatient(new_daemon: Callable[..., Any], connect: Callable[..., Any], locate: Callable[[str], str]) -> Crash:
    """A daemon with short timeouts."""
    daemon = new_daemon(sessions={"heartbeat_s": 0.2, "session_timeout_s": 3.0})
    daemon.start()
    return Crash(daemon, connect, locate)


def test_the_descriptor_store_drops_files_that_a_resumed_session_does_not_reopen(
    impatient: Crash, wait_until: Callable[..., None]
) -> None:
    """An OPEN whose answer was lost leaves a file that its client does not know."""

    def held() -> int:
        return len([path for path in impatient.fds() if "/scratch/" in path])

    def beats_and_holds(count: int) -> bool:
        again.send(MessageType.HEARTBEAT, again.token)
        return bool(again.answer()[0] == MessageType.HEARTBEAT and held() == count)

    client = impatient.client()
    handle, _, body = client.open("file", ALL)
    client.open("unknown", ALL)
    wait_until(lambda: held() == 2, "the supervisor keeps both")
    impatient.happens(wait_until)
    again, _ = impatient.resume(client)
    assert reopen(again, handle, "file", body)[0] == handle
    again.send(MessageType.REPEATED, again.token)
    assert again.answer()[0] == MessageType.GO
    assert held() == 2
    wait_until(lambda: beats_and_holds(1), "it keeps one of them")
    (impatient.daemon.path / "file").rename(impatient.daemon.path / "elsewhere")
    impatient.happens(wait_until)
    once_more, _ = impatient.resume(again)
    assert reopen(once_more, handle, "file", body)[0] == handle


def test_the_descriptor_store_drops_files_of_clients_that_died_with_the_engine(
    impatient: Crash, wait_until: Callable[..., None]
) -> None:
    command = [sys.executable, "-c", DIES, impatient.daemon.endpoint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"open\n"
        freeze(impatient.daemon.engine["pid"])  # so that it does not hear of it
        client.kill()
    impatient.happens(wait_until)
    wait_until(lambda: not [path for path in impatient.fds() if "/scratch/" in path], "nothing is kept")


def test_new_clients_of_the_ring_socket_are_refused_during_the_grace_period(
    crash: Crash, wait_until: Callable[..., None]
) -> None:
    crash.client().open("file", ALL)
    crash.happens(wait_until)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(scaled(60))
        connection.connect(str(crash.daemon.runtime_dir / "ring" / "scratch"))
        attach = (RingMessage.ATTACH, ring_wire.VERSION, bytes(16), 8, 0, 1 << 20, b"raw")
        connection.send(ring_wire.ATTACH.pack(*attach))
        answer = connection.recv(4096)
    _, reason, _, result = ring_wire.REPLY.unpack_from(answer)
    assert (result, reason) == (-errno.EAGAIN, Reason.GRACE)
    assert b"resumes its earlier sessions first" in answer
