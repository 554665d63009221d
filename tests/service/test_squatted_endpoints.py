"""Without a named endpoint: a client sends nothing to another user's socket at the default endpoint."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio, endpoint
from aiod_client.connection.converse import converse
from aiod_client.endpoint import DefaultEndpoint
from aiod_client.ring import attach as ring_attach
from aiod_client.session import handshake
from tests.libaiod_objects import libaiod_objects
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="makes sockets of other users")

STRANGER = 2
USER = 54321


class Stranger:
    """A socket on which a process of another user listens (SO_PEERCRED)."""

    def __init__(self, path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        """Listen at `path`."""
        self.socket = socket.socket(socket.AF_UNIX, kind)
        self.socket.bind(str(path))
        path.chmod(0o777)
        listening = os.fork()
        if listening == 0:
            os.setuid(STRANGER)
            self.socket.listen()
            os._exit(0)
        assert os.waitpid(listening, 0)[1] == 0
        self.socket.settimeout(0)

    def has_heard(self) -> bytes:
        """Data that connected clients have sent."""
        heard = b""
        while True:
            try:
                connection, _ = self.socket.accept()
            except BlockingIOError:
                return heard
            with connection:
                heard += connection.recv(4096)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of root, like /run: other users may enter it."""
    path = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/run"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def connect_as_user() -> str:
    """Result of connect() without an endpoint as USER. Forked, since USER may be unable to read the interpreter."""
    handshake.software()  # imports, and remembers the answer
    reading, writing = os.pipe()
    connecting = os.fork()
    if connecting == 0:
        try:
            os.setuid(USER)
            aiod_client.connect(timeout=5)
        except OSError as error:
            os.write(writing, f"{error.errno} {error.strerror}".encode())
        except BaseException as error:  # noqa: BLE001 - whatever it is, this process ends here
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    os.waitpid(connecting, 0)
    return text


@pytest.fixture
def squatted() -> Iterator[Stranger]:
    """USER's directory in /tmp, created by another user before USER's daemon could."""
    path = Path(f"/tmp/aiod-{USER}")
    path.mkdir(mode=0o755)
    os.chown(path, STRANGER, STRANGER)
    yield Stranger(path / "aiod.sock")
    shutil.rmtree(path)


def test_a_directory_of_another_user_is_not_used(squatted: Stranger) -> None:
    said = connect_as_user()
    assert said.startswith(f"{errno.EACCES} /tmp/aiod-{USER} belongs to uid {STRANGER}")
    assert "set AIOD_ENDPOINT" in said
    with pytest.raises(BlockingIOError):  # nobody has so much as connected
        squatted.socket.accept()


