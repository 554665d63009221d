"""The golden frames at the client: it makes them byte for byte, and reads the daemon's correctly."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from aiod_client.errors import AiodError, ProtocolError
from aiod_client.operations import read_request
from aiod_client.requests.pending import Call
from aiod_client.session import handshake
from aiod_client.session.session import Session
from aiod_protocol import wire
from aiod_protocol.reasons import Reason, reason_of
from aiod_protocol.wire import COMPLETION, SUBMISSION, MessageType

VECTORS = Path(__file__).parents[2] / "clients" / "vectors"
TOKEN = bytes(range(16))


def value(described: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """The header for its form in JSON (clients/vectors/README.md)."""
    match described:
        case {"hex": text}:
            return bytes.fromhex(text)
        case {"submissions": rows}:
            return b"".join(SUBMISSION.pack(*row) for row in rows)
        case {"completions": rows}:
            return b"".join(COMPLETION.pack(*row) for row in rows)
        case {"pairs": pairs}:
            return {key: value(inner) for key, inner in pairs}
        case dict():
            return {key: value(inner) for key, inner in described.items()}
        case list():
            return [value(inner) for inner in described]
    return described


def load(name: str) -> list[dict[str, Any]]:
    """The vectors of one file."""
    vectors: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())["vectors"]
    return vectors


def frames_of(vector: dict[str, Any]) -> list[bytes]:
    """The message's frames."""
    return [bytes.fromhex(frame) for frame in vector["frames"]]


def named(name: str, file: str) -> list[bytes]:
    """Frames of one vector."""
    (vector,) = (vector for vector in load(file) if vector["name"] == name)
    return frames_of(vector)


def parametrize(*files: str) -> pytest.MarkDecorator:
    """One test for each vector of `files`."""
    vectors = [vector for file in files for vector in load(file)]
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


ALL = sorted(path.name for path in VECTORS.glob("*.json"))


def new_session() -> Session:
    """The session of the vectors, with a read of 4096 bytes in flight (cookie 1)."""
    session = Session(handshake.parse_welcome(named("welcome-engine", "handshake.json")), 0.0)
    session.add(read_request(17, 4096, 0))
    session.messages_to_send(0.0)
    return session


def test_there_are_vectors_of_every_message_type() -> None:
    types = {vector["header"][0] for file in ALL for vector in load(file) if vector.get("header")}
    assert types >= set(MessageType)


@parametrize(*ALL)
def test_packing_the_header_gives_the_golden_frame(vector: dict[str, Any]) -> None:
    if "header" in vector:
        assert wire.pack(*value(vector["header"])) == frames_of(vector)[0]


@parametrize("handshake.json", "files.json", "requests.json")
def test_unpacking_the_golden_frame_gives_the_header(vector: dict[str, Any]) -> None:
    assert wire.unpack(frames_of(vector)[0]) == value(vector["header"])


def test_the_clients_own_hello_is_the_golden_one_but_for_its_name() -> None:
    (golden,) = (wire.unpack(frame) for frame in named("hello", "handshake.json"))
    (own,) = (wire.unpack(frame) for frame in handshake.hello())
    assert own[1] | {"software": "vectors/1"} == golden[1]


def test_the_sessions_messages_are_the_golden_ones() -> None:
    session = Session(handshake.parse_welcome(named("welcome-engine", "handshake.json")), 0.0)
    session.add(read_request(17, 4096, 8192))
    assert session.messages_to_send(0.0) == [named("submit-read", "requests.json")]
    session.receive(named("complete-end-of-file", "requests.json"))
    session.add(Call(MessageType.OPEN, "scratch", "vector.bin", 1 | 2 | 4 | 16, 0o644))
    assert session.messages_to_send(0.0) == [named("open-create", "files.json")]
    assert session.tick(2.0) == []
    assert session.messages_to_send(2.0) == [named("heartbeat", "files.json")]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("refusal-version", errno.EPROTONOSUPPORT),
        ("refusal-unknown-session", errno.ENOTCONN),
        ("refusal-stopping", errno.ESHUTDOWN),
        ("refusal-malformed", errno.EPROTO),
    ],
)
def test_a_refusal_of_hello_raises_its_errno(name: str, code: int) -> None:
    with pytest.raises(AiodError) as caught:
        handshake.parse_welcome(named(name, "handshake.json"))
    assert caught.value.errno == code


