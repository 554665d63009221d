"""The benchmarks that compile parts of the core by themselves build with the core as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.durable import core_pairs
from benchmarks.rings import fleet
from benchmarks.spawner import variants

_BY_POLICIES = {variant.policies: variant for variant in variants.VARIANTS}
"""Variants with the same policies differ in constants only."""


@pytest.mark.parametrize("variant", _BY_POLICIES.values(), ids=lambda variant: variant.program)
def test_each_policy_of_the_spawner_benchmark_builds(tmp_path: Path, variant: variants.Variant) -> None:
    assert variants.build(variant, tmp_path, "-O0").is_file()


def test_the_benchmark_of_flushes_builds(tmp_path: Path) -> None:
    assert core_pairs.build(tmp_path, "-O0").is_file()


def test_the_benchmark_of_many_rings_builds(tmp_path: Path) -> None:
    assert fleet.build(tmp_path, "-O0").is_file()


def test_the_vcpu_of_bursts_builds() -> None:
    subprocess.run(["make", "--silent", "build/vcpu"], cwd=Path(__file__).parents[2], check=True)
