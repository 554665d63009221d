"""Invalid replies to directory operations: the caller gets a ProtocolError, and the session continues."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from aiod_protocol.wire import MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from tests.client.conftest import Peer

PATIENCE_S = scaled(20.0)

LISTS: list[Any] = [
    None,
    [],
    {},
    {"entries": 5, "next": None},
    {"entries": [["a", "file"]], "next": None},
    {"entries": []},
]
LISTS += [{"entries": [[5, "file", 0]], "next": None}]
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
