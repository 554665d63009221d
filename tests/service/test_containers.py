"""Clients and daemons in namespaces of their own, as container engines make them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

USER = ("unshare", "--user", "--map-root-user")
ALL = (*USER, "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--ipc", "--uts")
ELSEWHERE = "mnt"
"""A directory that the client has mounted the daemon's at."""

CLIENT = """
import sys, aiod_client
with aiod_client.connect(sys.argv[1], transport=sys.argv[2]) as client, client.open("scratch/file", "w+") as file:
    file.pwrite(b"data", 0)
    file.flush()
    assert file.pread(4, 0) == client.read_file("scratch/file") == b"data"
    print("served", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


def permitted(prefix: Sequence[str]) -> Sequence[str]:
    """The prefix of a command; skips where it is not permitted."""
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=scaled(60), check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces: {tried.stderr.strip()}")
    return prefix


@contextlib.contextmanager
def client(prefix: Sequence[str], endpoint: str, transport: str) -> Iterator[subprocess.Popen[str]]:
    """A client that was served, and has a file open."""
    command = [*prefix, sys.executable, "-c", CLIENT, endpoint, transport]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "served\n"
            yield process
        finally:
            process.kill()


def listed(daemon: Any) -> dict[str, Any]:
    """What `aiodctl clients` shows of the only one."""
    (shown,) = daemon.json("clients")["clients"]
    return dict(shown)


@pytest.mark.parametrize("prefix", [USER, ALL], ids=["user", "all"])
def test_a_client_in_a_container_is_served(renewed_daemon: Any, transport: str, prefix: Sequence[str]) -> None:
    """In a namespace of users, or in one of each kind."""
    with client(permitted(prefix), renewed_daemon.endpoint, transport) as process:
        shown = listed(renewed_daemon)
        assert (shown["uid"], shown["ring"]) == (os.getuid(), transport == "ring")
        assert shown["pid"] >= process.pid
    wait_until(lambda: renewed_daemon.engine["sessions"] == 0, "the session of the killed client has ended")


def test_the_directory_of_the_sockets_may_be_mounted_elsewhere(
    renewed_daemon: Any, disk_path: Path, transport: str
) -> None:
    point = disk_path / ELSEWHERE
    point.mkdir()
    script = f'mount --bind {renewed_daemon.runtime_dir} {point} && mount -t tmpfs none "$0" && exec "$@"'
    prefix = permitted([*USER, "--mount", "sh", "-c", script, str(renewed_daemon.runtime_dir)])
    with client(prefix, f"ipc://{point}/aiod.sock", transport):
        assert listed(renewed_daemon)["ring"] == (transport == "ring")


def test_a_single_socket_that_is_mounted_is_refused_with_a_sentence(renewed_daemon: Any, disk_path: Path) -> None:
    point = disk_path / "aiod.sock"
    point.touch()
    hidden = renewed_daemon.runtime_dir
    script = f'mount --bind {hidden}/aiod.sock {point} && mount -t tmpfs none {hidden} && exec "$@"'
    prefix = permitted([*USER, "--mount", "sh", "-c", script, "sh"])
    command = [*prefix, sys.executable, "-c", CLIENT, f"ipc://{point}", "auto"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert done.returncode == 1
    assert f"no aiod at ipc://{hidden}/engine-main" in done.stderr


@pytest.fixture
def contained(new_daemon: Callable[..., Any]) -> Iterator[Any]:
    """A daemon in namespaces of its own."""
    daemon = new_daemon(sessions={"heartbeat_s": 0.5, "session_timeout_s": 3.0})
    daemon.start(prefix=permitted(ALL))
    yield daemon
    daemon.process.kill()  # it is unshare, and the daemon goes with it
    daemon.process.wait()


def test_a_daemon_in_a_container_serves_clients_in_others(contained: Any, transport: Any) -> None:
    """It does not see their pids, and nevertheless notices their deaths."""
    with client(permitted(ALL), contained.endpoint, transport):
        shown = listed(contained)
        assert (shown["pid"], shown["ring"]) == (0, transport == "ring")
    wait_until(lambda: contained.engine["sessions"] == 0, "the session of the killed client has ended")
    with aiod_client.connect(contained.endpoint, transport=transport) as outside:
        assert outside.read_file("scratch/file") == b"data"


def test_a_daemon_in_a_container_stops_in_order(contained: Any) -> None:
    """The container's first process gets SIGTERM; here unshare's child."""
    (child,) = Path(f"/proc/{contained.pid}/task/{contained.pid}/children").read_text().split()
    with aiod_client.connect(contained.endpoint) as outside, outside.open("scratch/file", "w+") as file:
        assert file.pwrite(b"data", 0) == 4
        os.kill(int(child), signal.SIGTERM)
        assert contained.process.wait(scaled(60)) == 0
    contained.wait_logged("stopped")
