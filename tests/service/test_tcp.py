"""Clients of other hosts: CURVE keys, their identities and permissions."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import aiod_client
from aiod_client.connection import converse
from aiod_client.connection.dealer import Dealer
from aiod_client.keys import Keys
from aiod_protocol import wire
from aiod_protocol.key_files import load_pair, load_public
from aiod_protocol.wire import MessageType
from tests.forked_program import run_forked
from tests.patience import scaled
from tests.service.access import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_S = scaled(60.0)


def keygen(directory: Path, name: str) -> tuple[Path, str]:
    """A pair of keys: the secret's file, and the public one."""
    run_forked("aiod.ctl", ["keygen", name, "--directory", str(directory)], PATIENCE_S).check_returncode()
    return directory / f"{name}.key_secret", load_public(directory / f"{name}.key").decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Site(NamedTuple):
    """A daemon that serves tcp, and the keys of its clients."""

    daemon: Any
    endpoint: str
    keys: dict[str, Path]
    server_key: str

    def connect(self, name: str, **more: Any) -> aiod_client.Client:
        """As the owner of the key `name`."""
        return aiod_client.connect(
            self.endpoint, key=self.keys[name], server_key=self.server_key, timeout=PATIENCE_S, **more
        )


@pytest.fixture
def site(new_daemon: Callable[..., Any], tmp_path: Path) -> Site:
    """Alice's key stands for nobody (65534), the one of backup for no user; eve's is not known."""
    keys, public = {}, {}
    for name in ("server", "alice", "backup", "eve"):
        keys[name], public[name] = keygen(tmp_path, name)
    sections: dict[str, Any] = {
        "tcp": {"listen": f"127.0.0.1:{free_port()}", "secret_key": str(keys["server"])},
        "keys.alice": {"public_key": public["alice"], "user": "nobody"},
        "keys.backup": {"public_key": public["backup"]},
    }
    for name, who in (("alices", {"users": ["nobody"]}), ("backups", {"keys": ["backup"]})):
        (tmp_path / name).mkdir()
        sections[f"exports.{name}"] = {"path": str(tmp_path / name), "engine": "other"} | who
    sections["engine.other"] = {}
    daemon = new_daemon(**sections)
    daemon.start()
    return Site(daemon, f"tcp://{sections['tcp']['listen']}", keys, public["server"])


def test_files_are_usable_over_tcp(site: Site) -> None:
    with site.connect("backup") as client:
        with client.open("scratch/file", "w+") as file:
            data = os.urandom(3 << 20)
            assert file.pwrite(data, 0) == len(data)
            file.flush()
            assert file.pread(len(data), 0) == data
        with client.open("backups/file", "w+") as file:  # another engine, on a port of its own
            assert file.pwrite(b"x", 0) == 1
        assert client.control("ping")["pid"] == site.daemon.pid
    clients = site.daemon.json("clients")["clients"]
    assert clients == []


