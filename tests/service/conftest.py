"""A client that builds messages by hand, for messages that the library never sends; and mounted file systems."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq

import aiod_client
from aiod_protocol import wire
from aiod_protocol.wire import MessageType
from tests.conftest import Daemon, freeze
from tests.patience import scaled
from tests.service import file_systems
from tests.service.frozen import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ANSWER_TIMEOUT_MS = scaled(60_000)

FIGETBSZ = 2
"""An ioctl that every file system supports: it returns the block size, an int."""


class Raw:
    """One DEALER socket, and one session after `hello`."""

    def __init__(self, endpoint: str, receive_hwm: int = 1000) -> None:
        """`receive_hwm`: most messages that are received ahead of answer()."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.dealer = self._context.socket(zmq.DEALER)
        self.dealer.setsockopt(zmq.RCVHWM, receive_hwm)
        self.dealer.connect(endpoint)
        self.token = b""
        self.received = 0
        self.replies: list[list[Any]] = []

    def close(self) -> None:
        """Close the socket without GOODBYE."""
        self._context.destroy(0)

    def send(self, *elements: Any, payloads: Sequence[bytes] = ()) -> None:
        """One message."""
        self.dealer.send_multipart([wire.pack(*elements), *payloads])

    def answer(self) -> list[Any]:
        """The header of the next message; `frames` gets its payload frames."""
        assert self.dealer.poll(int(ANSWER_TIMEOUT_MS)), "no answer"
        header, *self.frames = self.dealer.recv_multipart()
        return wire.unpack(header)

    def ask(self, *elements: Any, payloads: Sequence[bytes] = ()) -> list[Any]:
        """Send a message, return the answer."""
        self.send(*elements, payloads=payloads)
        return self.answer()

    def hello(self) -> dict[str, Any]:
        """Begin a session; returns the map in WELCOME."""
        kind, welcome = self.ask(MessageType.HELLO, {"versions": [1], "features": [], "software": "raw"})
        assert kind == MessageType.WELCOME
        self.token = welcome["session"]
        return dict(welcome)

    def open(self, path: str, flags: int = 1, export: str = "scratch", mode: int = 0o644) -> list[Any]:
        """[result, text, body] of an OPEN."""
        return self.ask(MessageType.OPEN, self.token, 1, export, path, flags, mode)[2:5]

    def handle(self, path: str, flags: int = 7) -> int:
        """An open handle."""
        result, text, _ = self.open(path, flags)
        assert result > 0, text
        return int(result)

    def submit(self, *records: tuple[int, ...], payloads: Sequence[bytes] = ()) -> dict[int, tuple[int, str]]:
        """Submit records (cookie, op, flags, handle, offset, length, deadline, frame, frame offset, reserved).

        Waits for all; {cookie: (result, text)}.
        """
        packed = b"".join(wire.SUBMISSION.pack(*record) for record in records)
        self.send(MessageType.SUBMIT, self.token, self.received, packed, payloads=payloads)
        return self.completions(len(records))

    def completions(self, count: int) -> dict[int, tuple[int, str]]:
        """Wait for `count` completions; a REPLY that comes between them is put into `replies`."""
        done: dict[int, tuple[int, str]] = {}
        while len(done) < count:
            kind, *elements = self.answer()
            if kind == MessageType.GO:  # the end of the grace period, if the disk was slow
                continue
            packed, texts, *rest = elements
            if kind == MessageType.REPLY:
                self.replies.append([packed, texts, *rest])
                continue
            assert kind == MessageType.COMPLETE, (kind, packed, texts)
            for index, (cookie, result, *_rest) in enumerate(wire.COMPLETION.iter_unpack(packed)):
                assert cookie not in done
                done[cookie] = (result, texts.get(index, ""))
                self.received += 1
        return done


@pytest.fixture
def connect() -> Iterator[Callable[..., Raw]]:
    """Makes raw clients of an endpoint."""
    made: list[Raw] = []

    def connect(endpoint: str, receive_hwm: int = 1000) -> Raw:
        made.append(Raw(endpoint, receive_hwm))
        return made[-1]

    yield connect
    for raw in made:
        raw.close()


@pytest.fixture
def locate(connect: Callable[[str], Raw]) -> Callable[[str], str]:
    """Finds the engine that serves the export `scratch`, given the front endpoint."""

    def locate(front: str) -> str:
        kind, _, result, text, body, *_ = connect(front).ask(MessageType.LOCATE, 1, "scratch")
        assert (kind, result) == (MessageType.REPLY, 0), text
        return str(body["endpoint"])

    return locate


@pytest.fixture
def engine_endpoint(shared_daemon: Any, locate: Callable[[str], str]) -> str:
    """Endpoint of the shared daemon's engine."""
    return locate(shared_daemon.endpoint)


@pytest.fixture
def raw(connect: Callable[[str], Raw], engine_endpoint: str) -> Raw:
    """A raw client with a session of the shared daemon's engine."""
    made = connect(engine_endpoint)
    made.hello()
    return made


# ---- file systems ---------------------------------------------------------------------------------------------------


@pytest.fixture(name="stopped")
def stopped_fixture(daemon: Any) -> Iterator[Callable[[], int]]:
    """A function that stops the engine, and returns its pid."""
    pid = daemon.engine["pid"]

    def stop() -> int:
        freeze(pid)
        return int(pid)

    yield stop
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="session")
def mounts_daemon() -> Iterator[Daemon]:
    """A daemon with an export for each file system of file_systems.NAMES, and one of it that is `direct`.

    They are directories of its base; `place` mounts there.
    """
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    exports: dict[str, Any] = {}
    for name in file_systems.NAMES:
        path = base / name
        path.mkdir()
        exports[f"exports.{name}"] = {"path": str(path), "ioctls": [{"number": FIGETBSZ, "bytes": 4}]}
        exports[f"exports.{name}-direct"] = {"path": str(path), "direct": True}
    made = Daemon(base, **exports)
    made.start()
    yield made
    made.destroy()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session", params=file_systems.NAMES)
def file_system(request: pytest.FixtureRequest, mounts_daemon: Daemon) -> Iterator[file_systems.FileSystem]:
    """Each file system, mounted where `mounts_daemon` serves it under its name."""
    with file_systems.mounted(request.param, mounts_daemon.base) as made:
        yield made


@pytest.fixture
def frozen(disk_path: Path) -> Iterator[Frozen]:
    """An ext4 of the test's own, not frozen yet. Thawed at the end, before it is unmounted."""
    with file_systems.mounted("ext4", disk_path) as mounted, contextlib.closing(Frozen(mounted.path)) as made:
        yield made


class Place:
    """A file system, with a client and with its mount point `path`."""

    def __init__(self, client: aiod_client.Client, file_system: file_systems.FileSystem) -> None:
        self.client = client
        self.name = file_system.name
        self.path = file_system.path

    def open(self, name: str, mode: str = "w+", **options: Any) -> Any:
        """Open a file there by the client."""
        return self.client.open(f"{self.name}/{name}", mode, **options)

    @property
    def has_direct(self) -> bool:
        """Whether the file system supports O_DIRECT (tmpfs does since Linux 6.6)."""
        try:
            os.close(os.open(self.path / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
        except OSError:
            return False
        return True


@pytest.fixture
def place(mounts_daemon: Daemon, file_system: file_systems.FileSystem) -> Iterator[Place]:
    """A client for each file system; the file system is emptied afterwards."""
    with aiod_client.connect(mounts_daemon.endpoint, timeout=scaled(60)) as client:
        yield Place(client, file_system)
    for entry in file_system.path.iterdir():
        if not entry.is_dir():
            entry.unlink()
