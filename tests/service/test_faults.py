"""Faults of an export, and aiod_client.testing, with which other projects use them."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from aiod_client.testing import DaemonError, Fault, run_daemon
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aiod_client.testing import PrivateDaemon

DATA = bytes(range(256)) * 64
FAULTS = [
    Fault(operations=["write", "append"], every=3, errno="ENOSPC", after_bytes=5000),
    Fault(operations=["flush"], every=2, errno="EIO"),
    Fault(operations=["size"], delay_ms=1),
    Fault(operations=["read"], every=2, errno="EIO"),
]

pytest_plugins = ["aiod_client.testing.fixtures"]


@pytest.fixture(scope="module", name="faulty")
def faulty_fixture() -> Iterator[PrivateDaemon]:
    with run_daemon(faults=FAULTS) as daemon:
        yield daemon


@pytest.mark.parametrize("transport", ["ring", "zmq"])
def test_every_third_write_fails_after_a_part(faulty: PrivateDaemon, transport: Any) -> None:
    with faulty.connect(transport=transport) as client, client.open(f"scratch/writes-{transport}", "w+") as f:
        for _ in range(2):
            assert f.pwrite(DATA, 0) == f.pwrite(DATA, 0) == len(DATA)
            with pytest.raises(OSError, match="No space") as caught:
                f.pwrite(DATA, len(DATA), fua=True)
            assert (caught.value.errno, aiod_client.written(caught.value)) == (errno.ENOSPC, 5000)
    assert (faulty.directory / f"writes-{transport}").read_bytes() == DATA + DATA[:5000]


@pytest.mark.parametrize("transport", ["ring", "zmq"])
def test_pieces_are_cut_at_the_same_byte(faulty: PrivateDaemon, transport: Any) -> None:
    with faulty.connect(transport=transport) as client, client.open(f"scratch/pieces-{transport}", "w+") as f:
        f.pwrite(b"", 0)
        f.pwrite(b"1", 0)
        f.pwrite(b"2", 0)
        with pytest.raises(OSError, match="No space"):
            f.pwritev([DATA[:4000], DATA[4000:4500], DATA[4500:]], 0)
    assert (faulty.directory / f"pieces-{transport}").read_bytes() == DATA[:5000]


def test_appends_are_counted_with_writes(faulty: PrivateDaemon) -> None:
    with faulty.connect() as client, client.open("scratch/appends", "a") as f:
        assert [f.append(DATA), f.append(DATA)] == [0, len(DATA)]
        with pytest.raises(OSError, match="No space"):
            f.append(DATA)
    assert (faulty.directory / "appends").stat().st_size == 2 * len(DATA) + 5000


def test_a_failed_flush_leaves_the_file_usable(faulty: PrivateDaemon) -> None:
    with faulty.connect() as client, client.open("scratch/flushes", "w") as f:
        for _ in range(2):
            f.flush()
            with pytest.raises(OSError, match="Input/output"):
                f.flush()


def test_cached_reads_fail_as_well(faulty: PrivateDaemon) -> None:
    with faulty.connect() as client, client.open("scratch/reads", "w+") as f:
        f.pwrite(DATA, 0)
        for _ in range(3):
            assert f.pread(10, 0) == DATA[:10]
            with pytest.raises(OSError, match="Input/output"):
                f.pread(10, 0)
        assert f.size() == len(DATA)
    assert client.closed


def test_whole_files_meet_the_faults(faulty: PrivateDaemon) -> None:
    """They go by open, read and write there, so that no request escapes; a file that is opened anew counts from 1."""
    (faulty.directory / "whole").write_bytes(DATA)
    with faulty.connect() as client:
        assert client.read_file("scratch/whole") == DATA
        client.write_file("scratch/whole", DATA[:100])
        assert client.read_file("scratch/whole") == DATA[:100]


def test_asyncio(faulty: PrivateDaemon) -> None:
    async def use() -> None:
        async with aio.connect(faulty.endpoint) as client, await client.open("scratch/async", "w+") as f:
            await f.pwrite(DATA, 0)
            await f.pread(1, 0)
            with pytest.raises(OSError, match="Input/output"):
                await f.pread(1, 0)

    asyncio.run(use())


def test_a_delay_holds_a_request_up_and_no_other() -> None:
    with run_daemon(faults=[Fault(operations=["write"], delay_ms=3000)]) as daemon, daemon.connect() as client:
        f = client.open("scratch/slow", "w+")
        (future,) = f.submit([("write", DATA, 0)])
        assert f.size() == 0
        assert future.result() == f.size() == len(DATA)
        f.close()


def test_a_wrong_fault_is_explained() -> None:
    with pytest.raises(DaemonError, match=r"exports\.scratch\.faults\.0\.errno.*no errno has the name EWRONG"):
        run_daemon(faults=[Fault(errno="EWRONG")]).__enter__()
    with pytest.raises(DaemonError, match=r"no operation has the name open: they are read, write,"):
        run_daemon(faults=[Fault(operations=["open"])]).__enter__()


def test_the_directory_may_be_the_tests_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with run_daemon(tmp_path, export_options="read_only = true") as daemon, daemon.connect() as client:
        assert client.read_file("scratch/file") == DATA
        with pytest.raises(OSError, match="read-only"):
            client.open("scratch/file", "r+")
    assert (tmp_path / "file").exists()


def test_a_client_goes_on_after_kill_engine(aiod_daemon: PrivateDaemon) -> None:
    with aiod_daemon.connect(reconnect_timeout=scaled(60)) as client, client.open("scratch/killed", "w+") as f:
        f.pwrite(DATA, 0)
        aiod_daemon.kill_engine()
        assert f.pread(len(DATA), 0) == DATA


def test_the_fixtures_in_a_project_of_others(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["aiod_client.testing.fixtures"]\n')
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
        from aiod_client.testing import Fault

        def test_a(aiod_daemon):
            with aiod_daemon.connect() as client:
                client.write_file("scratch/x", b"1")
            assert (aiod_daemon.directory / "x").read_bytes() == b"1"

        def test_b(run_aiod_daemon):
            daemon = run_aiod_daemon(faults=[Fault(operations=["flush"], errno="EIO")])
            with daemon.connect() as client, client.open("scratch/x", "w") as f:
                try:
                    f.flush()
                except OSError as error:
                    assert error.errno == 5
                else:
                    raise AssertionError
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=scaled(120), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
