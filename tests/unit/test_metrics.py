"""Metrics: exact histograms, and labels from the configuration only."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from aiod.config import ConfigError, make_config
from aiod.supervisor import metrics
from tests.unit.engine_snapshot import metrics_text as text
from tests.unit.engine_snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SUB_COUNT = 32


def core_upper(value: int) -> int:
    """The highest value of the core's bucket of `value`, as util/histogram.c computes it."""
    if value < SUB_COUNT:
        return value
    shift = value.bit_length() - 6
    return (((value >> shift) + 1) << shift) - 1


@given(st.lists(st.integers(0, 60 * 10**9), max_size=100))
def test_every_border_counts_exactly_the_values_up_to_it(values: list[int]) -> None:
    histogram = [[core_upper(value), 1] for value in values]
    found = metrics.buckets(histogram)
    assert [float(border) for border, _ in found] == [*(b / 1e9 for b in metrics.BORDERS_NS), float("inf")]
    for (_, count), border_ns in zip(found, metrics.BORDERS_NS, strict=False):
        assert count == sum(value <= border_ns for value in values)
    assert found[-1][1] == len(values)


def test_a_border_is_the_highest_value_of_a_bucket_of_the_core() -> None:
    assert all(core_upper(border) == border for border in metrics.BORDERS_NS)


def test_borders_reach_from_a_microsecond_to_ten_seconds() -> None:
    assert 1000 < metrics.BORDERS_NS[0] < 1100
    assert metrics.BORDERS_NS[-2] < 10 * 10**9 < metrics.BORDERS_NS[-1]


def test_promtool_finds_no_fault() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text(main=snapshot()), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


parsed: Callable[[str], Iterator[Any]] = text_string_to_metric_families


def test_openmetrics_is_parsed_and_has_only_allowed_labels() -> None:
    shown = text(OPENMETRICS, main=snapshot(), other=None)
    assert shown.endswith("# EOF\n")
    families = {family.name: family for family in parsed(shown)}
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}
    assert labels <= {
        "engine", "export", "user", "op", "transport", "errno", "state", "cause", "le", "version"
    }  # fmt: skip
    values = {(sample.name, *sample.labels.values()): sample.value for f in families.values() for sample in f.samples}
    assert values["aiod_engine_up", "main"] == 1
    assert values["aiod_engine_up", "other"] == 0
    assert values["aiod_engine_restarts_total", "other"] == 2
    assert values["aiod_poisoned_files", "main"] == 1
    assert values["aiod_requests_total", "main", "disk", "write", "ring"] == 900
    assert values["aiod_requests_total", "main", "", "read", "tcp"] == 100
    assert values["aiod_request_errors_total", "main", "ENOSPC", "disk", "write"] == 2
    assert values["aiod_request_errors_total", "main", "other", "disk", "write"] == 1
    assert values["aiod_request_errors_total", "main", "EIO", "disk", "write"] == 0  # so that a rate sees the first one
    assert values["aiod_written_bytes_total", "main", "disk"] == 4096000
    assert values["aiod_throttled_seconds_total", "main", "disk"] == 1.5
    assert values["aiod_throttled_seconds_total", "main", "alice"] == 2.5
    assert ("aiod_throttled_seconds_total", "main", "") not in values
    assert values["aiod_flush_group_size_bucket", "main", "2.0"] == 4
    assert values["aiod_flush_group_size_count", "main"] == 5
    assert values["aiod_flush_group_size_sum", "main"] == 4101
    assert values["aiod_request_duration_seconds_sum", "main", "read"] == 3.21
    assert values["aiod_threads", "main", "stuck"] == 1
    assert values["aiod_threads", "main", "active"] == 4
    assert values["aiod_request_duration_seconds_count", "main", "read"] == 1000
    assert ("aiod_request_duration_seconds_count", "main", "flush") not in values
    assert ("aiod_requests_in_flight", "other") not in values


def config(listen: str) -> Any:
    return make_config({"runtime_dir": "/run/x", "exports": {"a": {"path": "/a"}}, "metrics": {"listen": listen}}, "F")


@pytest.mark.parametrize("listen", ["", "127.0.0.1:15570", "[::1]:1", "*:65535", "localhost:15570", "/run/aiod/m.sock"])
def test_places_to_listen(listen: str) -> None:
    assert config(listen).metrics.listen == listen


@pytest.mark.parametrize(
    ("listen", "said"),
    [("15570", "HOST:PORT"), ("host:99999", "at most 65535"), ("relative/path", "HOST:PORT"), ("/" + "x" * 107, "107")],
)
def test_wrong_places_are_refused(listen: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(listen)


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert config("").metrics.listen == ""
    with pytest.raises(ConfigError, match=r"prometheus-client: pip install 'aiod-io\[daemon,metrics\]'"):
        config("127.0.0.1:15570")
