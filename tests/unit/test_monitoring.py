"""monitoring/: alert rules and the dashboard ask for metrics that exist, in expressions that Prometheus accepts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine_snapshot import metrics_text, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
NAME = re.compile(r"\baiod_[a-z0-9_]+")


@pytest.fixture(scope="module")
def samples() -> set[str]:
    """Names of all samples of a daemon."""
    return set(NAME.findall(metrics_text(main=snapshot())))


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool here")
    return found


def run(promtool: str, *arguments: str | Path) -> None:
    done = subprocess.run([promtool, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> Iterator[str]:
    """Each query of the dashboard, with values in place of Grafana's variables."""
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    queries += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    for query in queries:
        yield query.replace("$engine", "main").replace("$export", ".*").replace("$__rate_interval", "1m")


def test_the_rules_are_valid_and_pass_their_tests(promtool: str) -> None:
    run(promtool, "check", "rules", "aiod.rules.yml")
    run(promtool, "test", "rules", "aiod.rules.test.yml")


def test_every_alert_has_a_test_with_and_without_the_fault() -> None:
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "aiod.rules.yml").read_text())
    healthy, faulty = (MONITORING / "aiod.rules.test.yml").read_text().split("each fault raises its alert")
    assert len(alerts) == len(set(alerts)) >= 10
    for alert in alerts:
        assert f"alertname: {alert}}}" in healthy
        assert f"alertname: {alert}\n" in faulty


def test_rules_and_dashboard_name_existing_metrics(samples: set[str]) -> None:
    rules = (MONITORING / "aiod.rules.yml").read_text()
    for text in (rules, *expressions()):
        histograms = {name.removesuffix("_bucket") for name in samples if name.endswith("_bucket")}
        assert set(NAME.findall(text)) <= samples | histograms, text


def test_prometheus_accepts_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"q{number}", "expr": query} for number, query in enumerate(expressions())]
    assert len(rules) > 20
    path = tmp_path / "queries.json"  # YAML includes JSON
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", "--lint=none", path)


def test_panels_have_their_own_places() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
