"""A short soak test; AIOD_SOAK_SECONDS makes it longer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.service.file_systems import run
from tests.soak import blocks
from tests.soak.blocks import Oracle
from tests.soak.failing_disk import NEEDS, failing_disk
from tests.soak.soak import DISK_BYTES, MUST_BE_EMPTY, Soak

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = float(os.environ.get("AIOD_SOAK_SECONDS", "15"))


@pytest.mark.timeout(SECONDS + 120)
def test_nothing_acknowledged_is_lost(disk_path: Path) -> None:
    seed = int.from_bytes(os.urandom(3))
    for command in NEEDS:
        run(command, "--version")
    below, above = disk_path / "below", disk_path / "above"
    below.mkdir()
    above.mkdir()
    with failing_disk(below, DISK_BYTES) as failing:
        report = Soak(above, seed, 4, failing).run(SECONDS, lambda _: None)
    print(f"seed {seed}: {report}")  # noqa: T201 - shown when it fails
    assert [report[what] for what in MUST_BE_EMPTY] == [[]] * len(MUST_BE_EMPTY)
    assert report["requests"] > 0


def test_the_oracle_would_see_it() -> None:
    oracle = Oracle(4)
    assert oracle.check(1, bytes(blocks.BLOCK_BYTES)) == ""
    oracle.acknowledged(1, 7)
    assert "7 was acknowledged" in oracle.check(1, bytes(blocks.BLOCK_BYTES))
    assert oracle.check(1, blocks.make(1, 7)) == ""
    assert "torn" in oracle.check(1, blocks.make(2, 7))
    assert "torn" in oracle.check(1, blocks.make(1, 7)[:-1] + b"x")
    oracle.unknown(1, 8)
    assert oracle.check(1, blocks.make(1, 8)) == oracle.check(1, blocks.make(1, 7)) == ""
    assert "generation 6" in oracle.check(1, blocks.make(1, 6))
