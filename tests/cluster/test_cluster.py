"""A short cluster soak; AIOD_CLUSTER_SECONDS makes it longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster import gluster, hosts
from tests.cluster.oracle import Oracle
from tests.cluster.soak import MUST_BE_EMPTY, Soak
from tests.soak import blocks

SECONDS = float(os.environ.get("AIOD_CLUSTER_SECONDS", "0"))


@pytest.mark.timeout(SECONDS + 600)
def test_nothing_flushed_is_lost_with_a_host(disk_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("network and mount namespaces need root")
    if lacking := hosts.missing() + gluster.missing():
        pytest.skip(f"missing: {', '.join(lacking)} (scripts/prerequisites.sh test)")
    if not Path("/dev/fuse").exists():
        pytest.skip("no FUSE on this machine")
    try:
        hosts.try_host()
    except hosts.HostError as error:
        pytest.skip(f"this machine cannot be several hosts: {error}")
    report = Soak(disk_path, int.from_bytes(os.urandom(3)), failover=False).run(SECONDS, print)
    print(report)  # noqa: T201 - shown when it fails
    assert [report[what] for what in MUST_BE_EMPTY] == [[]] * len(MUST_BE_EMPTY)
    assert report["flushes"] > 0


def test_the_oracle_would_see_a_lost_flush() -> None:
    oracle = Oracle(2)
    oracle.acknowledged(0, 5)
    assert oracle.flushed() == []
    assert "5 was flushed" in oracle.check(0, bytes(blocks.BLOCK_BYTES))
    oracle.acknowledged(0, 6)
    assert oracle.check(0, blocks.make(0, 6)) == ""
    assert "torn" in oracle.check(0, blocks.make(1, 6))
    assert "never written" in oracle.check(0, blocks.make(0, 7))


def test_the_oracle_wants_an_unflushed_write_that_is_lost_to_be_reported() -> None:
    oracle = Oracle(1)
    oracle.acknowledged(0, 1)
    oracle.flushed()
    oracle.acknowledged(0, 2)
    assert oracle.check(0, blocks.make(0, 1)) == ""
    assert "went back" in oracle.flushed()[0]
    oracle.acknowledged(0, 3)
    assert oracle.check(0, blocks.make(0, 1)) == ""
    oracle.flush_failed()
    assert oracle.flushed() == []


def test_the_oracle_accepts_what_a_reported_loss_leaves() -> None:
    oracle = Oracle(1)
    oracle.acknowledged(0, 1)
    oracle.flushed()
    oracle.acknowledged(0, 2)
    oracle.unknown(0, 3)
    oracle.flush_failed()
    assert oracle.check(0, blocks.make(0, 1)) == ""
    assert oracle.flushed() == []
    oracle.acknowledged(0, 4)
    assert oracle.check(0, blocks.make(0, 3)) == ""
