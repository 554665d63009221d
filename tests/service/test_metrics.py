"""The metrics of a real daemon: by HTTP, by aiodctl, and scraped by a real Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import freeze

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MONITORING = Path(__file__).parents[2] / "monitoring"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def served(new_daemon: Callable[..., Any], port: int) -> Any:
    """A daemon that serves metrics at `port`."""
    daemon = new_daemon(metrics={"listen": f"127.0.0.1:{port}"})
    daemon.start()
    return daemon


def scrape(port: int, accept: str = "", path: str = "/metrics", method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def value(text: str, sample: str) -> float:
    (found,) = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == sample]
    return float(found)


WRITES = 'aiod_requests_total{engine="main",export="scratch",op="write",transport="ring"}'


def test_requests_are_counted(served: Any, port: int) -> None:
    with (
        aiod_client.connect(served.endpoint, transport="ring") as client,
        client.open("scratch/x", "w+") as file,
    ):
        for number in range(10):
            file.pwrite(b"0123456789", 10 * number)
        file.flush()
        status, kind, text = scrape(port)
        assert (status, kind.partition(";")[0]) == (200, "text/plain")
        assert value(text, WRITES) == 10
        assert value(text, 'aiod_written_bytes_total{engine="main",export="scratch"}') == 100
        assert value(text, 'aiod_flush_group_size_count{engine="main"}') == 1
        assert value(text, 'aiod_request_duration_seconds_sum{engine="main",op="write"}') > 0
        assert value(text, 'aiod_request_duration_seconds_bucket{engine="main",le="+Inf",op="write"}') == 10
        assert value(text, 'aiod_open_files{engine="main"}') == 1
        assert value(text, 'aiod_engine_up{engine="main"}') == 1
        assert "process_resident_memory_bytes" in text
        assert scrape(port, OPENMETRICS)[2].endswith("# EOF\n")
        printed = served.ctl("metrics").stdout
        assert value(printed, WRITES) == 10
    assert str(os.getpid()) not in {word for line in text.splitlines() if "{" in line for word in line.split('"')}


def test_exports_errnos_and_transports_are_told_apart(daemon: Any) -> None:
    for transport in ("zmq", "ring"):
        with (
            aiod_client.connect(daemon.endpoint, transport=transport) as client,
            client.open("scratch/x", "w") as file,
        ):
            file.pwrite(b"x", 0)
            with pytest.raises(FileNotFoundError):
                client.open("scratch/missing", "r")
    text = daemon.ctl("metrics").stdout
    assert value(text, 'aiod_requests_total{engine="main",export="scratch",op="open",transport="ipc"}') == 2
    assert value(text, 'aiod_requests_total{engine="main",export="scratch",op="open_writable",transport="ring"}') == 1
    assert value(text, 'aiod_requests_total{engine="main",export="scratch",op="open_file",transport="ring"}') == 1
    for op in ("open", "open_file"):
        assert value(text, f'aiod_request_errors_total{{engine="main",errno="ENOENT",export="scratch",op="{op}"}}') == 1
        assert value(text, f'aiod_request_errors_total{{engine="main",errno="EIO",export="scratch",op="{op}"}}') == 0
    writes = 'engine="main",export="scratch",op="write"'
    for transport in ("ipc", "ring"):
        assert value(text, f'aiod_requests_total{{{writes},transport="{transport}"}}') == 1


def test_other_paths_and_methods_are_refused(served: Any, port: int) -> None:
    assert served.pid
    assert scrape(port, path="/")[0] == 404
    assert scrape(port, method="POST")[0] == 405
    status, _, body = scrape(port, method="HEAD")
    assert (status, body) == (200, "")


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET /metrics\r\n\r\n", b"\x00\xff\r\n\r\n", b"x" * 100_000])
def test_malformed_requests_end_their_connection_only(served: Any, port: int, sent: bytes) -> None:
    assert served.pid
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(sent)
        connection.recv(1000)
    assert scrape(port)[0] == 200


def test_silent_connections_are_bounded(served: Any, port: int) -> None:
    """Those above the limit are closed at once; when the silent ones have gone, it serves again."""
    silent = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(16)]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one_more, contextlib.suppress(ConnectionError):
        assert one_more.recv(1) == b""
    for connection in silent:
        connection.close()
    assert served.ctl("metrics").stdout
    assert scrape_when_free(port) == 200


def scrape_when_free(port: int) -> int:
    """The daemon notices the end of connections a moment later."""
    while True:
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            return scrape(port)[0]


def test_a_stopped_engine_is_down_and_the_others_are_shown(new_daemon: Callable[..., Any], port: int) -> None:
    daemon = new_daemon(
        **{
            "": {"watchdog_s": 0.0},
            "metrics": {"listen": f"127.0.0.1:{port}"},
            "exports.etc": {"path": "/etc", "read_only": True, "engine": "b"},
            "engine.b": {},
        }
    )
    daemon.start()
    pid = next(engine["pid"] for engine in daemon.json("stats")["engines"] if engine["name"] == "b")
    freeze(pid)
    try:
        text = scrape(port)[2]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert value(text, 'aiod_engine_up{engine="b"}') == 0
    assert value(text, 'aiod_engine_up{engine="main"}') == 1
    assert 'aiod_sessions{engine="b"}' not in text


def test_scrapes_at_the_same_time_are_all_answered(served: Any, port: int) -> None:
    assert served.pid
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(scrape(port)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8


def test_a_unix_socket_serves_and_is_removed(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon()
    path = daemon.runtime_dir / "metrics.sock"
    daemon.write_config({"metrics": {"listen": str(path)}})
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    daemon.start()
    assert path.stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        with connection.makefile("rb") as answer:
            assert b"aiod_build_info" in answer.read()
    assert daemon.stop() == 0
    assert not path.exists()


def test_a_port_in_use_is_reported(new_daemon: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = new_daemon(metrics={"listen": f"127.0.0.1:{taken.getsockname()[1]}"})
        daemon.start(wait=False)
        assert daemon.process.wait(60) == 1
    daemon.wait_logged("metrics.listen: 127.0.0.1:")


@pytest.fixture
def prometheus(disk_path: Path, port: int) -> Iterator[str]:
    """The address of a Prometheus that scrapes `port` every second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus here")
    config = disk_path / "prometheus.json"  # YAML includes JSON
    job = {"job_name": "aiod", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    rules = [str(MONITORING / "aiod.rules.yml")]
    config.write_text(
        json.dumps({"global": {"evaluation_interval": "1s"}, "rule_files": rules, "scrape_configs": [job]})
    )
    address = f"127.0.0.1:{free_port()}"
    command = [
        program, f"--config.file={config}", f"--storage.tsdb.path={disk_path}/tsdb", f"--web.listen-address={address}",
    ]  # fmt: skip
    with (disk_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    yield f"http://{address}"
    process.terminate()
    process.wait(60)


def get(prometheus: str, path: str) -> Any:
    """The data of an answer; None while it starts."""
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/{path}", timeout=30) as answer:  # noqa: S310
            return json.load(answer)["data"]
    except OSError:
        return None


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """Its present result; [] while it starts."""
    data = get(prometheus, "query?" + urllib.parse.urlencode({"query": expression}))
    return data["result"] if data is not None else []


def rules_are_evaluated(prometheus: str) -> bool:
    rules = [rule for group in get(prometheus, "rules")["groups"] for rule in group["rules"]]
    return len(rules) > 10 and all(rule["health"] == "ok" for rule in rules)


def instant(expression: str) -> str:
    """A query of the dashboard, with values in place of Grafana's variables."""
    return expression.replace("$engine", ".*").replace("$export", ".*").replace("$__rate_interval", "30s")


def test_a_real_prometheus_scrapes_it(served: Any, prometheus: str, wait_until: Callable[..., None]) -> None:
    with (
        aiod_client.connect(served.endpoint, transport="ring") as client,
        client.open("scratch/x", "w+") as file,
    ):
        file.pwrite(b"x", 0)
        file.flush()
        wait_until(lambda: query(prometheus, 'aiod_requests_total{op="flush"}'), "a scrape", timeout_s=60)
    (up,) = query(prometheus, 'up{job="aiod"}')
    assert up["value"][1] == "1"
    (written,) = query(prometheus, 'aiod_requests_total{op="write"}')
    assert (written["metric"]["export"], written["metric"]["transport"], written["value"][1]) == (
        "scratch",
        "ring",
        "1",
    )
    wait_until(lambda: rules_are_evaluated(prometheus), "the alert rules", timeout_s=60)
    panels = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
    wait_until(lambda: query(prometheus, "rate(aiod_requests_total[30s])"), "two scrapes", timeout_s=60)
    empty = {
        target["expr"]
        for panel in panels
        for target in panel.get("targets", [])
        if not query(prometheus, instant(target["expr"]))
    }
    assert all("> 0" in expression or "user!=" in expression for expression in empty)  # no errors, and no users' rates
    (groups,) = query(prometheus, "aiod_flush_group_size_count")
    assert groups["value"][1] == "1"
    (failed,) = query(prometheus, 'sum(aiod_request_errors_total{export="scratch",errno="EIO"})')
    assert failed["value"][1] == "0"
    (buckets,) = query(prometheus, 'count(aiod_request_duration_seconds_bucket{op="write"})')
    assert buckets["value"][1] == "26"
