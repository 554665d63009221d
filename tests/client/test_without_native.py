"""An installation of the client without its native module: Python alone, all requests by ZeroMQ."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.patience import scaled

if TYPE_CHECKING:
    from tests.conftest import Daemon

WITHOUT_NATIVE = "import sys\nsys.modules['aiod_client._ring'] = None\nimport aiod_client\nendpoint = sys.argv[1]\n"

BLOCKING = """
for _ in range(2):
    with aiod_client.connect(endpoint) as client, client.open("scratch/blocking", "w+") as file:
        file.pwrite(b"data", 0)
        file.flush()
        assert file.pread(4, 0) == b"data"
        buffer = bytearray(4)
        assert file.pread_into(buffer, 0) == 4
        assert client.read_file("scratch/blocking") == b"data"
        assert client.stat("scratch/blocking").size == 4
"""

AWAITED = """
import asyncio
from aiod_client import aio

async def main():
    for _ in range(2):
        async with aio.connect(endpoint) as client, await client.open("scratch/awaited", "w+") as file:
            await file.pwrite(b"data", 0)
            await file.flush()
            assert await file.pread(4, 0) == b"data"
            assert await client.read_file("scratch/awaited") == b"data"

asyncio.run(main())
"""

RING_WANTED = """
try:
    aiod_client.connect(endpoint, transport="ring").open("scratch/never", "w+")
except aiod_client.AiodError as error:
    print(error.strerror)
"""


def run(program: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Run it where the native module cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_NATIVE + program, endpoint]
    return subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)


@pytest.mark.parametrize("program", [BLOCKING, AWAITED])
def test_it_works_by_zeromq_and_says_so_once(shared_daemon: Daemon, program: str) -> None:
    done = run(program, shared_daemon.endpoint)
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.count("no shared-memory ring, all requests go by ZeroMQ: aiod-io was installed without its native")
        == 1
    )
    assert len(done.stderr.splitlines()) == 1


def test_a_ring_that_is_asked_for_is_refused_with_what_to_do(shared_daemon: Daemon) -> None:
    done = run(RING_WANTED, shared_daemon.endpoint)
    assert done.returncode == 0, done.stderr
    assert "transport ring: aiod-io was installed without its native module: install a wheel" in done.stdout


def test_nothing_is_said_where_no_ring_is_wanted(shared_daemon: Daemon) -> None:
    done = run("aiod_client.connect(endpoint, transport='zmq').open('scratch/plain', 'w+')", shared_daemon.endpoint)
    assert (done.returncode, done.stderr) == (0, "")
