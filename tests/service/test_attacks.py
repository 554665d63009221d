"""What a hostile user of this host tries, beside what the tests of messages, connections, rings and paths have."""

from __future__ import annotations

import errno
import re
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq

import aiod_client
from aiod_client import wire
from aiod_client.wire import MessageType, Op
from tests.service.access import open_to_all, run_as

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE, MALLORY = 12001, 12003
SWAPS_MIN = 2000


def test_a_link_that_is_swapped_during_the_open_leads_nowhere_else(daemon: Any) -> None:
    """A directory of the export becomes a link to a place outside, and back, as fast as it can."""
    outside = daemon.base / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    inside = daemon.path / "inside"
    inside.mkdir()
    (inside / "file").write_text("mine")
    link, aside, swapped = daemon.path / "link", daemon.path / "aside", daemon.path / "swapped"
    link.symlink_to(outside)
    stop = threading.Event()
    swaps = Counter[str]()

    def swap() -> None:
        while not stop.is_set():
            for what in (inside, link):
                what.rename(swapped)
                swapped.rename(aside)
                aside.rename(what)
            inside.rename(aside)
            link.rename(inside)
            inside.rename(link)
            aside.rename(inside)
            swaps["done"] += 1

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = Counter[str]()
    try:
        with aiod_client.connect(daemon.endpoint) as client:
            while swaps["done"] < SWAPS_MIN or not seen["mine"] or not seen["EACCES"]:
                try:
                    with client.open("scratch/inside/file") as file:
                        found = file.pread(6, 0).decode()
                except OSError as error:
                    found = errno.errorcode[error.errno or 0]
                seen[found] += 1
    finally:
        stop.set()
        swapper.join()
    assert seen.keys() <= {"mine", "ENOENT", "EACCES", "EXDEV", "ENOTDIR"}


def test_names_that_are_no_text_are_only_names(daemon: Any) -> None:
    for path in ("\x1b[2J", "a\nb", "ü" * 127, "." * 255):
        with aiod_client.connect(daemon.endpoint) as client, client.open(f"scratch/{path}", "w+") as file:
            file.pwrite(b"x", 0)
    assert len([*daemon.path.iterdir()]) == 4
    assert "\x1b" not in daemon.log


def test_another_users_token_ticket_and_identity_are_of_no_use(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    open_to_all(daemon)
    (daemon.path / "alices").write_text("x")
    (daemon.path / "alices").chmod(0o666)
    with aiod_client.connect(daemon.endpoint, transport="zmq") as client:
        mine = client.open("scratch/alices", "r+")
        ((endpoint, link),) = client._links_at.items()
        token = link._session.welcome.token
        program = """
import zmq
from aiod_client import wire
from aiod_client.wire import MessageType
context = zmq.Context()
dealer = context.socket(zmq.DEALER)
dealer.connect(sys.argv[1])
token = bytes.fromhex(sys.argv[2])
records = wire.SUBMISSION.pack(1, 1, 0, int(sys.argv[3]), 0, 1, 0, 0, 0, 0)
for message in ([MessageType.SUBMIT, token, 0, records], [MessageType.CLOSE, token, 1, int(sys.argv[3])],
                [MessageType.GOODBYE, token, 2]):
    dealer.send(wire.pack(*message))
    assert dealer.poll(10_000)
    print(wire.unpack(dealer.recv())[:2])
"""
        said = run_as(program, endpoint, token.hex(), str(mine._handle), uid=MALLORY)
        assert said.splitlines() == [str([int(MessageType.REFUSAL), errno.ENOTCONN])] * 3
        assert mine.pread(1, 0) == b"x"
    assert re.search(rf"its token was used by pid \d+, uid {MALLORY}", daemon.log)


def test_a_replayed_message_harms_its_own_session_only(raw: Any, shared_daemon: Any) -> None:
    handle = raw.handle("replayed")
    record = (7, int(Op.WRITE), 0, handle, 0, 4, 0, 0, 0, 0)
    assert raw.submit(record, payloads=[b"data"])[7][0] == 4
    assert raw.submit(record, payloads=[b"more"])[7][0] == 4
    # The first one once more says that fewer completions were received than were known to be: the session is ended.
    raw.send(MessageType.SUBMIT, raw.token, 0, wire.SUBMISSION.pack(*record), payloads=[b"data"])
    assert raw.answer()[:2] == [MessageType.REFUSAL, errno.EPROTO]
    with aiod_client.connect(shared_daemon.endpoint) as client:
        assert client.open("scratch/replayed").pread(4, 0) == b"more"


def test_a_thousand_connections_that_say_nothing(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    daemon.start()
    context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 1100)
    try:
        for _ in range(1000):
            context.socket(zmq.DEALER).connect(daemon.endpoint)
        with aiod_client.connect(daemon.endpoint) as client:
            assert client.open("scratch/file", "w+").pwrite(b"x", 0) == 1
    finally:
        context.destroy(0)


@pytest.mark.parametrize("how", ["zmq", "ring"])
def test_more_handles_than_there_may_be(
    new_daemon: Callable[..., Any], how: Any, wait_until: Callable[..., None]
) -> None:
    """No more than the limits allow; and none is left when the session is gone."""
    daemon = new_daemon(sessions={"handles_max": 1000})
    daemon.start()
    (daemon.path / "file").touch()
    descriptors = Path(f"/proc/{daemon.engine['pid']}/fd")
    before = len([*descriptors.iterdir()])
    with aiod_client.connect(daemon.endpoint, transport=how) as client:
        files = [client.open("scratch/file") for _ in range(1000)]
        for _ in range(1000):
            with pytest.raises(OSError, match="1000 handles") as refusal:
                client.open("scratch/file")
            assert refusal.value.errno == errno.EMFILE
        assert len([*descriptors.iterdir()]) < before + 1020
        files[0].close()
        client.open("scratch/file")
    wait_until(lambda: len([*descriptors.iterdir()]) <= before, "all are closed")