def test_the_system_daemon_is_used_instead_of_a_foreign_directory(
    squatted: Stranger, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    system = directory / "aiod"
    system.mkdir(mode=0o755)
    os.chown(system, STRANGER, STRANGER)  # as /run/aiod belongs to the daemon's user
    (system / "aiod.sock").touch()
    monkeypatch.setattr(endpoint, "SYSTEM_DIR", str(system))
    monkeypatch.setattr(os, "getuid", lambda: USER)
    assert endpoint.default_endpoint() == f"ipc://{system}/aiod.sock"
    assert squatted.has_heard() == b""


def test_a_user_without_access_to_the_system_directory_gets_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    system = directory / "aiod"
    system.mkdir(mode=0o750)  # as /run/aiod for who is not of the daemon's group
    (system / "aiod.sock").touch()
    monkeypatch.setattr(endpoint, "SYSTEM_DIR", str(system))
    said = connect_as_user()
    assert said.startswith(f"{errno.ECONNREFUSED} the aiod at ipc://{system}/aiod.sock is not for this user")
    assert "Permission denied" in said
    assert "group" in said


@pytest.mark.parametrize("mode", [0o770, 0o757, 0o1777])
def test_a_directory_writable_by_others_is_not_used(
    monkeypatch: pytest.MonkeyPatch, directory: Path, mode: int
) -> None:
    own = directory / "aiod"
    own.mkdir()
    own.chmod(mode)
    stranger = Stranger(own / "aiod.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    with pytest.raises(aiod_client.AiodError, match=f"is writable for other users .mode {mode:04o}") as caught:
        aiod_client.connect()
    assert caught.value.errno == errno.EACCES
    assert stranger.has_heard() == b""


def test_a_symbolic_link_as_runtime_directory_is_not_followed(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    stranger = Stranger(elsewhere / "aiod.sock")
    (directory / "aiod").symlink_to(elsewhere)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    with pytest.raises(aiod_client.AiodError, match="is not a directory"):
        aiod_client.connect()
    assert stranger.has_heard() == b""


def test_a_foreign_socket_in_a_good_directory_gets_no_message(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    (directory / "aiod").mkdir()
    stranger = Stranger(directory / "aiod/aiod.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    with pytest.raises(aiod_client.AiodError, match=f"is served by uid {STRANGER}, ") as caught:
        aiod_client.connect()
    assert caught.value.errno == errno.EACCES
    assert stranger.has_heard() == b""


def test_an_explicitly_named_endpoint_is_used_unchecked(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    (directory / "aiod").mkdir()
    stranger = Stranger(directory / "aiod/aiod.sock")
    monkeypatch.setenv("AIOD_ENDPOINT", f"ipc://{directory}/aiod/aiod.sock")
    with pytest.raises(TimeoutError):
        aiod_client.connect(timeout=0.2)
    assert stranger.has_heard()


@pytest.fixture
def own_daemon(monkeypatch: pytest.MonkeyPatch, new_daemon: Callable[..., Any], directory: Path) -> Any:
    """One that is found without an endpoint."""
    daemon = new_daemon(**{"": {"runtime_dir": f"{directory}/aiod"}})
    daemon.endpoint = f"ipc://{directory}/aiod/aiod.sock"
    daemon.start()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return daemon


def test_the_users_own_daemon_is_found(own_daemon: Any) -> None:
    with aiod_client.connect(transport="ring") as client, client.open("scratch/file", "w+") as file:
        assert file.pwrite(b"data", 0) == 4
        assert client.endpoint == own_daemon.endpoint
        assert isinstance(file._link.endpoint, DefaultEndpoint)


async def found_awaited() -> int:
    async with aio.connect(transport="ring") as client, await client.open("scratch/file", "w+") as file:
        return await file.pwrite(b"data", 0)


@pytest.mark.usefixtures("own_daemon")
def test_the_users_own_daemon_is_found_in_asyncio() -> None:
    assert asyncio.run(found_awaited()) == 4


def test_a_foreign_ring_socket_gets_no_ticket(own_daemon: Any, directory: Path) -> None:
    end_s = float("inf")
    front = DefaultEndpoint(own_daemon.endpoint)
    dealer, location = converse(front, None, handshake.locate("scratch"), end_s, lambda: None)
    dealer.close()
    engine = endpoint.of_engine(front, location.endpoint)
    dealer, (welcome, _) = converse(engine, None, handshake.resume_session(b"", {}), end_s, lambda: None)
    path = directory / "aiod/stranger.ring"
    stranger = Stranger(path, socket.SOCK_SEQPACKET)
    assert welcome.ring is not None
    trap = dataclasses.replace(welcome, ring=dataclasses.replace(welcome.ring, path=str(path)))
    with pytest.raises(aiod_client.AiodError, match=f"transport ring: .* is served by uid {STRANGER}"):
        ring_attach.attach(trap, "ring", engine)
    assert ring_attach.attach(trap, "auto", engine) is None
    assert stranger.has_heard() == b""
    ring = ring_attach.attach(welcome, "ring", engine)  # the ticket is as good as before
    assert ring is not None
    ring.close()
    dealer.close()


# ---- libaiod --------------------------------------------------------------------------------------------------------

LIBAIOD = Path(__file__).parents[2] / "clients" / "c"
PROGRAM = r"""
#include <stdio.h>
#include "aiod.h"

int main(void)
{
    struct aiod_client *client;
    int error = aiod_connect(&client, "scratch", NULL);

    printf("%d %s", -error, error < 0 ? aiod_error() : "");
    if (error == 0) {
        aiod_disconnect(client);
    }
    return 0;
}
"""


NAMES_SYSTEM_DIR = LIBAIOD / "endpoint.c"
COMPILE = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-pthread", f"-I{LIBAIOD / 'include'}"]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The program and libaiod, compiled, but for the file that names the system directory."""
    into = tmp_path_factory.mktemp("objects")
    (into / "program.c").write_text(PROGRAM)
    subprocess.run([*COMPILE, "-c", into / "program.c"], cwd=into, check=True)
    return [str(into / "program.o"), *(str(path) for path in libaiod_objects() if path.stem != NAMES_SYSTEM_DIR.stem)]


@pytest.fixture
def connect_c(directory: Path, objects: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Result of the C program without an endpoint, as this user or another. The system directory is the test's."""
    monkeypatch.delenv("AIOD_ENDPOINT", raising=False)
    own = [f'-DSYSTEM_DIR="{directory}/system"', str(NAMES_SYSTEM_DIR)]
    subprocess.run([*COMPILE, *own, *objects, "-o", str(directory / "program")], check=True)

    def connect(user: int | None = None) -> str:
        identity: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        done = subprocess.run(
            [directory / "program"], cwd="/", capture_output=True, text=True, timeout=scaled(60), check=True, **identity
        )
        return str(done.stdout)

    return connect


class Ring(Stranger):
    """A stranger at `DIRECTORY/ring/scratch`; the directory's front socket is a file."""

    def __init__(self, directory: Path) -> None:
        (directory / "aiod.sock").touch()
        (directory / "ring").mkdir()
        super().__init__(directory / "ring/scratch", socket.SOCK_SEQPACKET)


def test_c_does_not_use_a_directory_of_another_user(squatted: Stranger, connect_c: Callable[..., str]) -> None:
    said = connect_c(USER)
    assert said.startswith(f"{errno.EACCES} /tmp/aiod-{USER} belongs to uid {STRANGER}")
    assert "set AIOD_ENDPOINT" in said
    with pytest.raises(BlockingIOError):
        squatted.socket.accept()


@pytest.mark.usefixtures("squatted")
def test_c_uses_the_system_daemon_instead_of_a_foreign_directory(
    connect_c: Callable[..., str], directory: Path
) -> None:
    (directory / "system").mkdir(mode=0o755)
    os.chown(directory / "system", STRANGER, STRANGER)  # as /run/aiod belongs to the daemon's user
    (directory / "system/aiod.sock").touch()
    assert f"no aiod at {directory}/system/ring/scratch" in connect_c(USER)


def test_c_reports_missing_access_to_the_system_directory(connect_c: Callable[..., str], directory: Path) -> None:
    (directory / "system").mkdir(mode=0o750)
    Ring(directory / "system")
    said = connect_c(USER)
    assert said.startswith(f"{errno.EACCES} the aiod at {directory}/system/ring/scratch is not for this user")
    assert "group" in said


@pytest.mark.parametrize("mode", [0o770, 0o757, 0o1777])
def test_c_does_not_use_a_directory_writable_by_others(
    connect_c: Callable[..., str], monkeypatch: pytest.MonkeyPatch, directory: Path, mode: int
) -> None:
    (directory / "aiod").mkdir()
    (directory / "aiod").chmod(mode)
    stranger = Ring(directory / "aiod")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    said = connect_c()
    assert said.startswith(f"{errno.EACCES} {directory}/aiod is writable for other users (mode {mode:04o})")
    assert stranger.has_heard() == b""


def test_c_does_not_follow_a_symbolic_link(
    connect_c: Callable[..., str], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    (directory / "elsewhere").mkdir()
    stranger = Ring(directory / "elsewhere")
    (directory / "aiod").symlink_to(directory / "elsewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    assert "is not a directory" in connect_c()
    assert stranger.has_heard() == b""


def test_c_sends_nothing_to_a_foreign_socket_in_a_good_directory(
    connect_c: Callable[..., str], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    (directory / "aiod").mkdir()
    stranger = Ring(directory / "aiod")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    assert f"{directory}/aiod/ring/scratch is served by uid {STRANGER}, " in connect_c()
    assert stranger.has_heard() == b""


@pytest.mark.usefixtures("own_daemon")
def test_c_finds_the_users_own_daemon(connect_c: Callable[..., str]) -> None:
    assert connect_c() == "0 "
