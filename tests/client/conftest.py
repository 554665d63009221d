"""A daemon that a test controls, for what the real daemon cannot be made to do: lie, fall silent, answer late, die.

One thread, one ROUTER on two endpoints (front and engine), files in memory. It checks the rules for clients: tokens,
cookies, credit. `complaints` must be empty at the end of a test that does not break them.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import zmq

from aiod_protocol import wire
from aiod_protocol.operations import Op
from aiod_protocol.wire import COMPLETION, SUBMISSION, MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = scaled(60.0)

GRANT: dict[str, Any] = {
    "engine": "main",
    "depth_max": 256,
    "bytes_max": 32 << 20,
    "request_bytes_max": 4 << 20,
    "batch_max": 256,
    "heartbeat_s": 2.0,
    "session_timeout_s": 30.0,
}


class Peer:
    """Front and engine in one. A test may set attributes while it runs, and read the lists after a reply."""

    def __init__(self, directory: Path, **grant: Any) -> None:
        """Serve in `directory`; `grant` changes the grant in WELCOME."""
        self.endpoint = f"ipc://{directory}/aiod.sock"
        self.engine_endpoint = f"ipc://{directory}/engine-main-1.sock"
        self.grant = GRANT | grant
        self.files: dict[str, bytearray] = {}
        self.seen: list[int] = []  # types of the messages received
        self.batches: list[int] = []  # records of each SUBMIT
        self.cancelled: list[int] = []
        self.complaints: list[str] = []
        self.depth_seen = 0
        self.bytes_seen = 0
        self.hold = False  # do not execute submissions until release()
        self.cancel_ends = False  # CANCEL ends held requests
        self.mute = False  # answer nothing at all
        self.answers: dict[MessageType, Callable[[list[Any]], list[Any] | None]] = {}  # instead of the usual ones
        self.messages = "the peer says no"
        self._handles: dict[int, bytearray] = {}
        self._held: deque[tuple[bytes, tuple[int, ...], list[bytes]]] = deque()
        self._unanswered: dict[int, int] = {}
        self._tokens: set[bytes] = set()
        self._jobs: deque[Callable[[], None]] = deque()
        self._bell = os.eventfd(0)
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="peer")
        self._ready = threading.Event()
        self._client = b""
        self._usual = {
            MessageType.HELLO: self._hello,
            MessageType.LOCATE: self._locate,
            MessageType.OPEN: self._open,
            MessageType.CLOSE: self._close,
            MessageType.GOODBYE: lambda message: [MessageType.REPLY, message[2], 0, None, {}],
            MessageType.CONTROL: self._control,
            MessageType.CANCEL: self._cancel,
            MessageType.HEARTBEAT: lambda _: [MessageType.HEARTBEAT],
        }

    def __enter__(self) -> Self:
        """Serve until the end of the block."""
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, without a message to the clients."""
        self.die()
        os.close(self._bell)

    def die(self) -> None:
        """End as a killed process would: the sockets close without a message."""
        self._ends = True
        os.eventfd_write(self._bell, 1)
        self._thread.join(PATIENCE_S)

    def do(self, job: Callable[[], None]) -> None:
        """Run `job` in the peer's thread; returns when it has run."""
        done = threading.Event()
        self._jobs.append(job)
        self._jobs.append(done.set)
        os.eventfd_write(self._bell, 1)
        assert done.wait(PATIENCE_S)

    def release(self) -> None:
        """Execute the held requests, and hold no others."""
        self.hold = False
        self.do(self._execute)

    def wait_seen(self, kind: MessageType, count: int = 1) -> None:
        """Wait until `count` messages of a kind have come."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.seen.count(kind) < count:
            assert time.monotonic() < deadline_s, f"{kind.name} has not come {count} times: {self.seen}"
            time.sleep(0.002)

    def say(self, *message: Any, frames: tuple[bytes, ...] = ()) -> None:
        """Send a message of the test's own to the client that has sent something last."""
        self.do(lambda: self._send(self._client, wire.pack(*message), *frames))

    # ---- in its thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.setsockopt(zmq.LINGER, 0)
            router.setsockopt(zmq.SNDHWM, 0)
            router.setsockopt(zmq.RCVHWM, 0)
            router.bind(self.endpoint)
            router.bind(self.engine_endpoint)
            self._router = router
            poller = zmq.Poller()
            poller.register(router, zmq.POLLIN)
            poller.register(self._bell, zmq.POLLIN)
            self._ready.set()
            while not self._ends:
                events = dict(poller.poll())
                if self._bell in events:
                    os.eventfd_read(self._bell)
                while self._jobs:
                    self._jobs.popleft()()
                if router in events:
                    client, header, *frames = router.recv_multipart()
                    self._take(client, wire.unpack(header), frames)

    def _send(self, client: bytes, *frames: bytes) -> None:
        self._router.send_multipart([client, *frames])

    def _take(self, client: bytes, message: list[Any], frames: list[bytes]) -> None:
        kind = MessageType(message[0])
        self._client = client
        self.seen.append(kind)
        if kind >= MessageType.OPEN and kind != MessageType.CONTROL and message[1] not in self._tokens:
            self.complaints.append(f"{kind.name} with the wrong token")
        if kind == MessageType.SUBMIT:
            self._submitted(client, message, frames)
        elif kind == MessageType.CANCEL:
            self.cancelled += message[3]
        if self.mute:
            return
        answer = self.answers.get(kind, self._usual.get(kind))
        if answer is not None and (reply := answer(message)) is not None:
            self._send(client, wire.pack(*reply))
        if not self.hold:
            self._execute()

    def _hello(self, _: list[Any]) -> list[Any]:
        token = os.urandom(16)
        self._tokens.add(token)
        body = {"version": 1, "features": [], "software": "peer", "session": token}
        return [MessageType.WELCOME, body | self.grant]

    def _locate(self, message: list[Any]) -> list[Any]:
        return [MessageType.REPLY, message[1], 0, None, {"engine": "main", "endpoint": self.engine_endpoint}]

    def _control(self, message: list[Any]) -> list[Any]:
        return [MessageType.REPLY, message[1], 0, None, {"verb": message[2], "arguments": message[3]}]

    def _close(self, message: list[Any]) -> list[Any]:
        self._handles.pop(message[3])
        return [MessageType.REPLY, message[2], 0, None, {}]

    def _cancel(self, message: list[Any]) -> list[Any] | None:
        ended = 0
        for held in list(self._held) if self.cancel_ends else []:
            client, (cookie, *_), _ = held
            if cookie in message[3]:
                self._held.remove(held)
                self._unanswered.pop(cookie)
                record = COMPLETION.pack(cookie, -errno.ECANCELED, 0, 0, 0, 0)
                self._send(client, wire.pack(MessageType.COMPLETE, record, {0: "cancelled"}))
                ended += 1
        return None if message[2] is None else [MessageType.REPLY, message[2], ended, None, None]

    def _open(self, message: list[Any]) -> list[Any]:
        _, _, cookie, _, path, flags, _ = message
        if not flags & wire.OpenFlag.CREATE and path not in self.files:
            return [MessageType.REPLY, cookie, -errno.ENOENT, f"there is no {path}", None]
        data = self.files.setdefault(path, bytearray())
        if flags & wire.OpenFlag.TRUNCATE:
            del data[:]
        handle = max(self._handles, default=0) + 1
        self._handles[handle] = data
        return [MessageType.REPLY, cookie, handle, None, {"size": len(data)}]

    def _submitted(self, client: bytes, message: list[Any], frames: list[bytes]) -> None:
        records = list(SUBMISSION.iter_unpack(message[3]))
        self.batches.append(len(records))
        named = {record[7] for record in records if record[1] == Op.WRITE and record[5]}
        if named != set(range(len(frames))):
            self.complaints.append(f"frames {len(frames)}, named {named}")
        for record in records:
            if record[0] in self._unanswered:
                self.complaints.append(f"cookie {record[0]} twice")
            self._unanswered[record[0]] = record[5]
            self._held.append((client, record, frames))
        self.depth_seen = max(self.depth_seen, len(self._unanswered))
        self.bytes_seen = max(self.bytes_seen, sum(self._unanswered.values()))

    def _execute(self) -> None:
        """Complete the held requests, at most 32 in a message."""
        while self._held and not self.mute:
            client = self._held[0][0]
            payload, records, messages = bytearray(), bytearray(), {}
            for index in range(min(32, len(self._held))):
                _, record, frames = self._held.popleft()
                cookie, op, _, handle, offset, length, _, frame, frame_offset, _ = record
                self._unanswered.pop(cookie)
                data = self._handles.get(handle)
                result, start = 0, len(payload)
                if data is None:
                    result, messages[index] = -errno.EBADF, f"handle {handle} is unknown"
                elif op == Op.READ:
                    payload += data[offset : offset + length]
                    result = len(payload) - start
                elif op == Op.WRITE:
                    data.extend(bytes(max(0, offset - len(data))))
                    data[offset : offset + length] = (
                        frames[frame][frame_offset : frame_offset + length] if length else b""
                    )
                    result = length
                elif op == Op.SIZE:
                    result = len(data)
                records += COMPLETION.pack(cookie, result, 0, start, 0, 0)
            header = wire.pack(MessageType.COMPLETE, bytes(records), messages)
            self._send(client, header, *([bytes(payload)] if payload else []))


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory with a short name, since unix socket paths must be short."""
    path = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def peer(socket_dir: Path) -> Iterator[Peer]:
    """A peer that the test controls."""
    with Peer(socket_dir) as made:
        yield made


@pytest.fixture
def new_peer(socket_dir: Path) -> Callable[..., Peer]:
    """Makes peers (for use in `with`) with the grant that the test passes."""
    return lambda **grant: Peer(socket_dir, **grant)
