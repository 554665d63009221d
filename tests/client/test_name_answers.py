"""Invalid replies to directory operations: the caller gets a ProtocolError, and the session continues."""

from __future__ import annotations

import asyncio
import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from aiod_client.ring.paths import RingPaths
from aiod_protocol import wire
from aiod_protocol.wire import MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from tests.client.conftest import Peer

PATIENCE_S = scaled(60.0)

LISTS: list[Any] = [
    None,
    [],
    {},
    {"entries": 5, "next": None},
    {"entries": [["a", "file"]], "next": None},
    {"entries": []},
]
LISTS += [{"entries": [[5, "file", 0]], "next": None}]
LISTS += [
    {"names": b"a\0", "stats": bytes(79), "next": None},
    {"names": b"a\0b\0", "stats": bytes(80), "next": None},
    {"names": b"", "stats": bytes(80), "next": None},
    {"names": b"a\0b", "stats": bytes(80), "next": None},
    {"names": "a\0", "stats": bytes(80), "next": None},
    {"names": b"a\0", "stats": None, "next": None},
    {"names": b"a\0", "next": None},
    {"names": b"a\0", "stats": bytes(80)},
]
STATS: list[Any] = [None, {}, {"stat": None}, {"stat": bytes(79)}, {"stat": "text"}]


@pytest.mark.parametrize(("verb", "body"), [*(("list", body) for body in LISTS), *(("stat", body) for body in STATS)])
def test_an_invalid_reply_raises_protocol_error_and_the_session_continues(peer: Peer, verb: str, body: Any) -> None:
    async def awaited() -> None:
        async with aio.connect(peer.endpoint) as client:
            with pytest.raises(aiod_client.ProtocolError, match=verb):
                await getattr(client, verb)("scratch/x")

    peer.answers[MessageType.NAME] = lambda message: [MessageType.REPLY, message[2], 0, None, body]
    peer.files["file"] = bytearray(100)
    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client, client.open("scratch/file") as file:
        with pytest.raises(aiod_client.ProtocolError, match=verb):
            getattr(client, verb)("scratch/x")
        assert file.size() == 100
    asyncio.run(asyncio.wait_for(awaited(), PATIENCE_S))


@pytest.mark.parametrize("body", LISTS)
def test_scandir_raises_protocol_error_for_an_invalid_page(peer: Peer, body: Any) -> None:
    peer.answers[MessageType.NAME] = lambda message: [MessageType.REPLY, message[2], 0, None, body]
    with (
        aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client,
        pytest.raises(aiod_client.ProtocolError, match="list"),
    ):
        client.scandir("scratch/x")


@pytest.mark.parametrize("body", [None, {}, {"target": "text"}, {"value": None}, {"names": 5}])
@pytest.mark.parametrize(("verb", "arguments"), [("readlink", ()), ("getxattr", ("user.a",)), ("listxattr", ())])
def test_an_answer_without_bytes_raises_protocol_error(peer: Peer, verb: str, arguments: Any, body: Any) -> None:
    peer.answers[MessageType.NAME] = lambda message: [MessageType.REPLY, message[2], 0, None, body]
    with (
        aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client,
        pytest.raises(aiod_client.ProtocolError, match=verb),
    ):
        getattr(client, verb)("scratch/x", *arguments)


def test_scandir_works_with_an_older_daemon_which_sends_no_records(peer: Peer) -> None:
    """Its entries ask for the properties that the page has not."""
    record = (5, 4096, 1, 12, 1, 2, 3, 0o100644, 1, 0, 0, 1, 4096)
    entries = [["a", "file", 1], ["d", "dir", 0], [b"\xff", "link", 2]]
    bodies = {"list": {"entries": entries, "next": None}, "stat": {"stat": wire.STAT.pack(*record)}}
    peer.answers[MessageType.NAME] = lambda message: [MessageType.REPLY, message[2], 0, None, bodies[message[3]]]
    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client:
        file, directory, link = client.scandir("scratch/x")
        assert (file.name, file.kind, file.size, file.path) == ("a", "file", 1, "scratch/x/a")
        assert (file.is_file(), directory.is_dir(), link.is_symlink()) == (True, True, True)
        assert (file.mtime_ns, file.stat()) == (None, record)
        assert link.name == "\udcff"


def test_list_asks_for_pages_until_there_is_no_next_page(peer: Peer) -> None:
    pages: dict[int, Any] = {
        0: {"entries": [["a", "file", 1], [b"\xff", "link", 2]], "next": 7},
        7: {"entries": [], "next": 9},
    }
    pages[9] = {"entries": [["b", "dir", 3]], "next": None}
    peer.answers[MessageType.NAME] = lambda message: [
        MessageType.REPLY, message[2], 0, None, pages[message[6]["cursor"]]
    ]  # fmt: skip
    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client:
        assert client.list("scratch") == [("a", "file", 1), ("\udcff", "link", 2), ("b", "dir", 3)]
        assert [entry.stat for entry in client.list("scratch")] == [None] * 3  # an older daemon sends no records


def test_entries_have_the_records_of_a_page_with_stats(peer: Peer) -> None:
    record = (5, 4096, 1, 12, 1, 2, 3, 0o120777, 1, 0, 0, 1, 4096)
    page = {"names": b"a\0\xff\0", "stats": wire.STAT.pack(*record) + bytes(wire.STAT.size), "next": None}
    peer.answers[MessageType.NAME] = lambda message: [MessageType.REPLY, message[2], 0, None, page]
    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client:
        known, unknown = client.list("scratch")
    assert (known, unknown) == (("a", "link", 5), ("\udcff", "other", 0))
    assert (known.stat, known.mtime_ns) == (record, 2)
    assert (unknown.stat, unknown.mtime_ns) == (None, None)


def test_a_handle_for_names_is_not_closed_when_its_engine_has_gone() -> None:
    """The next engine may have given its number to another file."""
    ring = SimpleNamespace(ended=0, request_bytes_max=1 << 20)
    paths = RingPaths(ring)  # type: ignore[arg-type]
    paths.handles["scratch"] = 7
    assert not paths.forget("scratch", 8)
    assert paths.forget("scratch", 7)
    paths.handles["scratch"] = 7
    ring.ended = errno.ECONNRESET
    assert not paths.forget("scratch", 7)
    assert "scratch" not in paths.handles
