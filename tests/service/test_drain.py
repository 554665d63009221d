"""aiodctl drain and SIGTERM under full load: accepted requests are completed and answered."""

from __future__ import annotations

import signal
from typing import Any

import pytest

import aiod_client
from tests.patience import scaled

BATCH = 64
BLOCK = 65536


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


@pytest.mark.parametrize("how", ["drain", "SIGTERM"])
def test_a_drain_completes_all_accepted_requests(daemon: Any, transport: Any, how: str) -> None:
    """Without a next daemon, each request succeeds, or fails as not executed, and then it was not executed."""
    with aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=0) as client:
        file = client.open("scratch/file", "w+")
        futures = []
        for number in range(16):
            futures += file.submit(
                [("write", bytes([1]) * BLOCK, (number * BATCH + at) * BLOCK) for at in range(BATCH)]
            )
        futures[0].result()
        if how == "drain":
            assert "has drained" in daemon.ctl("drain").stdout
            assert daemon.process.wait(scaled(60)) == 0
        else:
            assert daemon.stop(signal.SIGTERM) == 0
        ended = [future.exception() for future in futures]
    data = (daemon.path / "file").read_bytes()
    for number, error in enumerate(ended):
        there = data[number * BLOCK : (number + 1) * BLOCK] == bytes([1]) * BLOCK
        if error is None:
            assert there, number
        else:
            # Of many refused at once, as after a slow disk, the message has room for the names of the errnos only.
            assert any(text in str(error) for text in ("not executed", "not sent", "] ESHUTDOWN"))
            assert not there, (number, error)


def test_drain_requires_control_privileges(daemon: Any) -> None:
    assert daemon.json("drain")["pid"] == daemon.pid
    assert daemon.process.wait(scaled(60)) == 0
    assert daemon.ctl("drain", check=False).returncode == 3
