"""Rate limits of exports and users: iops_max, bytes_per_second_max, burst_s, and their reload."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


def limited(new_daemon: Callable[..., Any], tmp_path: Any, **limits: Any) -> Any:
    """A daemon whose export `slow` has these limits; `scratch` has none."""
    (tmp_path / "slow").mkdir()
    daemon = new_daemon(**{"exports.slow": {"path": str(tmp_path / "slow"), "burst_s": 0.01} | limits})
    daemon.start()
    return daemon


def seconds(work: Callable[[], object]) -> float:
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def test_iops_max_limits_requests_per_second(new_daemon: Callable[..., Any], tmp_path: Any, transport: Any) -> None:
    daemon = limited(new_daemon, tmp_path, iops_max=100)
    with aiod_client.connect(daemon.endpoint, transport=transport) as client, client.open("slow/file", "w+") as file:
        file.pwrite(bytes(KIB), 0)
        batch = [("read", KIB, 0)] * 50  # cached: they would be answered inline
        assert seconds(lambda: [future.result() for future in file.submit(batch)]) > 0.4
    assert daemon.engine["pool"]["lost_wakeups"] == 0


def test_bytes_per_second_max_limits_bytes_per_second(
    new_daemon: Callable[..., Any], tmp_path: Any, transport: Any
) -> None:
    daemon = limited(new_daemon, tmp_path, bytes_per_second_max=1024 * KIB)
    with aiod_client.connect(daemon.endpoint, transport=transport) as client, client.open("slow/file", "w+") as file:
        batch = [("write", bytes(64 * KIB), 0)] * 8
        assert seconds(lambda: [future.result() for future in file.submit(batch)]) > 0.35


def test_a_limited_export_does_not_delay_others(new_daemon: Callable[..., Any], tmp_path: Any, transport: Any) -> None:
    daemon = limited(new_daemon, tmp_path, iops_max=1)
    with (
        aiod_client.connect(daemon.endpoint, transport=transport) as client,
        client.open("slow/file", "w+") as slow,
        client.open("scratch/file", "w+") as fast,
    ):
        waiting = slow.submit([("write", b"x", 0)] * 3)
        for number in range(100):
            fast.pwrite(b"x", number)
        assert not all(future.done() for future in waiting)
        assert waiting[2].cancel()
        for future in waiting[:2]:
            future.result()


def test_hundreds_of_limited_sessions_do_not_delay_an_unlimited_one(
    new_daemon: Callable[..., Any], tmp_path: Any, wait_until: Callable[..., None]
) -> None:
    sessions = 270  # more than the core looks at when it searches for the fairest request
    daemon = limited(new_daemon, tmp_path, iops_max=1)
    with contextlib.ExitStack() as stack:
        files = []
        for _ in range(sessions):
            client = stack.enter_context(aiod_client.connect(daemon.endpoint, transport="zmq"))
            files.append(client.open("slow/file", "w+"))
        waiting = [future for file in files for future in file.submit([("write", b"x", 0)] * 2)]
        wait_until(lambda: daemon.engine["pool"]["queued"] > sessions, "they wait")
        other = stack.enter_context(aiod_client.connect(daemon.endpoint, transport="zmq"))
        with other.open("scratch/file", "w+") as file:
            for number in range(100):
                assert file.submit([("write", b"x", number)])[0].result(timeout=scaled(10)) == 1
        assert not all(future.done() for future in waiting)
        daemon.stop()  # which heeds no rate
        assert {future.result() for future in waiting} == {1}


def test_a_reload_that_lifts_the_limit_releases_waiting_requests(
    new_daemon: Callable[..., Any], tmp_path: Any, transport: Any
) -> None:
    daemon = limited(new_daemon, tmp_path, iops_max=1)
    with aiod_client.connect(daemon.endpoint, transport=transport) as client, client.open("slow/file", "w+") as file:
        futures = file.submit([("write", b"x", 0)] * 50)
        futures[0].result()
        assert not futures[-1].done()
        config = daemon.config_path.read_text()
        daemon.config_path.write_text(config.replace("iops_max = 1", "iops_max = 0"))
        daemon.ctl("reload")
        for future in futures:
            future.result(timeout=scaled(60))


def test_a_user_has_one_rate_for_all_sessions(new_daemon: Callable[..., Any], transport: Any) -> None:
    daemon = new_daemon(**{f"users.{os.getuid()}": {"iops_max": 100, "burst_s": 0.01}})
    daemon.start()
    clients = [aiod_client.connect(daemon.endpoint, transport=transport) for _ in range(2)]
    files = [client.open(f"scratch/{number}", "w+") for number, client in enumerate(clients)]
    began_s = time.monotonic()
    futures = [future for file in files for future in file.submit([("write", b"x", 0)] * 25)]
    for future in futures:
        future.result()
    assert time.monotonic() - began_s > 0.4
    for client in clients:
        client.close()


def test_requests_that_wait_for_a_rate_honour_deadlines_and_a_stop(
    new_daemon: Callable[..., Any], tmp_path: Any, transport: Any, wait_until: Callable[..., None]
) -> None:
    daemon = limited(new_daemon, tmp_path, iops_max=1)
    with aiod_client.connect(daemon.endpoint, transport=transport) as client, client.open("slow/file", "w+") as file:
        file.pwrite(b"x", 0)
        futures = file.submit([("write", b"x", 0)] * 20, timeout=0.1)
        for future in futures[1:]:
            with pytest.raises(TimeoutError) as late:
                future.result()
            assert late.value.errno == errno.ETIMEDOUT
        waiting = file.submit([("write", b"x", 0)] * 20)
        wait_until(lambda: daemon.engine["pool"]["queued"] > 0, "they wait")
        daemon.stop()  # which heeds no rate
        assert [future.result() for future in waiting] == [1] * 20


def test_ioprio_is_accepted_and_files_work(new_daemon: Callable[..., Any], tmp_path: Any) -> None:
    """The key is accepted, and files work; the effect depends on the disk's scheduler."""
    daemon = limited(new_daemon, tmp_path, ioprio="idle")
    with aiod_client.connect(daemon.endpoint) as client:
        for name in ("slow/file", "scratch/file"):
            with client.open(name, "w+", direct=False) as file:
                assert file.pwrite(b"data", 0) == 4
                file.flush()
    assert "has no effect" not in daemon.log
