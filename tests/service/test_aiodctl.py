"""What aiodctl shows: the keys that programs rely on (design, section 7), tables for people, exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

POOL_KEYS = {
    "max_threads", "min_threads", "cur_threads", "idle_threads", "new_threads", "pending_threads", "queued",
    "threads_created", "spawn_failures",
}  # fmt: skip
QUANTILES = {"p50", "p99", "p999", "max"}


def test_stats(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"engine.main": {"max_threads": 7, "min_threads": 1}})
    daemon.start()
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/x", "w+") as file:
        for number in range(10):
            file.pwrite(b"0123456789", 10 * number)
        file.flush()
        assert len(file.pread(1000, 0)) == 100
        stats = daemon.json("stats")
    (engine,) = stats["engines"]
    assert (engine["name"], engine["state"]) == ("main", "serving")
    assert engine["pid"] not in {daemon.pid, os.getpid()}
    assert engine["pool"].keys() >= POOL_KEYS
    assert (engine["pool"]["max_threads"], engine["pool"]["min_threads"]) == (7, 1)
    assert 1 <= engine["pool"]["cur_threads"] <= 7
    for ops in (engine["ops"], stats["ops"]):
        assert (ops["write"]["count"], ops["write"]["bytes"], ops["write"]["errors"]) == (10, 100, 0)
        assert (ops["read"]["count"], ops["read"]["bytes"]) == (1, 100)
        assert ops["flush"]["count"] == 1
        for op in ("read", "write", "flush"):
            for part in ("latency_us", "queue_us", "service_us"):
                figures = ops[op][part]
                assert figures.keys() == QUANTILES
                assert 0 <= figures["p50"] <= figures["p99"] <= figures["p999"] <= figures["max"] < 60e6
        assert ops["write"]["latency_us"]["max"] >= ops["write"]["service_us"]["p50"] > 0


def test_threads(daemon: Any) -> None:
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/x", "w") as file:
        file.pwrite(b"x", 0)
        (engine,) = daemon.json("threads")["engines"]
    roles = {thread["role"] for thread in engine["threads"]}
    assert roles == {"main", "worker", "zmq"}
    for thread in engine["threads"]:
        assert thread.keys() == {"tid", "name", "role", "cpus", "state"}
        assert set(thread["cpus"]) <= set(range(os.cpu_count() or 1))
        assert (thread["tid"] == engine["pid"]) == (thread["role"] == "main")
        assert (thread["role"] == "worker") == thread["name"].startswith("aiod-w/main/")


def test_exports_and_clients(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"exports.etc": {"path": "/etc", "read_only": True, "engine": "other"}, "engine.other": {}})
    daemon.start()
    assert {export["name"]: export for export in daemon.json("exports")["exports"]} == {
        "scratch": {
            "name": "scratch", "path": str(daemon.path), "read_only": False, "engine": "main", "state": "serving",
        },
        "etc": {"name": "etc", "path": "/etc", "read_only": True, "engine": "other", "state": "serving"},
    }  # fmt: skip
    with aiod_client.connect(daemon.endpoint) as client:
        with client.open("scratch/x", "w+") as file, client.open("etc/passwd") as passwd:
            file.pwrite(b"data", 0)
            passwd.pread(10, 0)
            clients = {each["engine"]: each for each in daemon.json("clients")["clients"]}
        assert clients.keys() == {"main", "other"}
        for each in clients.values():
            assert (each["pid"], each["uid"], each["handles"], each["inflight"]) == (os.getpid(), os.getuid(), 1, 0)
            assert each["software"].startswith("aiod_client/")
        assert clients["main"]["ops"]["write"]["count"] == 1
        assert clients["main"]["ops"]["write"]["latency_us"].keys() == QUANTILES
        assert clients["other"]["ops"]["read"]["bytes"] == 10
    assert len(daemon.json("stats")["engines"]) == 2


def test_ping_and_version(shared_daemon: Any) -> None:
    ping = shared_daemon.json("ping")
    assert (ping["pid"], ping["version"]) == (shared_daemon.pid, __version__)
    assert shared_daemon.json("version") == {
        "version": __version__,
        "protocol_versions": [1],
        "pid": shared_daemon.pid,
    }


@pytest.mark.parametrize("verb", ["ping", "stats", "threads", "exports", "clients", "version"])
def test_tables_for_people_and_json_on_either_side(shared_daemon: Any, verb: str) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client, client.open("scratch/x", "w") as file:
        file.pwrite(b"x", 0)
        table = shared_daemon.ctl(verb).stdout
        assert table.strip()
        assert not table.startswith("{")
        assert "…" not in table
        assert shared_daemon.ctl(verb, "--json").stdout.startswith("{")


def aiodctl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it alone."""
    command = [sys.executable, "-m", "aiod.ctl", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment
    )


def test_no_daemon_is_status_3() -> None:
    done = aiodctl("ping", AIOD_ENDPOINT="ipc:///tmp/aiod-absent/aiod.sock")
    assert done.returncode == 3
    assert "no daemon reached" in done.stderr
    assert "start aiod" in done.stderr


def test_ping_waits_for_a_daemon_that_comes(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    command = [sys.executable, "-m", "aiod.ctl", "--endpoint", daemon.endpoint, "ping", "--wait", "60"]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE)
    daemon.start()
    assert waiting.wait(60) == 0
    assert waiting.stdout is not None
    assert b"is up for" in waiting.stdout.read()
    waiting.stdout.close()


def test_usage_is_status_2() -> None:
    assert aiodctl("no-such-verb").returncode == 2
    assert aiodctl("--no-such-option", "ping").returncode == 2
    assert aiodctl("--endpoint", "nonsense", "ping").returncode in {1, 2}


def test_help_names_every_verb() -> None:
    shown = aiodctl("--help").stdout
    for verb in ("ping", "stats", "threads", "exports", "clients", "version", "--json", "--endpoint"):
        assert verb in shown
