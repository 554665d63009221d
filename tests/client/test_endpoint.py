"""The default endpoint, and how soon the client notices that no daemon listens."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

import aiod_client
from aiod_client import endpoint
from aiod_protocol import locations

if TYPE_CHECKING:
    from pathlib import Path


def test_the_environment_variable_names_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOD_ENDPOINT", "tcp://storage:1234")
    assert endpoint.default_endpoint() == "tcp://storage:1234"


def test_the_default_is_in_the_users_own_runtime_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (endpoint, locations):
        monkeypatch.setattr(module, "SYSTEM_DIR", str(tmp_path / "system"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert endpoint.default_endpoint() == f"ipc://{tmp_path}/aiod/aiod.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert endpoint.default_endpoint() == "ipc:///tmp/aiod-1000/aiod.sock"
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert endpoint.default_endpoint() == f"ipc://{tmp_path}/system/aiod.sock"


def test_the_default_is_the_systems_daemon_where_the_user_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    system = tmp_path / "system"
    system.mkdir()
    (system / "aiod.sock").touch()
    monkeypatch.setattr(endpoint, "SYSTEM_DIR", str(system))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert endpoint.default_endpoint() == f"ipc://{system}/aiod.sock"
    (tmp_path / "aiod").mkdir()
    (tmp_path / "aiod" / "aiod.sock").touch()
    assert endpoint.default_endpoint() == f"ipc://{tmp_path}/aiod/aiod.sock"


def test_no_socket_means_no_daemon(socket_dir: Path) -> None:
    with pytest.raises(aiod_client.DaemonUnreachableError, match="start aiod") as caught:
        aiod_client.connect(f"ipc://{socket_dir}/aiod.sock")
    assert caught.value.errno == errno.ECONNREFUSED
    assert isinstance(caught.value, (ConnectionError, aiod_client.AiodError))


def test_the_socket_of_a_dead_daemon_means_no_daemon(socket_dir: Path) -> None:
    path = str(socket_dir / "aiod.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    with pytest.raises(aiod_client.DaemonUnreachableError, match="refused"):
        aiod_client.connect(f"ipc://{path}")


def test_connecting_to_a_socket_where_no_process_answers_times_out(socket_dir: Path) -> None:
    path = str(socket_dir / "aiod.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(TimeoutError, match="does not answer"):
            aiod_client.connect(f"ipc://{path}", timeout=0.3)


def test_a_refused_tcp_connection_means_no_daemon() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(aiod_client.DaemonUnreachableError):
            aiod_client.connect(f"tcp://127.0.0.1:{reserved.getsockname()[1]}")


@pytest.mark.parametrize("name", ["/run/aiod/aiod.sock", "inproc://x", "tcp://nonsense", "ipc://" + "x" * 200])
def test_an_invalid_endpoint_raises(name: str) -> None:
    with pytest.raises(aiod_client.AiodError):
        aiod_client.connect(name)


def test_an_unknown_transport_raises() -> None:
    with pytest.raises(ValueError, match="unknown transport"):
        aiod_client.connect(transport="pigeon")  # type: ignore[arg-type]
