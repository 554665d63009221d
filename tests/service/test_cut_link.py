"""A client of two daemons over tcp, whose link to one of them is cut."""

from __future__ import annotations

import contextlib
import functools
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import aiod_client
from aiod_protocol.wire import MessageType
from tests.conftest import Daemon, wait_until
from tests.patience import scaled
from tests.service.cut_link import CutLink, insist

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = scaled(60.0)
SILENCE_S = scaled(5.0)


class Hosts(NamedTuple):
    """Two daemons that export one directory; the link to the first can be cut."""

    far: Daemon
    link: CutLink
    endpoints: tuple[str, str]

    @contextlib.contextmanager
    def file_of_far(self) -> Iterator[tuple[aiod_client.Client, aiod_client.File]]:
        """A client that prefers the far one, and a file that is open there."""
        while True:
            with (
                aiod_client.connect(
                    ",".join(self.endpoints),
                    prefer=self.endpoints[0],
                    timeout=PATIENCE_S,
                    reconnect_timeout=PATIENCE_S,
                    host_timeout=SILENCE_S,
                ) as client,
                client.open("scratch/file", "w+") as file,
            ):
                insist(functools.partial(file.pwrite, b"before", 0))
                if client.endpoint == self.endpoints[0]:  # else the machine is busy
                    yield client, file
                    return


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def hosts(new_daemon: Callable[..., Daemon], disk_path: Path, connect: Callable[[str], Any]) -> Iterator[Hosts]:
    shared = disk_path / "shared"
    shared.mkdir()
    daemons, fronts = [], []
    for _ in range(2):
        front = f"127.0.0.1:{free_port()}"
        made = new_daemon(**{"exports.scratch": {"path": str(shared)}, "tcp": {"listen": front, "insecure_tcp": True}})
        made.start()
        daemons.append(made)
        fronts.append(front)
    located = connect(f"tcp://{fronts[0]}").ask(MessageType.LOCATE, 1, "scratch")
    ports = [int(endpoint.rpartition(":")[2]) for endpoint in (fronts[0], located[4]["endpoint"])]
    with contextlib.closing(CutLink()) as link:
        for port in ports:
            link.forward(port)
        yield Hosts(daemons[0], link, (f"tcp://{link.host}:{ports[0]}", f"tcp://{fronts[1]}"))


def test_what_a_link_delivers_late_is_not_carried_out(hosts: Hosts) -> None:
    with hosts.file_of_far() as (client, file):
        hosts.link.cut()
        read, late = file.submit([("read", 6, 0), ("write", b"late", 0)])
        assert read.result(PATIENCE_S) == b"before"
        with pytest.raises(aiod_client.SessionLostError, match="unknown whether done"):
            late.result(PATIENCE_S)
        assert client.endpoint == hosts.endpoints[1]
        insist(lambda: file.pwrite(b"after!", 0))
        hosts.link.heal()
        hosts.far.wait_logged("its client may have moved to another daemon")
        wait_until(lambda: not hosts.far.engine["sessions"], "the far daemon has ended the session")
        assert file.pread(6, 0) == b"after!"
