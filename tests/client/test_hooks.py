"""What a program can ask of a client and be told by it: pings, whether it is connected, counters, events in the log."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.conftest import freeze, kill, wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from tests.conftest import Daemon

PATIENCE_S = scaled(60.0)


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


def test_a_ping_is_answered_in_some_time_or_fails(daemon: Daemon, transport: Any) -> None:
    async def awaited() -> None:
        async with aio.connect(daemon.endpoint, transport=transport, timeout=PATIENCE_S) as client:
            assert await client.ping() > 0
            assert client.is_connected

    asyncio.run(awaited())
    with aiod_client.connect(daemon.endpoint, transport=transport, timeout=PATIENCE_S) as client:
        assert client.ping() > 0
        freeze(daemon.pid)
        try:
            with pytest.raises(TimeoutError):
                client.ping(timeout=0.05)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
    with pytest.raises(aiod_client.AiodError, match="closed"):
        client.ping()


def test_counters_count_requests_over_all_sessions(shared_daemon: Daemon, transport: Any) -> None:
    with aiod_client.connect(shared_daemon.endpoint, transport=transport, timeout=PATIENCE_S) as client:
        assert client.counters == aiod_client.Counters(0, 0, 0, 0)
        with client.open("scratch/counted", "w+") as file:
            before = client.counters
            for _ in range(10):
                file.pwrite(b"data", 0)
            after = client.counters
        ended = client.counters  # closing the file was a request, too
    by_ring, by_message = (after[at] - before[at] for at in range(2))
    assert (by_ring, by_message) == ((10, 0) if transport == "ring" else (0, 10))
    assert client.counters.requests_by_ring == ended.requests_by_ring, "they stay after close()"
    assert (after.retries, after.pauses) == (0, 0)


@pytest.mark.parametrize("awaits", [False, True])
def test_the_death_of_an_engine_is_an_event_and_counts(
    daemon: Daemon, transport: Any, caplog: pytest.LogCaptureFixture, *, awaits: bool
) -> None:
    caplog.set_level(logging.WARNING, "aiod_client")
    arguments: dict[str, Any] = {"transport": transport, "timeout": PATIENCE_S, "reconnect_timeout": PATIENCE_S}

    pid = daemon.engine["pid"]

    def events() -> list[str]:
        return [record.aiod_event for record in caplog.records if hasattr(record, "aiod_event")]

    async def awaited() -> None:
        connecting = aio.connect(daemon.endpoint, **arguments)
        async with connecting as client, await client.open("scratch/paused", "w+") as file:
            freeze(pid)
            futures = file.submit([("write", b"data", 0)])
            await asyncio.to_thread(kill_when_sent, pid, file)
            assert await futures[0] == 4
            check(client)

    def blocking() -> None:
        with aiod_client.connect(daemon.endpoint, **arguments) as client, client.open("scratch/paused", "w+") as file:
            freeze(pid)
            futures = file.submit([("write", b"data", 0)])
            kill_when_sent(pid, file)
            assert futures[0].result(PATIENCE_S) == 4
            check(client)

    def check(client: aiod_client.Client | aio.Client) -> None:
        assert client.is_connected
        assert (client.counters.retries, client.counters.pauses) == (1, 1)
        assert events() == ["paused", "continued"]
        endpoints = {record.aiod_endpoint for record in caplog.records if hasattr(record, "aiod_endpoint")}
        assert len(endpoints) == 2
        assert caplog.records[-1].aiod_files_lost == 0  # type: ignore[attr-defined]

    asyncio.run(awaited()) if awaits else blocking()


def kill_when_sent(pid: int, file: Any) -> None:
    """Kill the engine, which is frozen, once the write is sent."""
    link = file._link
    wait_until(lambda: link.session.in_flight.requests or (link.transport and link.transport.pending), "it is sent")
    kill(pid)


def test_a_client_that_looks_for_an_engine_is_not_connected(daemon: Daemon, transport: Any) -> None:
    connecting = aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=PATIENCE_S)
    with connecting as client, client.open("scratch/away", "w+"):
        assert client.is_connected
        pid = daemon.engine["pid"]
        freeze(daemon.pid)  # which would start the next engine
        try:
            kill(pid)
            wait_until(lambda: not client.is_connected, "the client notices")
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        wait_until(lambda: client.is_connected, "it has found the next engine")
    assert not client.is_connected
