"""Refused opens: the right errno and message, and the session continues."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import Reason
from aiod_protocol.wire import OpenFlag
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

READ = int(OpenFlag.READ)
WRITE = int(OpenFlag.WRITE)
CREATE = int(OpenFlag.CREATE)


@pytest.fixture
def tree(shared_daemon: Any) -> Path:
    """Objects in the export that are not files, or that lead out of it."""
    path = Path(shared_daemon.path)
    (path / "directory").mkdir(exist_ok=True)
    (path / "file").write_text("inside")
    for name, target in (("out", shared_daemon.base), ("etc", "/etc/passwd")):
        if not (path / name).is_symlink():
            (path / name).symlink_to(target)
    if not (path / "fifo").exists():
        os.mkfifo(path / "fifo")
        os.mknod(path / "socket", stat.S_IFSOCK | 0o600)
    return path


@pytest.mark.parametrize(
    ("path", "flags", "number"),
    [
        ("absent", READ, errno.ENOENT),
        ("file/below", READ, errno.ENOTDIR),
        ("../aiod.toml", READ, errno.EACCES),
        ("directory/../../aiod.toml", READ, errno.EACCES),
        ("/etc/passwd", READ, errno.EACCES),
        ("etc", READ, errno.EACCES),
        ("out/aiod.toml", READ, errno.EACCES),
        ("out/made", READ | WRITE | CREATE, errno.EACCES),
        ("directory", READ, errno.EISDIR),
        ("", READ, errno.EISDIR),
        ("fifo", READ, errno.EINVAL),
        ("socket", READ, errno.EINVAL),
        ("socket", READ | WRITE, errno.EINVAL),
        ("x" * 300, READ, errno.ENAMETOOLONG),
        ("x/" * 3000, READ, errno.ENAMETOOLONG),
        ("nul\0byte", READ, errno.EINVAL),
        ("file", 0, errno.EINVAL),
        ("file", 1 << 10, errno.EINVAL),
        ("file", READ | CREATE, errno.EINVAL),
        ("file", WRITE | int(OpenFlag.EXCLUSIVE), errno.EINVAL),
        ("file", WRITE | CREATE | int(OpenFlag.EXCLUSIVE), errno.EEXIST),
    ],
)
@pytest.mark.usefixtures("tree")
def test_open_refuses_paths_outside_the_export_and_special_files(raw: Any, path: str, flags: int, number: int) -> None:
    result, text, _ = raw.open(path, flags)
    assert (result, errno.errorcode[number] in text) == (-number, True), text
    assert raw.open("file")[0] > 0


def test_a_refused_open_creates_nothing_outside_the_export(shared_daemon: Any, tree: Path) -> None:
    assert tree.exists()
    assert not (shared_daemon.base / "made").exists()


def test_open_of_an_unknown_export_is_refused(raw: Any, shared_daemon: Any) -> None:
    result, text, _ = raw.open("file", export="nowhere")
    assert result == -errno.ENOENT
    assert "the exports are: scratch" in text
    with aiod_client.connect(shared_daemon.endpoint) as client, pytest.raises(FileNotFoundError, match="nowhere"):
        client.open("nowhere/file")


def test_open_with_unknown_mode_bits_is_refused(raw: Any) -> None:
    assert raw.open("odd", READ | WRITE | CREATE, mode=0o4755)[0] == -errno.EINVAL


def test_opens_of_character_devices_and_writing_to_read_only_exports_are_refused(
    new_daemon: Callable[..., Any],
) -> None:
    daemon = new_daemon(
        **{
            "exports.dev": {"path": "/dev"},
            "exports.zero": {"path": "/dev/zero"},
            "exports.scratch": {"read_only": True},
        }
    )
    daemon.start()
    (daemon.path / "file").write_text("data")
    with aiod_client.connect(daemon.endpoint) as client:
        for path in ("dev/null", "zero"):
            with pytest.raises(OSError, match="EINVAL") as caught:
                client.open(path)
            assert caught.value.errno == errno.EINVAL
        for mode in ("r+", "w", "x"):
            with pytest.raises(OSError, match="read-only") as caught:
                client.open("scratch/file", mode)
            assert caught.value.errno == errno.EROFS
        with client.open("scratch/file") as file:
            assert file.pread(4, 0) == b"data"
    assert (daemon.path / "file").read_text() == "data"


def test_open_without_permission_is_refused(new_daemon: Callable[..., Any]) -> None:
    """The daemon runs as root without the capabilities that bypass permissions."""
    daemon = new_daemon()
    secret = daemon.path / "secret"
    secret.write_text("mine")
    secret.chmod(0)
    powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    daemon.start(prefix=powerless)
    with aiod_client.connect(daemon.endpoint) as client, pytest.raises(PermissionError, match="no permission"):
        client.open("scratch/secret")


def test_open_of_a_leased_file_fails_with_eagain(shared_daemon: Any, tree: Path) -> None:
    """The holder is asked to release the lease, and the client gets EAGAIN."""
    asked = threading.Event()
    before = signal.signal(signal.SIGIO, lambda *_: asked.set())
    holder = os.open(tree / "leased", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with aiod_client.connect(shared_daemon.endpoint) as client:
            with pytest.raises(BlockingIOError, match="has a lease on the file"):
                client.open("scratch/leased")
            assert asked.wait(scaled(10))
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            client.open("scratch/leased").close()
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)


def test_open_beyond_handles_max_is_refused(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(sessions={"handles_max": 3})
    daemon.start()
    (daemon.path / "file").write_text("data")
    with aiod_client.connect(daemon.endpoint) as client:
        files = [client.open("scratch/file") for _ in range(3)]
        with pytest.raises(OSError, match="close some") as caught:
            client.open("scratch/file")
        assert caught.value.errno == errno.EMFILE
        files[1].close()
        with client.open("scratch/file") as file:
            assert file.pread(4, 0) == b"data"


@pytest.mark.parametrize(
    ("path", "number", "reason"),
    [
        ("scratch/absent", errno.ENOENT, Reason.BY_KERNEL),
        ("nowhere/file", errno.ENOENT, Reason.NO_EXPORT),
        ("scratch/../aiod.toml", errno.EACCES, Reason.OUTSIDE),
        ("scratch/nul\0byte", errno.EINVAL, Reason.BAD_ENTRY),
    ],
)
@pytest.mark.usefixtures("tree")
def test_a_refused_open_raises_an_error_with_its_reason(
    shared_daemon: Any, path: str, number: int, reason: Reason
) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client, pytest.raises(OSError) as caught:  # noqa: PT011
        client.open(path)
    assert caught.value.errno == number
    assert caught.value.reason is reason  # type: ignore[attr-defined]


@pytest.mark.parametrize("transport", ["zmq", "ring"])
@pytest.mark.usefixtures("tree")
def test_a_refused_request_raises_an_error_with_its_reason(shared_daemon: Any, transport: Any) -> None:
    with (
        aiod_client.connect(shared_daemon.endpoint, transport=transport) as client,
        client.open("scratch/file") as file,
        pytest.raises(OSError, match="right mode") as caught,
    ):
        file.pwrite(b"data", 0)
    assert caught.value.errno == errno.EBADF
    assert caught.value.reason is Reason.NO_ACCESS  # type: ignore[attr-defined]