def test_a_later_daemons_welcome_is_understood() -> None:
    welcome = handshake.parse_welcome(named("welcome-engine-later", "handshake.json"))
    assert (welcome.token, welcome.depth_max, welcome.heartbeat_s) == (TOKEN, 16, 5.0)


def test_the_golden_offer_of_a_ring_is_read() -> None:
    offered = handshake.parse_welcome(named("welcome-engine-ring", "handshake.json")).ring
    assert offered == handshake.RingOffer(1, "/run/aiod/engine-main-1.ring", bytes(range(16, 32)))
    assert handshake.parse_welcome(named("welcome-engine", "handshake.json")).ring is None
    # An offer of an unknown form, of a later daemon, is ignored and is no error.
    assert handshake.parse_welcome(named("welcome-engine-later", "handshake.json")).ring is None


def answer_to_locate(name: str) -> handshake.Location:
    """The result of LOCATE with that vector as the answer."""
    conversation = handshake.locate("scratch")
    next(conversation)
    conversation.send(named("welcome-front", "handshake.json"))
    answer = wire.unpack(named(name, "handshake.json")[0])
    answer[1] = 1  # the client's own cookie
    try:
        conversation.send([wire.pack(*answer)])
    except StopIteration as stop:
        location: handshake.Location = stop.value
        return location
    raise AssertionError("the conversation goes on")


def test_the_golden_reply_to_locate_is_read() -> None:
    assert answer_to_locate("located").endpoint == "ipc:///run/aiod/engine-main-1.sock"


@pytest.mark.parametrize(("name", "code"), [("located-unknown", errno.ENOENT), ("located-away", errno.EIO)])
def test_a_golden_error_of_locate_raises(name: str, code: int) -> None:
    with pytest.raises(OSError, match=r"main is not serving|no-such-export") as caught:
        answer_to_locate(name)
    assert caught.value.errno == code


def test_completions_are_read_from_shared_and_single_frames() -> None:
    for name in ("complete-reads", "complete-frames"):
        session = Session(handshake.parse_welcome(named("welcome-engine", "handshake.json")), 0.0)
        first, second = read_request(17, 8, 0), read_request(17, 8, 8)
        session.add(first)
        session.add(second)
        session.messages_to_send(0.0)
        assert session.receive(named(name, "requests.json")) == [first, second]
        expected = {"complete-reads": [b"8 bytes.", b"end"], "complete-frames": [b"four", b"8 bytes."]}
        assert [first.outcome(), second.outcome()] == expected[name]


def test_reasons_of_completions_are_read() -> None:
    session = Session(handshake.parse_welcome(named("welcome-engine", "handshake.json")), 0.0)
    requests = [read_request(17, 8, 8 * number) for number in range(4)]
    for request in requests:
        session.add(request)
    session.messages_to_send(0.0)
    done = session.receive(named("complete-reason", "requests.json"))
    assert done == requests[2:]
    assert [reason_of(request.error) for request in done if request.error] == [Reason.STOPPING, 4711]


def test_the_reason_of_a_reply_is_read_where_there_is_one() -> None:
    for name, reason in (("open-refused", Reason.STOPPING), ("open-failed", Reason.BY_KERNEL)):
        reply = handshake.parse_reply(wire.unpack(named(name, "files.json")[0]))
        assert reply.failure is not None
        assert reason_of(reply.failure.error()) is reason


def test_the_reason_of_a_refusal_is_read_where_there_is_one() -> None:
    for name, reason in (("refusal-drained", Reason.STOPPING), ("refusal-stopping", Reason.BY_KERNEL)):
        frames = named(name, "handshake.json")
        assert reason_of(handshake.refusal(wire.unpack(frames[0]))) is reason
    assert handshake.shutdown_notice(named("refusal-drained", "handshake.json")) == (True, [1])


@parametrize("malformed_to_client.json")
def test_a_golden_malformed_message_raises_protocol_error_or_ends_the_session_with_it(vector: dict[str, Any]) -> None:
    assert vector["answer"] == {"raises": "ProtocolError"}
    if vector["name"].startswith(("welcome-", "refusal-")):
        with pytest.raises(ProtocolError):
            handshake.parse_welcome(frames_of(vector))
        return
    session = new_session()
    done = session.receive(frames_of(vector))
    assert isinstance(session.ended, ProtocolError)
    assert [type(request.error) for request in done] in ([ProtocolError], [type(None)])  # one vector completes it first
    assert session.pending == 0
