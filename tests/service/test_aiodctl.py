"""aiodctl's output: the JSON keys that programs rely on, tables, exit statuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod import __version__, _core
from aiod.supervisor.mounts import file_system_of
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

POOL_KEYS = {
    "max_threads", "min_threads", "cur_threads", "idle_threads", "new_threads", "pending_threads", "queued",
    "threads_created", "spawn_failures",
}  # fmt: skip
QUANTILES = {"p50", "p90", "p99", "p999", "max"}


def test_stats_has_the_documented_fields(new_daemon: Callable[..., Any]) -> None:
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
    created_for = engine["pool"]["created_for"]
    assert created_for.keys() == {"burst", "min", "retry"}
    assert sum(created_for.values()) == engine["pool"]["threads_created"]
    assert created_for["min"] == 1
    assert engine["pool"]["longest_chain"] >= 1
    assert engine["pool"]["spawn_latency_us"].keys() == QUANTILES
    assert 0 < engine["pool"]["spawn_latency_us"]["p50"] <= engine["pool"]["spawn_latency_us"]["max"] < 60e6
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


def test_threads_lists_roles_and_cpus(daemon: Any) -> None:
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/x", "w") as file:
        file.pwrite(b"x", 0)
        (engine,) = daemon.json("threads")["engines"]
    roles = {thread["role"] for thread in engine["threads"]}
    assert roles == {"main", "worker", "ring maker", "zmq"}
    for thread in engine["threads"]:
        assert thread.keys() == {"tid", "name", "role", "cpus", "state", "astray"}
        assert set(thread["cpus"]) <= set(range(os.cpu_count() or 1))
        assert (thread["tid"] == engine["pid"]) == (thread["role"] == "main")
        assert (thread["role"] == "worker") == thread["name"].startswith("aiod-w/main/")


def test_pool_changes_the_limits_live(new_daemon: Callable[..., Any], wait_until: Callable[..., None]) -> None:
    daemon = new_daemon()
    daemon.start()
    answer = daemon.json("pool", "main", "--min", "3", "--max", "5")
    assert (answer["engine"], answer["pool"]["min_threads"], answer["pool"]["max_threads"]) == ("main", 3, 5)
    wait_until(lambda: daemon.engine["pool"]["idle_threads"] == 3, "min_threads are there")
    assert "min_threads 3, max_threads 9" in daemon.ctl("pool", "main", "--max", "9").stdout
    daemon.ctl("pool", "main", "--min", "0", "--max", "1")
    wait_until(lambda: daemon.engine["pool"]["cur_threads"] == 1, "surplus workers have left")


def test_pool_limits_survive_a_restart_of_the_engine(
    new_daemon: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    daemon = new_daemon()
    daemon.start()
    daemon.ctl("pool", "main", "--min", "2", "--max", "4")
    pid = daemon.engine["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: daemon.engine["state"] == "serving" and daemon.engine["pid"] != pid, "it has been restarted")
    pool = daemon.engine["pool"]
    assert (pool["min_threads"], pool["max_threads"]) == (2, 4)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("main", "--min", "9", "--max", "4"), 1, "min_threads (9) is above max_threads (4)"),
        (("main", "--max", "0"), 1, "max_threads is 0; allowed: 1 to 4096"),
        (("main", "--max", "4097"), 1, "max_threads is 4097; allowed: 1 to 4096"),
        (("main", "--min", "-1"), 1, "min_threads is -1; allowed: 0 to max_threads"),
        (("nothere", "--max", "4"), 1, "there is no engine 'nothere'; the engines are: main"),
        (("main",), 2, "give --min N, --max N, or both"),
        (("main", "--max", "many"), 2, "'many' is not a valid integer"),
    ],
)
def test_pool_refuses_invalid_limits(shared_daemon: Any, arguments: tuple[str, ...], status: int, said: str) -> None:
    before = shared_daemon.engine["pool"]
    refused = shared_daemon.ctl("pool", *arguments, check=False)
    assert refused.returncode == status
    assert said in refused.stderr
    after = shared_daemon.engine["pool"]
    assert (after["min_threads"], after["max_threads"]) == (before["min_threads"], before["max_threads"])


def test_privileged_commands_with_invalid_arguments_are_refused(shared_daemon: Any) -> None:
    with aiod_client.connect(shared_daemon.endpoint) as client:
        for arguments in (
            {},
            {"engine": 7},
            {"engine": "main", "max_threads": "4"},
            {"engine": "main", "min_threads": True},
        ):
            with pytest.raises(OSError, match=r"EINVAL|ENOENT"):
                client.control("pool", arguments)


def asked_by_a_stranger(new_daemon: Callable[..., Any], order: str) -> subprocess.CompletedProcess[str]:
    """Run `order`, a line of Python that uses `client`, as another user; it must fail with PermissionError."""
    if os.getuid() != 0:
        pytest.skip("needs root, to be a stranger")
    daemon = new_daemon()
    daemon.start()
    daemon.runtime_dir.chmod(0o711)
    (daemon.runtime_dir / "aiod.sock").chmod(0o777)
    program = (
        "import os, sys\n"
        "import aiod_client\n"
        "with aiod_client.connect(sys.argv[1]) as client:\n"
        "    client.control('ping')\n"
        "    os.setresuid(65534, 65534, 65534)\n"  # each control() is a connection of its own
        "    print(client.control('ping')['pid'])\n"
        f"    {order}\n"
    )
    command = [sys.executable, "-c", program, daemon.endpoint]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert int(ended.stdout) == daemon.pid
    assert "PermissionError" in ended.stderr
    assert daemon.engine["pool"]["max_threads"] != 1
    return ended


def test_privileged_commands_of_other_users_are_refused(new_daemon: Callable[..., Any]) -> None:
    ended = asked_by_a_stranger(new_daemon, "client.control('pool', {'engine': 'main', 'max_threads': 1})")
    assert "only root and the daemon's own user (uid 0) may do this" in ended.stderr


def test_exports_and_clients_are_listed(new_daemon: Callable[..., Any]) -> None:
    ioctl = {"number": 0x80081272, "bytes": 8}
    etc = {"path": "/etc", "read_only": True, "engine": "other", "direct": True, "ioctls": [ioctl], "io": "threads"}
    missing = -_core.probe_uring()
    reason = f"io_uring is not available: {os.strerror(missing)}" if missing else ""
    in_use = {"io_in_use": "threads" if missing else "uring", "io_reason": reason}
    daemon = new_daemon(**{"exports.etc": etc, "engine.other": {}})
    daemon.start()
    exports = {export["name"]: export for export in daemon.json("exports")["exports"]}
    assert exports["etc"].pop("fs") == file_system_of("/etc")
    assert exports["scratch"].pop("fs") == file_system_of(str(daemon.path))
    assert exports == {
        "scratch": {
            "name": "scratch", "path": str(daemon.path), "read_only": False, "engine": "main", "direct": False,
            "ioctls": [], "state": "serving", "io": "auto", **in_use,
        },
        "etc": {"name": "etc", **etc, "state": "serving", "io": "threads", "io_in_use": "threads", "io_reason": ""},
    }  # fmt: skip
    assert "read-only, direct" in daemon.ctl("exports").stdout
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


def test_handles_lists_open_files(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    daemon.start()
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/a", "w"), client.open("scratch/a"):
        handles = daemon.json("handles")["handles"]
        (client_id,) = (each["id"] for each in daemon.json("clients")["clients"])
        table = daemon.ctl("handles").stdout
    assert sorted((each["readable"], each["writable"]) for each in handles) == [(False, True), (True, False)]
    for each in handles:
        assert (each["client"], each["engine"], each["pid"], each["file"]) == (
            client_id,
            "main",
            os.getpid(),
            "scratch/a",
        )
        assert (each["inflight"], each["append"], each["direct"], each["poisoned"]) == (0, False, False, False)
    assert "scratch/a" in table


def test_handles_requires_control_privileges(new_daemon: Callable[..., Any]) -> None:
    ended = asked_by_a_stranger(new_daemon, "client.control('handles')")
    assert "only root and the daemon's own user (uid 0) may do this" in ended.stderr


def test_ping_and_version_answer(shared_daemon: Any) -> None:
    ping = shared_daemon.json("ping")
    assert (ping["pid"], ping["version"]) == (shared_daemon.pid, __version__)
    assert shared_daemon.json("version") == {
        "version": __version__,
        "protocol_versions": [1],
        "pid": shared_daemon.pid,
    }


@pytest.mark.parametrize("verb", ["ping", "stats", "threads", "exports", "clients", "handles", "version"])
def test_output_is_tables_or_json_with_the_option_before_or_after_the_verb(shared_daemon: Any, verb: str) -> None:
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
        command, capture_output=True, text=True, timeout=scaled(60), check=False, env=os.environ | environment
    )


def test_no_daemon_is_status_3() -> None:
    done = aiodctl("ping", AIOD_ENDPOINT="ipc:///tmp/aiod-absent/aiod.sock")
    assert done.returncode == 3
    assert "no daemon reached" in done.stderr
    assert "start aiod" in done.stderr


def test_ping_waits_for_a_daemon_that_starts(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    command = [sys.executable, "-m", "aiod.ctl", "--endpoint", daemon.endpoint, "ping", "--wait", "60"]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE)
    daemon.start()
    assert waiting.wait(scaled(60)) == 0
    assert waiting.stdout is not None
    assert b"is up for" in waiting.stdout.read()
    waiting.stdout.close()


def test_usage_is_status_2() -> None:
    assert aiodctl("no-such-verb").returncode == 2
    assert aiodctl("--no-such-option", "ping").returncode == 2
    assert aiodctl("--endpoint", "nonsense", "ping").returncode in {1, 2}


def test_help_names_every_verb() -> None:
    shown = aiodctl("--help").stdout
    for verb in ("ping", "stats", "threads", "exports", "clients", "handles", "version", "--json", "--endpoint"):
        assert verb in shown
