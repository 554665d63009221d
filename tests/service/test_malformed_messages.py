"""Malformed messages: the daemon refuses them or ends the session, and serves others in bounded memory."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aiod_client
from aiod_protocol import wire
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import MessageType
from tests.patience import rounds
from tests.service.zmtp import zmtp_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANY = rounds(2000)


def resident_bytes(pid: int) -> int:
    """RSS of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def other(shared_daemon: Any) -> Iterator[Callable[[], None]]:
    """Another client, which must be served all the time."""
    with aiod_client.connect(shared_daemon.endpoint) as client, client.open("scratch/other", "w+") as file:

        def check() -> None:
            assert file.pwrite(b"served", 0) == 6
            assert file.pread(6, 0) == b"served"

        yield check


def refused(raw: Any, *frames: bytes) -> None:
    """Send it, and expect REFUSAL with EPROTO."""
    raw.dealer.send_multipart(frames)
    kind, number, reply_text, *_ = raw.answer()
    assert (kind, number) == (MessageType.REFUSAL, errno.EPROTO)
    assert reply_text


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        b"text",
        wire.pack(),
        wire.pack("HELLO"),
        wire.pack(1, "no map"),
        wire.pack(99, b"\0" * 16),
        b"\x91\xc3",
        b"\x81\x01\x02",
        wire.pack(1, {"versions": [1]}) + b"more",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000 + b"\x01",
        wire.pack(1, {"versions": [1], "x": b"0" * 65536}),
    ],
)
def test_a_frame_that_is_no_message_is_refused(raw: Any, other: Callable[[], None], header: bytes) -> None:
    refused(raw, header)
    assert raw.ask(MessageType.HEARTBEAT, raw.token) == [MessageType.HEARTBEAT]  # it named no session
    other()


@pytest.mark.parametrize(
    ("elements", "payloads"),
    [
        ((MessageType.SUBMIT, 0), []),
        ((MessageType.SUBMIT, "0", b""), []),
        ((MessageType.SUBMIT, -1, b""), []),
        ((MessageType.SUBMIT, 5, b""), []),
        ((MessageType.SUBMIT, 0, b"0" * 47), []),
        ((MessageType.SUBMIT, 0, b"0" * 48 * 257), []),
        ((MessageType.SUBMIT, 0, wire.SUBMISSION.pack(1, 2, 0, 1, 0, 5, 0, 0, 0, 0)), []),
        ((MessageType.SUBMIT, 0, wire.SUBMISSION.pack(1, 2, 0, 1, 0, 5, 0, 0, 0, 0)), [b"1234"]),
        ((MessageType.SUBMIT, 0, wire.SUBMISSION.pack(1, 2, 0, 1, 0, 5, 0, 1, 0, 0)), [b"12345"]),
        ((MessageType.SUBMIT, 0, wire.SUBMISSION.pack(1, 2, 0, 1, 0, 5, 0, 0, 0, 0)), [b"12345", b"more"]),
        ((MessageType.SUBMIT, 0, wire.SUBMISSION.pack(1, 1, 0, 1, 0, 5, 0, 0, 0, 0)), [b"12345"]),
        ((MessageType.OPEN, 1, "scratch", b"path", 1, 0), []),
        ((MessageType.OPEN, 2**64 - 1, "scratch", "path", -1, 0), []),
        ((MessageType.OPEN, 1, "scratch", "path", 1, 0), [b"payload"]),
        ((MessageType.CLOSE, 1), []),
        ((MessageType.CANCEL, 1, 7), []),
        ((MessageType.CANCEL, 1, ["seven"]), []),
        ((MessageType.CANCEL, "one", [7]), []),
        ((MessageType.CANCEL, [7]), []),
        ((MessageType.CANCEL, None, [1] * 10_000), []),
        ((MessageType.NAME, 1, "stat", "scratch", "path"), []),
        ((MessageType.NAME, 1, "stat", "scratch", b"path", {}), []),
        ((MessageType.NAME, 1, "stat", "scratch", "path", []), []),
        ((MessageType.NAME, 1, 7, "scratch", "path", {}), []),
        ((MessageType.NAME, -1, "stat", "scratch", "path", {}), []),
        ((MessageType.NAME, 1, "stat", "scratch", "path", {}), [b"payload"]),
        ((MessageType.NAME, 1, "list", "scratch", "", {}), []),
        ((MessageType.NAME, 1, "list", "scratch", "", {"cursor": None}), []),
        ((MessageType.NAME, 1, "list", "scratch", "", {"cursor": -1}), []),
        ((MessageType.NAME, 1, "mkdir", "scratch", "made", {"mode": True}), []),
        ((MessageType.NAME, 1, "rename", "scratch", "path", {"to": "made"}), []),
        ((MessageType.NAME, 1, "rename", "scratch", "path", {"to": b"made", "replace": False}), []),
        ((MessageType.NAME, 1, "rename", "scratch", "path", {"to": "made", "replace": 1}), []),
        ((MessageType.GOODBYE, None), []),
    ],
)
def test_a_malformed_message_ends_its_session(
    raw: Any, other: Callable[[], None], shared_daemon: Any, elements: tuple[Any, ...], payloads: list[bytes]
) -> None:
    kind, *rest = elements
    refused(raw, wire.pack(kind, raw.token, *rest), *payloads)
    assert raw.ask(MessageType.HEARTBEAT, raw.token)[1] == errno.ENOTCONN
    shared_daemon.wait_logged("malformed message")
    other()


