"""A full or failing disk, and files that shrink: the errno reaches the caller, acknowledged data stays."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20


def mount_namespace() -> list[str]:
    """The command that starts a process in its own mount namespace."""
    command = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets us mount nothing (no privilege, no user namespaces)")
    return command


def test_a_full_disk_fails_writes_with_enospc(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    mount = f"mount -t tmpfs -o size=4m none {shlex.quote(str(daemon.path))}"
    daemon.start(prefix=[*mount_namespace(), "sh", "-c", f'{mount} && exec "$@"', "sh"])
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/growing", "w+") as file:
        futures = file.submit([("write", bytes([number]) * MIB, number * MIB) for number in range(8)])
        errors = [future.exception(timeout=scaled(60)) for future in futures]
        assert all(error is None or (isinstance(error, OSError) and error.errno == errno.ENOSPC) for error in errors)
        written = [number for number, error in enumerate(errors) if error is None]
        assert 1 <= len(written) < 8
        failed = next(error for error in errors if error is not None)
        assert "scratch/growing" in str(failed)
        assert "make room" in str(failed)
        file.flush()
        for number in written:
            assert file.pread(MIB, number * MIB) == bytes([number]) * MIB
        assert daemon.engine["ops"]["write"]["errors"] == 8 - len(written)


def test_an_io_error_reaches_the_client_as_eio(new_daemon: Callable[..., Any]) -> None:
    """/proc/PID/mem is a regular file that returns EIO for unmapped memory."""
    daemon = new_daemon(**{"exports.proc": {"path": "/proc", "read_only": True}})
    daemon.start()
    with aiod_client.connect(daemon.endpoint) as client, client.open("proc/self/mem") as file:
        with pytest.raises(OSError, match="kernel's log") as caught:
            file.pread(4096, 0)
        assert caught.value.errno == errno.EIO
        with client.open("proc/self/comm") as comm:
            assert comm.pread(64, 0) == b"aiod/main\n"


def test_a_file_truncated_by_others_reads_short(shared_daemon: Any) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client, client.open("scratch/shrinking", "w+") as file:
        file.pwrite(b"x" * 10_000, 0)
        os.truncate(shared_daemon.path / "shrinking", 5000)
        assert file.pread(10_000, 0) == b"x" * 5000
        assert file.pread(100, 8000) == b""
        assert file.size() == 5000
        file.pwrite(b"y", 9999)
        file.flush()
        assert file.pread(2, 9998) == b"\0y"


def test_a_removed_file_works_until_its_handle_is_closed(shared_daemon: Any) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client, client.open("scratch/removed", "w+") as file:
        file.pwrite(b"still there", 0)
        (shared_daemon.path / "removed").unlink()
        assert file.pread(11, 0) == b"still there"
        file.flush()


def test_writes_beyond_rlimit_fsize_fail_with_efbig_and_do_not_end_the_engine(new_daemon: Callable[..., Any]) -> None:
    """SIGXFSZ must not end the engine: workers block it, and the caller gets EFBIG."""
    daemon = new_daemon()
    daemon.start(prefix=["prlimit", f"--fsize={MIB}"])
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/big", "w+") as file:
        with pytest.raises(OSError, match="RLIMIT_FSIZE") as caught:
            file.pwrite(b"x", 2 * MIB)
        assert caught.value.errno == errno.EFBIG
        assert file.pwrite(b"x", 0) == 1


def test_an_export_can_be_a_regular_file(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    image = daemon.base / "disk.img"
    image.write_bytes(b"image")
    daemon.write_config({"exports.disk": {"path": str(image)}})
    daemon.start()
    with aiod_client.connect(daemon.endpoint) as client:
        with client.open("disk", "r+") as file:
            assert (file.size(), file.pread(5, 0)) == (5, b"image")
        with pytest.raises(NotADirectoryError):
            client.open("disk/below")
