"""aiodctl trace with a real daemon."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("transport", ["ring", "zmq"])
def test_requests_of_both_transports_are_in_the_file(daemon: Any, transport: Any, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    end = threading.Event()

    def work() -> None:
        with (
            aiod_client.connect(daemon.endpoint, transport=transport) as client,
            client.open("scratch/x", "w+") as file,
        ):
            while not end.is_set():
                file.pwrite(b"x" * 4096, 0)
                file.pread(4096, 0)
                file.flush()

    working = threading.Thread(target=work)
    working.start()
    try:
        body = json.loads(daemon.ctl("--json", "trace", "--seconds", "1", str(path)).stdout)
    finally:
        end.set()
        working.join()
    events = json.loads(path.read_text())["traceEvents"]
    assert body["engines"][0]["requests"] > 3
    assert {"read", "write", "flush"} <= {event["name"] for event in events if event["ph"] == "b"}
    for event in events:
        assert event.get("dur", 0) >= 0
    pid = daemon.engine["pid"]
    workers = {event["tid"] for event in events if event["ph"] == "X" and event["name"] == "flush"}
    known = {thread["tid"] for engine in daemon.json("threads")["engines"] for thread in engine["threads"]}
    assert workers <= known
    assert pid not in workers


def test_wrong_durations_are_refused(shared_daemon: Any, tmp_path: Path) -> None:
    assert shared_daemon.ctl("trace", "--seconds", "0", str(tmp_path / "x"), check=False).returncode == 2
    with aiod_client.connect(shared_daemon.endpoint) as client:
        for seconds in (0, 61, "2", None, float("nan")):
            with pytest.raises(OSError, match="EINVAL"):
                client.control("trace", {"seconds": seconds})


def test_one_trace_at_a_time(shared_daemon: Any, tmp_path: Path) -> None:
    """Others are refused meanwhile: they would end the first one."""
    ended: list[Any] = []

    def trace(name: str) -> None:
        ended.append(shared_daemon.ctl("trace", "--seconds", "2", str(tmp_path / name), check=False))

    threads = [threading.Thread(target=trace, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(done.returncode == 0 for done in ended)
    assert all(done.returncode == 0 or "another trace" in done.stderr for done in ended)
