"""python -m benchmarks.dashboard FILE: draw the dashboard of a daemon under load that a real Prometheus scrapes.

It stands for Grafana where that cannot be had: the panels, their places, queries and legends are those of
monitoring/grafana-dashboard.json, and the values are Prometheus's answers.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click

from benchmarks.dashboard import draw, load, prometheus
from benchmarks.own_daemon import own_daemon

_DASHBOARD = Path(__file__).parents[2] / "monitoring" / "grafana-dashboard.json"
_SECTIONS = """
[exports.limited]
path = "{export}"
iops_max = 400
[metrics]
listen = "{target}"
"""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seconds", default=60.0, show_default=True, help="Duration of the load.")
def main(file: Path, seconds: float) -> None:
    """Draw the dashboard of a minute's load into FILE (PNG)."""
    dashboard = json.loads(_DASHBOARD.read_text())
    target = f"127.0.0.1:{prometheus.free_port()}"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as export, tempfile.TemporaryDirectory(dir="/tmp") as runtime:
        for name in ("data", "log", "burst"):
            (Path(export) / name).write_bytes(bytes(1 << 20))
        sections = _SECTIONS.format(export=export, target=target)
        with (
            own_daemon(Path(runtime), Path(export), sections) as daemon,
            prometheus.running(Path(runtime), target) as scraper,
        ):
            began_s = time.time()
            load.run(daemon.endpoint, seconds)
            ended_s = time.time()

            def ask(expression: str) -> draw.Answer:
                filled = expression.replace("$engine", ".*").replace("$export", ".*").replace("$__rate_interval", "4s")
                return scraper.query_range(filled, began_s, ended_s)

            draw.draw(dashboard, ask, file)


if __name__ == "__main__":
    main()