def test_files_are_usable_over_tcp_in_asyncio(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOD_KEY", str(site.keys["alice"]))
    monkeypatch.setenv("AIOD_SERVER_KEY", site.server_key)

    async def use() -> bytes:
        async with (
            aiod_client.aio.connect(site.endpoint, timeout=PATIENCE_S) as client,
            await client.open("alices/file", "w+") as file,
        ):
            await file.pwrite(b"data", 0)
            return await file.pread(4, 0)

    assert asyncio.run(use()) == b"data"


def test_a_key_has_the_permissions_of_its_user_or_its_own(site: Site) -> None:
    with site.connect("alice") as alice, site.connect("backup") as backup:
        alice.open("alices/file", "w+").close()
        backup.open("backups/file", "w+").close()
        with pytest.raises(PermissionError, match=f"not for uid {NOBODY}"):
            alice.open("backups/file", "w+")
        with pytest.raises(PermissionError, match="not for key backup"):
            backup.open("alices/file", "w+")
        shown = {client["key"]: client for client in site.daemon.json("clients")["clients"]}
        assert shown["alice"]["uid"] == NOBODY
        assert shown["backup"]["uid"] == -1
        assert not shown["backup"]["ring"]
        assert "backup" in site.daemon.ctl("clients").stdout


def test_rings_and_privileged_commands_are_refused_over_tcp(site: Site) -> None:
    with site.connect("backup", transport="ring") as client, pytest.raises(aiod_client.AiodError, match="ring"):
        client.open("scratch/file", "w+")
    with site.connect("backup") as client:
        for order in ("reload", "handles"):
            with pytest.raises(PermissionError, match="only root"):
                client.control(order)


@pytest.mark.parametrize(
    ("key", "server_key", "said"),
    [
        ("eve", "server", "does not know this key"),
        ("alice", "eve", "check that server_key is its public key"),
        (None, None, "it requires keys"),
    ],
)
def test_clients_with_wrong_or_missing_keys_are_refused(
    site: Site, key: str | None, server_key: str | None, said: str
) -> None:
    arguments: dict[str, Any] = {
        "key": site.keys[key] if key else None,
        "server_key": site.keys[server_key].with_suffix(".key") if server_key else None,
    }
    with pytest.raises(aiod_client.AiodError, match=re.escape(said)) as refusal:
        aiod_client.connect(site.endpoint, timeout=PATIENCE_S, **arguments)
    assert refusal.value.errno == errno.EACCES

    async def awaited() -> None:
        async with aiod_client.aio.connect(site.endpoint, timeout=PATIENCE_S, **arguments):
            pass

    with pytest.raises(aiod_client.AiodError, match=re.escape(said)):
        asyncio.run(awaited())
    with site.connect("alice") as client:
        assert client.control("ping")


def test_engines_require_keys_as_well(site: Site) -> None:
    with site.connect("backup") as client:
        client.open("scratch/file", "w+").close()
        ((endpoint, _),) = client._links_at.items()
    assert endpoint.startswith("tcp://127.0.0.1:")
    with pytest.raises(aiod_client.AiodError, match="does not know this key"):
        aiod_client.connect(endpoint, key=site.keys["eve"], server_key=site.server_key, timeout=PATIENCE_S)


@pytest.mark.parametrize("by", ["tcp", "ipc"])
def test_a_session_token_is_invalid_for_another_key(site: Site, by: str) -> None:
    with site.connect("alice") as alice:
        file = alice.open("alices/file", "w+")
        ((endpoint, link),) = alice._links_at.items()
        if by == "tcp":
            dealer = Dealer(endpoint, Keys(*load_pair(site.keys["backup"]), site.server_key.encode()))
        else:
            dealer = Dealer(f"ipc://{next(site.daemon.runtime_dir.glob('engine-other-*.sock'))}")
        dealer.send([wire.pack(MessageType.CLOSE, link.session.welcome.token, 1, file._handle)])
        answer = converse._answer(dealer, time.monotonic() + PATIENCE_S, lambda: None)
        dealer.close()
        assert answer is not None
        assert wire.unpack(answer[0])[:2] == [MessageType.REFUSAL, errno.ENOTCONN]
        assert file.pwrite(b"x", 0) == 1


def test_removing_a_key_ends_its_connections_at_once(site: Site) -> None:
    client = site.connect("backup")
    file = client.open("scratch/file", "w+")
    lines = site.daemon.config_path.read_text()
    start = lines.index("[keys.backup]")
    section = lines[start : lines.index("\n[", start) + 1]
    site.daemon.config_path.write_text(lines.replace(section, "").replace('keys = ["backup"]', ""))
    site.daemon.ctl("reload")
    with pytest.raises(OSError, match=r"ended|session"):
        file.pwrite(b"x", 0)
    client.close()
    with pytest.raises(aiod_client.AiodError, match="does not know this key"):
        site.connect("backup")
    with site.connect("alice") as other:
        other.open("scratch/file").close()
    site.daemon.config_path.write_text(lines)
    site.daemon.ctl("reload")
    site.connect("backup").close()


def test_a_tcp_client_finds_the_replacement_of_a_killed_engine(site: Site, wait_until: Callable[..., None]) -> None:
    with site.connect("backup") as client:
        client.open("scratch/file", "w+").close()
        pid = next(e["pid"] for e in site.daemon.json("stats")["engines"] if e["name"] == "main")
        os.kill(pid, 9)

        def serves_again() -> bool:
            try:
                client.open("scratch/file").close()
            except OSError:
                return False
            return True

        wait_until(serves_again, "the engine serves tcp again")


def test_silent_and_malformed_tcp_connections_are_shut_down(site: Site) -> None:
    host, port = site.endpoint.removeprefix("tcp://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(100)]
    for index, connection in enumerate(silent[:50]):
        connection.sendall(os.urandom(64) if index % 2 else b"\xff" + struct.pack(">Q", 2**40) + b"\x7f")
    with site.connect("alice") as client:
        client.open("alices/file", "w+").close()
    for connection in silent:  # each is shut down, the last when SILENT_S is over
        connection.settimeout(PATIENCE_S)
        with connection:
            try:
                while connection.recv(4096):
                    pass
            except ConnectionResetError:
                pass


def test_insecure_tcp_serves_clients_without_identity_and_logs_that(
    new_daemon: Callable[..., Any], tmp_path: Path
) -> None:
    """The log has a warning, and clients have no identity."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    (tmp_path / "mine").mkdir()
    mine = {"path": str(tmp_path / "mine"), "users": [str(os.getuid())], "engine": "main"}
    daemon = new_daemon(
        **{"tcp": {"listen": endpoint.removeprefix("tcp://"), "insecure_tcp": True}, "exports.mine": mine}
    )
    daemon.start()
    assert re.search(rf"CRITICAL .*INSECURE .*{re.escape(endpoint)}", daemon.log)
    with aiod_client.connect(endpoint, timeout=PATIENCE_S) as client:
        client.open("scratch/file", "w+").close()
        with pytest.raises(PermissionError, match="not for a client without a key"):
            client.open("mine/file", "w+")
        with pytest.raises(PermissionError, match="only root"):
            client.control("reload")
    keygen(tmp_path, "alice")
    secret, public = keygen(tmp_path, "server")
    with pytest.raises(aiod_client.AiodError, match="insecure_tcp"):
        aiod_client.connect(endpoint, key=secret, server_key=public, timeout=PATIENCE_S)


def test_a_port_in_use_fails_the_start(new_daemon: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        daemon = new_daemon(tcp={"listen": f"127.0.0.1:{port}", "insecure_tcp": True})
        daemon.start(wait=False)
        assert daemon.process.wait(PATIENCE_S) == 1
    daemon.wait_logged(f"cannot listen on tcp 127.0.0.1:{port}: Address already in use")


def test_listening_on_all_addresses_accepts_ipv6_and_ipv4(new_daemon: Callable[..., Any]) -> None:
    port = free_port()
    daemon = new_daemon(tcp={"listen": f"*:{port}", "insecure_tcp": True})
    daemon.start()
    for host in ("127.0.0.1", "[::1]", "localhost"):
        with aiod_client.connect(f"tcp://{host}:{port}", timeout=PATIENCE_S) as client:
            client.open("scratch/file", "w+").close()
