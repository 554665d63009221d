"""The daemon where the kernel, a container or a user's account offer less than usual.

It refuses to start, with one sentence, where it could not keep its promises (openat2: test_kernel_check.py). Otherwise
it serves, and says which ways are off.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod.ctl.daemon import Address, ask_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.conftest import Daemon

MEMFD_CREATE = {"x86_64": 319, "aarch64": 279, "riscv64": 279}.get(os.uname().machine)
LAUNCHER = str(Path(__file__).with_name("seccomp.py"))
STRANGER = 61234
"""A uid without an account, as containers have them."""
LAST_RESORT = Path(f"/var/tmp/aiod-{STRANGER}")


def in_own_mounts(script: str) -> Sequence[str]:
    """A prefix that runs a command after the shell `script`, with mounts of its own. Skips where that is forbidden."""
    return permitted("unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh")


def permitted(*prefix: str) -> Sequence[str]:
    """The prefix of a command; skips where it is not permitted."""
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=scaled(60), check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces: {tried.stderr.strip()}")
    return prefix


def writes_and_reads(endpoint: str, transport: Any) -> None:
    """Write a file, and read it."""
    with (
        aiod_client.connect(endpoint, transport=transport, timeout=scaled(60)) as client,
        client.open("scratch/file", "w+") as file,
    ):
        file.pwrite(b"data", 0)
        file.flush()
        assert file.pread(4, 0) == b"data"


@pytest.mark.skipif(MEMFD_CREATE is None, reason="the number of memfd_create is not known for this machine")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_memfd_create_the_daemon_serves_by_zeromq_and_says_so(
    new_daemon: Callable[..., Daemon], number: int
) -> None:
    daemon = new_daemon()
    daemon.start(prefix=[sys.executable, LAUNCHER, str(MEMFD_CREATE), str(number)])
    writes_and_reads(daemon.endpoint, "auto")
    with pytest.raises(OSError, match=os.strerror(number)):
        writes_and_reads(daemon.endpoint, "ring")
    sentence = f"rings are off, clients use ZeroMQ: memfd_create(2) cannot be used here: {os.strerror(number)}"
    daemon.wait_logged(sentence)
    assert sentence in daemon.ctl("status").stdout
    assert [way["text"] for way in daemon.json("stats")["ways_off"]] == [sentence]


def test_where_nothing_is_missing_no_way_is_off(shared_daemon: Daemon) -> None:
    assert shared_daemon.json("stats")["ways_off"] == []


def test_without_proc_the_daemon_refuses_to_start(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    daemon.start(wait=False, prefix=in_own_mounts("umount --lazy /proc"))
    assert daemon.process is not None
    assert daemon.process.wait(scaled(60)) == 1
    (line,) = daemon.log.splitlines()
    assert "/proc/self/fd is missing" in line
    assert "mount /proc" in line


def test_a_small_dev_shm_does_not_limit_rings(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    daemon.start(prefix=in_own_mounts("mount -t tmpfs -o size=64k none /dev/shm"))
    writes_and_reads(daemon.endpoint, "ring")


@pytest.fixture
def stranger() -> Iterator[Sequence[str]]:
    """A prefix that runs a command as STRANGER."""
    yield permitted("unshare", "--user", f"--map-user={STRANGER}", f"--map-group={STRANGER}")
    shutil.rmtree(LAST_RESORT, ignore_errors=True)


@pytest.mark.parametrize("home", ["absent", "read-only"])
def test_the_embedded_default_serves_a_user_without_a_usable_home(
    stranger: Sequence[str], disk_path: Path, home: str
) -> None:
    """Its scratch directory is the one in /var/tmp; there is no locale but C."""
    environment = {"LC_ALL": "C", "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(disk_path)}
    if home == "read-only":
        (disk_path / "home").mkdir(mode=0o555)
        environment["HOME"] = str(disk_path / "home")
    log = disk_path / "log"
    with log.open("wb") as output:
        command = [*stranger, sys.executable, "-m", "aiod"]
        daemon = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    endpoint = f"ipc://{disk_path}/aiod/aiod.sock"
    try:
        ask_until(Address(endpoint), "ping", scaled(60), scaled(60))
        writes_and_reads(endpoint, "ring")
        assert (LAST_RESORT / "scratch" / "file").read_bytes() == b"data"
    except OSError as error:
        pytest.fail(f"{error}\n{log.read_text()}")
    finally:
        daemon.send_signal(signal.SIGTERM)
        status = daemon.wait(scaled(60))
    assert status == 0, log.read_text()
