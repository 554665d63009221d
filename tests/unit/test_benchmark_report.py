"""What the benchmarks do with figures: percentiles, selections of cells, who is ahead, and the page that is written."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.latency import bucket_ns, merged, percentiles_us
from benchmarks.matrix import cells, reading, report
from benchmarks.matrix.run import with_ratios


@given(st.integers(min_value=0, max_value=1 << 60))
def test_a_bucket_is_at_most_one_part_in_64_too_low(nanoseconds: int) -> None:
    assert bucket_ns(nanoseconds) <= nanoseconds <= bucket_ns(nanoseconds) * 65 / 64 + 1


def test_percentiles_are_those_of_all_clients_together() -> None:
    together = merged([Counter({1000: 90}), Counter({2000: 9, 5000: 1})])
    assert percentiles_us(together, (0.5, 0.9, 0.99, 0.999, 1.0)) == [1, 1, 2, 5, 5]


def test_nothing_has_no_percentiles() -> None:
    assert percentiles_us(Counter(), (0.5,)) == []


@pytest.mark.parametrize("selection", ["few", "some", "all"])
def test_each_cell_has_a_key_of_its_own(selection: str) -> None:
    everything, curves = cells.selected(selection)
    assert len({cell.key for cell in everything}) == len(everything)
    assert all(cell in everything for ones in curves.values() for cell in ones)


def figures(rate: float, spread: float = 0.0, **more: float) -> dict[str, Any]:
    return {"rate": rate, "bytes_rate": rate * 4096, "spread": {"rate": spread}, "cdf_us": [], **more}


def one_cell(**contenders: dict[str, Any]) -> dict[str, Any]:
    named = {name.replace("_", " "): ones for name, ones in contenders.items()}
    aiod = {"aiod, ring": figures(100.0, p50_us=10.0)}
    with_ratios(aiod | named)
    return {"key": "a cell", "contenders": aiod | named}


def test_with_aiod_first_in_the_dictionary_a_faster_peer_leads() -> None:
    cell = one_cell(fio=figures(200.0, p50_us=5.0), slow=figures(50.0), level=figures(102.0))
    (lead,) = reading.leads([cell])
    assert (lead.peer, lead.rate_of_aiod, lead.p50_of_aiod, lead.within_spread) == ("fio", 2.0, 0.5, False)


def test_rounds_that_overlap_are_said_to() -> None:
    (lead,) = reading.leads([one_cell(fio=figures(110.0, spread=0.4))])
    assert lead.within_spread


def test_a_peer_that_failed_is_neither_ahead_nor_behind() -> None:
    cell = one_cell(broken={"not_available": "not installed: apt-get install broken"}, fast=figures(300.0))
    assert reading.standing([cell]) == {"fast": (0, 0, 1)}


def test_where_aiod_failed_nobody_is_compared() -> None:
    contenders = {"aiod, ring": {"not_available": "it did not start"}, "fio": figures(100.0)}
    with_ratios(contenders)
    assert reading.leads([{"key": "a cell", "contenders": contenders}]) == []


def document(cell: dict[str, Any]) -> dict[str, Any]:
    return {
        "settings": {"selection": "few", "rounds": 3, "seconds": 0.2, "took_s": 120, "date": "2026-01-01"},
        "machine": {"cpus": 2, "cpu": "a CPU", "kernel": "6", "python": "3.11", "versions": {"fio": None}},
        "cells": [cell],
        "curves": {},
    }


def test_the_report_names_machine_command_leads_and_failures() -> None:
    cell = one_cell(fio=figures(200.0), broken={"not_available": "not installed: apt-get install broken"})
    text = report.generate(document(cell))
    assert "make bench CELLS=few" in text
    assert "fio not installed" in text
    assert "| a cell | fio | 2.00 |" in text
    assert "* a cell: broken: not installed: apt-get install broken" in text
    assert "| broken | failed |" in text