def test_messages_before_hello_are_refused(
    connect: Callable[[str], Any], engine_endpoint: str, other: Callable[[], None]
) -> None:
    raw = connect(engine_endpoint)
    for kind in (
        MessageType.SUBMIT,
        MessageType.OPEN,
        MessageType.NAME,
        MessageType.HEARTBEAT,
        MessageType.GOODBYE,
    ):
        assert raw.ask(kind, b"\1" * 16, 0, b"")[:2] == [MessageType.REFUSAL, errno.ENOTCONN]
    raw.hello()
    other()


def test_unknown_protocol_versions_are_refused(
    connect: Callable[[str], Any], engine_endpoint: str, shared_daemon: Any
) -> None:
    for endpoint in (engine_endpoint, shared_daemon.endpoint):
        raw = connect(endpoint)
        kind, number, reply_text, more = raw.ask(MessageType.HELLO, {"versions": [7, 8]})
        assert (kind, number) == (MessageType.REFUSAL, errno.EPROTONOSUPPORT)
        assert "speaks [1]" in reply_text
        assert more == {"versions": [1], "reason": Reason.NO_VERSION}
        welcome = raw.ask(MessageType.HELLO, {"versions": [9, 1], "features": ["unheard-of"], "new": 1})
        assert welcome[0] == MessageType.WELCOME
        assert (welcome[1]["version"], welcome[1]["features"]) == (1, [])


def test_the_front_endpoint_refuses_malformed_messages(connect: Callable[[str], Any], shared_daemon: Any) -> None:
    raw = connect(shared_daemon.endpoint)
    for header in (
        b"",
        b"\xc1",
        wire.pack(MessageType.SUBMIT, b"", 0, b""),
        wire.pack(MessageType.LOCATE, -1, "scratch"),
    ):
        refused(raw, header)
    refused(raw, wire.pack(MessageType.LOCATE, 1, "scratch"), b"payload")
    assert raw.ask(MessageType.CONTROL, 5, "no such verb")[2] == -errno.EINVAL
    assert raw.ask(MessageType.LOCATE, 1, "scratch")[2] == 0


def random_messages() -> st.SearchStrategy[list[bytes]]:
    """Random messages, from noise to almost valid."""
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=64), st.text(max_size=8)
    )
    value = st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(leaf, inner, max_size=4), max_leaves=8
    )
    almost = st.builds(
        lambda kind, rest: wire.pack(kind, *rest), st.sampled_from(list(MessageType)), st.lists(value, max_size=6)
    )
    header = st.one_of(st.binary(max_size=64), almost)
    return st.builds(lambda head, payloads: [head, *payloads], header, st.lists(st.binary(max_size=64), max_size=3))


def test_the_engine_survives_random_messages(
    connect: Callable[[str], Any], engine_endpoint: str, other: Callable[[], None], shared_daemon: Any
) -> None:
    """Half of them belong to a session, which is begun again after each end."""
    pid = shared_daemon.engine["pid"]
    raw = connect(engine_endpoint)
    raw.hello()
    before = resident_bytes(pid)
    sent = 0

    @settings(max_examples=MANY // 20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(random_messages(), min_size=20, max_size=20), st.booleans())
    def fuzz(messages: list[list[bytes]], within: bool) -> None:  # noqa: FBT001
        nonlocal sent
        for frames in messages:
            token = wire.pack(raw.token)[1:]
            head = frames[0][:2] + token + frames[0][2:] if within and len(frames[0]) > 2 else frames[0]
            raw.dealer.send_multipart([head, *frames[1:]])
            sent += 1
        raw.send(MessageType.HEARTBEAT, raw.token)
        while (answer := raw.answer())[0] != MessageType.HEARTBEAT:
            if answer[0] == MessageType.REFUSAL and answer[1] == errno.ENOTCONN and not raw.dealer.poll(50):
                raw.hello()
                break

    fuzz()
    other()
    assert sent >= MANY
    assert shared_daemon.engine["pid"] == pid
    assert resident_bytes(pid) - before < 64 * 2**20


def test_a_message_without_end_is_dropped(
    new_daemon: Callable[..., Any], locate: Callable[[str], str], wait_until: Callable[..., None]
) -> None:
    """Endless frames with MORE: libzmq buffers them all, so the engine drops everything and rebinds."""
    daemon = new_daemon(**{"engine.main": {"memory_max": 128 * 2**20}})
    daemon.start()
    endpoint, pid = locate(daemon.endpoint), daemon.engine["pid"]
    frame = bytes(2**20)
    peak = 0
    with zmtp_connection(endpoint) as connection:
        try:
            for _ in range(1500):
                connection.sendall(struct.pack(">BQ", 0x03, len(frame)) + frame)
                peak = max(peak, resident_bytes(pid))
        except OSError:
            pass  # the connection was dropped, as it should be
        else:
            pytest.fail("1.5 GiB were accepted")
    assert peak < 600 * 2**20
    daemon.wait_logged("memory_max")
    wait_until(lambda: locate(daemon.endpoint) != endpoint, "another endpoint")
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/after", "w+") as file:
        assert file.pwrite(b"x", 0) == 1
    assert daemon.engine["pid"] == pid
