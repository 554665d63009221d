"""The golden frames at the real daemon: it answers each as clients/vectors/ says, and keeps serving other clients."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq

from aiod_protocol import wire
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import COMPLETION, MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

VECTORS = Path(__file__).parents[2] / "clients" / "vectors"
TOKEN = bytes(range(16))
PATIENCE_MS = scaled(60_000)
QUIET_MS = 100


def load(name: str) -> list[dict[str, Any]]:
    """The vectors of one file for messages to a daemon."""
    vectors = json.loads((VECTORS / name).read_text())["vectors"]
    return [vector for vector in vectors if vector["direction"] != "daemon to client"]


class Wire:
    """A plain DEALER, as a client in another language has."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        """Connect."""
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        self.token = TOKEN

    def ask(self, *frames: bytes) -> list[Any]:
        """Send frames; the answer's header."""
        self.send(*frames)
        return self.answer()

    def send(self, *frames: bytes) -> None:
        """Send frames, the vectors' token replaced by the session's."""
        self.socket.send_multipart([frames[0].replace(TOKEN, self.token), *frames[1:]])

    def answer(self) -> list[Any]:
        """The next message's header."""
        assert self.socket.poll(PATIENCE_MS), "no answer"
        return wire.unpack(self.socket.recv_multipart()[0])

    def greet(self) -> list[Any]:
        """Send HELLO; later messages belong to that session."""
        welcome = self.ask(wire.pack(MessageType.HELLO, {"versions": [1], "features": [], "software": "test"}))
        self.token = welcome[1].get("session", TOKEN)
        return welcome


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    """A context of the test's own."""
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def front(context: zmq.Context[Any], shared_daemon: Any) -> Wire:
    """A connection to the front endpoint."""
    return Wire(context, shared_daemon.endpoint)


@pytest.fixture
def engine(context: zmq.Context[Any], front: Wire) -> Wire:
    """A connection to the engine that serves scratch."""
    front.greet()
    located = front.ask(wire.pack(MessageType.LOCATE, 1, "scratch"))
    return Wire(context, located[4]["endpoint"])


def check(wire_: Wire, vector: dict[str, Any]) -> None:
    """Send a vector and compare the reply with its answer."""
    wire_.send(*(bytes.fromhex(frame) for frame in vector["frames"]))
    expected = vector.get("answer")
    if expected is None:
        assert not wire_.socket.poll(QUIET_MS), wire_.answer()
        return
    answer = wire_.answer()
    assert MessageType(answer[0]).name == expected["type"], answer
    if expected["type"] in _CHECKS:
        _CHECKS[expected["type"]](answer, expected, wire_)
    if expected.get("session_ends"):
        gone = wire_.ask(wire.pack(MessageType.HEARTBEAT, wire_.token))
        assert gone[:2] == [MessageType.REFUSAL, errno.ENOTCONN]


def _codes(expected: dict[str, Any]) -> list[int]:
    names = expected["errno"]
    return [getattr(errno, name) for name in ([names] if isinstance(names, str) else names)]


def _reason(expected: dict[str, Any]) -> int:
    return Reason[expected["reason"]]


def _check_refusal(answer: list[Any], expected: dict[str, Any], _: Wire) -> None:
    assert answer[1] in _codes(expected), answer
    assert isinstance(answer[2], str)
    assert answer[2]
    assert answer[3]["versions"] == expected.get("versions", [1])
    assert "reason" not in expected or answer[3]["reason"] == _reason(expected), answer


def _check_reply(answer: list[Any], expected: dict[str, Any], _: Wire) -> None:
    assert answer[1] == expected["cookie"]
    if "errno" in expected:
        assert -answer[2] in _codes(expected), answer
        assert isinstance(answer[3], str)
        assert (answer[5] if len(answer) > 5 else Reason.BY_KERNEL) == _reason(expected), answer
    elif "handle" in expected:
        assert answer[2] >= 0, answer
    else:
        assert answer[2] == expected["result"], answer


def _check_welcome(answer: list[Any], expected: dict[str, Any], _: Wire) -> None:
    for key in expected.keys() - {"type"}:
        assert answer[1][key] == expected[key]


def _check_complete(answer: list[Any], expected: dict[str, Any], wire_: Wire) -> None:
    left = {record["cookie"]: record for record in expected["records"]}
    while True:
        for index, (cookie, result, *_, reason) in enumerate(COMPLETION.iter_unpack(answer[1])):
            record = left.pop(cookie)
            assert -result in _codes(record)
            assert reason == _reason(record)
            assert isinstance(answer[2][index], str)
        if not left:
            return
        answer = wire_.answer()


_CHECKS = {
    "REFUSAL": _check_refusal,
    "REPLY": _check_reply,
    "WELCOME": _check_welcome,
    "COMPLETE": _check_complete,
}


@pytest.mark.parametrize("vector", load("handshake.json"), ids=lambda vector: vector["name"])
def test_handshakes_at_the_front_get_the_golden_answers(front: Wire, vector: dict[str, Any]) -> None:
    if not vector["name"].startswith("hello"):
        front.greet()
    check(front, vector)


@pytest.mark.parametrize(
    "vector", [v for v in load("handshake.json") if v["name"].startswith("hello")], ids=lambda vector: vector["name"]
)
def test_hello_at_an_engine_gets_the_golden_answer(engine: Wire, vector: dict[str, Any]) -> None:
    check(engine, vector)


@pytest.mark.parametrize("file", ["files.json", "requests.json"])
def test_the_golden_frames_of_a_session_get_the_golden_answers_in_order(engine: Wire, file: str) -> None:
    engine.greet()
    for vector in load(file):
        check(engine, vector)


@pytest.mark.parametrize("vector", load("malformed_to_daemon.json"), ids=lambda vector: vector["name"])
def test_malformed_messages_are_refused_and_others_are_served(
    engine: Wire, context: zmq.Context[Any], vector: dict[str, Any]
) -> None:
    other = Wire(context, engine.socket.get_string(zmq.LAST_ENDPOINT))
    other.greet()
    engine.greet()
    check(engine, vector)
    assert other.ask(wire.pack(MessageType.HEARTBEAT, other.token)) == [MessageType.HEARTBEAT]
