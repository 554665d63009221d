"""A Prometheus of its own that scrapes one address every second, and its answers to queries."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_S: Final = 60.0


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """A running Prometheus."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query_range(self, expression: str, start_s: float, end_s: float) -> list[dict[str, Any]]:
        """The series of `expression`, with a value for each second."""
        asked = {"query": expression, "start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": "1"}
        return self._get("query_range?" + urllib.parse.urlencode(asked))["data"]["result"]  # type: ignore[no-any-return]

    def wait(self) -> None:
        """Until it answers. Raises TimeoutError."""
        end_s = time.monotonic() + _START_S
        while time.monotonic() < end_s:
            try:
                self._get("query?query=1")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            else:
                return
        raise TimeoutError("Prometheus does not answer")

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)


@contextmanager
def running(directory: Path, target: str) -> Iterator[Prometheus]:
    """Run it with its data in `directory`; it scrapes `target`. Raises FileNotFoundError if it is not installed."""
    program = shutil.which("prometheus")
    if program is None:
        raise FileNotFoundError("prometheus: apt-get install prometheus")
    job = {"job_name": "aiod", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    config = directory / "prometheus.json"  # YAML includes JSON
    config.write_text(json.dumps({"scrape_configs": [job]}))
    address = f"127.0.0.1:{free_port()}"
    command = [
        program, f"--config.file={config}", f"--storage.tsdb.path={directory}/tsdb", f"--web.listen-address={address}",
    ]  # fmt: skip
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        prometheus = Prometheus(address)
        prometheus.wait()
        yield prometheus
    finally:
        process.terminate()
        process.wait()
