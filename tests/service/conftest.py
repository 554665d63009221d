"""A client that speaks the wire by hand: for what the library would never send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import zmq

from aiod_client import wire
from aiod_client.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ANSWER_TIMEOUT_MS = 20_000


class Raw:
    """One DEALER, and one session if `hello` was said."""

    def __init__(self, endpoint: str, receive_hwm: int = 1000) -> None:
        """`receive_hwm`: messages that are read ahead of answer()."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.dealer = self._context.socket(zmq.DEALER)
        self.dealer.setsockopt(zmq.RCVHWM, receive_hwm)
        self.dealer.connect(endpoint)
        self.token = b""
        self.received = 0
        self.replies: list[list[Any]] = []

    def close(self) -> None:
        """Gone without a goodbye."""
        self._context.destroy(0)

    def send(self, *elements: Any, payloads: Sequence[bytes] = ()) -> None:
        """One message."""
        self.dealer.send_multipart([wire.pack(*elements), *payloads])

    def answer(self) -> list[Any]:
        """The next message's header; its payload frames are kept in `frames`."""
        assert self.dealer.poll(ANSWER_TIMEOUT_MS), "no answer"
        header, *self.frames = self.dealer.recv_multipart()
        return wire.unpack(header)

    def ask(self, *elements: Any, payloads: Sequence[bytes] = ()) -> list[Any]:
        """Send a message, return the answer."""
        self.send(*elements, payloads=payloads)
        return self.answer()

    def hello(self) -> dict[str, Any]:
        """Begin a session; what WELCOME says."""
        kind, welcome = self.ask(MessageType.HELLO, {"versions": [1], "features": [], "software": "raw"})
        assert kind == MessageType.WELCOME
        self.token = welcome["session"]
        return dict(welcome)

    def open(self, path: str, flags: int = 1, export: str = "scratch", mode: int = 0o644) -> list[Any]:
        """[result, sentence, body] of an OPEN."""
        return self.ask(MessageType.OPEN, self.token, 1, export, path, flags, mode)[2:]

    def handle(self, path: str, flags: int = 7) -> int:
        """An open handle."""
        result, sentence, _ = self.open(path, flags)
        assert result > 0, sentence
        return int(result)

    def submit(self, *records: tuple[int, ...], payloads: Sequence[bytes] = ()) -> dict[int, tuple[int, str]]:
        """Submit records (cookie, op, flags, handle, offset, length, deadline, frame, frame offset, reserved).

        Waits for all; {cookie: (result, sentence)}.
        """
        packed = b"".join(wire.SUBMISSION.pack(*record) for record in records)
        self.send(MessageType.SUBMIT, self.token, self.received, packed, payloads=payloads)
        return self.completions(len(records))

    def completions(self, count: int) -> dict[int, tuple[int, str]]:
        """Wait for `count` completions; a REPLY that comes between them is put into `replies`."""
        done: dict[int, tuple[int, str]] = {}
        while len(done) < count:
            kind, packed, sentences, *rest = self.answer()
            if kind == MessageType.REPLY:
                self.replies.append([packed, sentences, *rest])
                continue
            assert kind == MessageType.COMPLETE, (kind, packed, sentences)
            for index, (cookie, result, *_rest) in enumerate(wire.COMPLETION.iter_unpack(packed)):
                assert cookie not in done
                done[cookie] = (result, sentences.get(index, ""))
                self.received += 1
        return done


@pytest.fixture
def connect() -> Iterator[Callable[..., Raw]]:
    """Makes raw clients of an endpoint."""
    made: list[Raw] = []

    def connect(endpoint: str, receive_hwm: int = 1000) -> Raw:
        made.append(Raw(endpoint, receive_hwm))
        return made[-1]

    yield connect
    for raw in made:
        raw.close()


@pytest.fixture
def locate(connect: Callable[[str], Raw]) -> Callable[[str], str]:
    """Finds the engine that serves the export `scratch`, given the front endpoint."""

    def locate(front: str) -> str:
        kind, _, result, sentence, body = connect(front).ask(MessageType.LOCATE, 1, "scratch")
        assert (kind, result) == (MessageType.REPLY, 0), sentence
        return str(body["endpoint"])

    return locate


@pytest.fixture
def engine_endpoint(shared_daemon: Any, locate: Callable[[str], str]) -> str:
    """Of the shared daemon's engine."""
    return locate(shared_daemon.endpoint)


@pytest.fixture
def raw(connect: Callable[[str], Raw], engine_endpoint: str) -> Raw:
    """A raw client with a session of the shared daemon's engine."""
    made = connect(engine_endpoint)
    made.hello()
    return made
