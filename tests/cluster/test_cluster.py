"""Locks between hosts, a split, and a short cluster soak; AIOD_CLUSTER_SECONDS makes it longer."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.cluster import gluster, hosts
from tests.cluster.oracle import Oracle
from tests.cluster.soak import MUST_BE_EMPTY, Cluster, Soak, cluster_in
from tests.conftest import kill, wait_until
from tests.patience import scaled
from tests.service.locking import is_free
from tests.soak import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = float(os.environ.get("AIOD_CLUSTER_SECONDS", "0"))


LONG_S = scaled(120.0)

pytestmark = pytest.mark.timeout(SECONDS + 600)


@pytest.fixture(scope="module", name="cluster")
def cluster_fixture() -> Iterator[Cluster]:
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
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    try:
        with cluster_in(base) as cluster:
            yield cluster
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def clients(cluster: Cluster) -> Iterator[list[aiod_client.Client]]:
    """A client of each aiod host, on that host, when all hosts are well."""
    cluster.storage.wait_healed()
    for server in cluster.servers:
        cluster.storage.wait_connected(server.host, server.point)
    made = [
        aiod_client.connect(server.daemon.endpoint, timeout=LONG_S, reconnect_timeout=LONG_S)
        for server in cluster.servers
    ]
    yield made
    for client in made:
        client.close()


def settles(call: Callable[[], object], *, known: set[int]) -> None:
    """Wait until it succeeds; until then it may fail with these errnos only."""

    def succeeds() -> bool:
        try:
            call()
        except OSError as error:
            if error.errno not in known:
                raise
            return False
        return True

    wait_until(succeeds, "it succeeds", LONG_S)


def test_a_lock_holds_between_hosts_and_is_regained_from_a_dead_engine(
    cluster: Cluster, clients: list[aiod_client.Client]
) -> None:
    file, far = clients[0].open("shared/locked", "w+"), clients[1].open("shared/locked", "r+")
    with file.lock(length=10) as lock:
        for exclusive in (True, False):
            assert not is_free(far, exclusive=exclusive)
        assert is_free(far, offset=10)
        assert "user.aiod.locks" in os.listxattr(cluster.base / "storage1" / "brick" / "data" / "locked")
        kill(cluster.servers[0].daemon.engine["pid"])
        file.size()
        assert not lock.lost
        assert not is_free(far)
        file.pwrite(b"mine", 0)
    with far.lock(timeout=LONG_S):
        assert far.pread(4, 0) == b"mine"


def test_a_host_that_was_cut_off_has_lost_its_locks(cluster: Cluster, clients: list[aiod_client.Client]) -> None:
    """GlusterFS drops them, and gives up the open file (strict-locks): the daemon opens it again, and fences it."""
    file, far = clients[0].open("shared/fenced", "w+"), clients[1].open("shared/fenced", "r+")
    beside = clients[0].open("shared/beside", "w+")
    file.pwrite(b"mine....", 0)
    file.flush()
    lock = file.lock()
    cluster.servers[0].host.cut()
    try:
        (late,) = file.submit([("write", b"late", 4)])
        with far.lock(timeout=LONG_S):
            far.pwrite(b"theirs", 0)
    finally:
        cluster.servers[0].host.mend()
    with pytest.raises(OSError, match="shared/fenced") as failed:
        late.result(LONG_S)
    assert failed.value.errno in {errno.EIO, errno.ENOTCONN}
    cluster.storage.wait_connected(cluster.servers[0].host, cluster.servers[0].point)
    with pytest.raises(aiod_client.LockLostError):
        file.pwrite(b"later", 0)
    beside.pwrite(b"has no locks", 0)
    with pytest.raises(aiod_client.LockLostError), lock:
        pass
    assert lock.lost
    settles(file.lock, known={errno.EBADFD})
    assert file.pread(8, 0) == far.pread(8, 0) == b"theirs.."
    assert not is_free(far)
    file.close()


def test_clients_of_a_split_get_no_wrong_data(cluster: Cluster, clients: list[aiod_client.Client]) -> None:
    """One storage host and one aiod host are cut from the others: only the majority writes; then handles continue."""
    here, there = (
        [client.open(f"shared/{name}", mode) for name in ("kept", "gone")]
        for client, mode in zip(clients, ("w+", "r+"), strict=True)
    )
    for file in here:
        file.pwrite(b"before", 0)
        file.flush()
    minority = [cluster.storage.hosts[0], cluster.servers[0].host]
    majority = [*cluster.storage.hosts[1:], cluster.servers[1].host]
    for one in minority:
        for other in majority:
            one.separate(other)
    try:
        for request in (lambda: here[0].pwrite(b"wrong!", 0), lambda: here[0].pread(6, 0), lambda: here[0].pread(6, 0)):
            with pytest.raises(OSError, match="reaches too few of its servers") as failed:
                request()
            assert failed.value.errno == errno.ENOTCONN
        settles(lambda: there[0].pwrite(b"during", 0), known={errno.ENOTCONN})
        there[0].flush()
        clients[1].remove("shared/gone")
        clients[1].write_file("shared/gone", b"another")
    finally:
        for one in minority:
            for other in majority:
                one.join(other)
    settles(lambda: here[0].pread(6, 0), known={errno.ENOTCONN})
    assert here[0].pread(6, 0) == b"during"
    here[0].pwrite(b"after ", 0)
    here[0].flush()
    assert there[0].pread(6, 0) == b"after "
    with pytest.raises(OSError, match="shared/gone") as failed:
        here[1].pread(6, 0)
    assert failed.value.errno in {errno.EBADFD, errno.ESTALE}
    assert clients[0].read_file("shared/gone") == b"another"
    cluster.storage.wait_healed()
    assert cluster.storage.compare()[1] == []


def test_nothing_flushed_is_lost_with_a_host(cluster: Cluster) -> None:
    """Last of all: it takes the cluster down."""
    report = Soak(cluster, int.from_bytes(os.urandom(3)), failover=False).run(SECONDS, print)
    print(report)  # noqa: T201 - shown when it fails
    assert [report[what] for what in MUST_BE_EMPTY] == [[]] * len(MUST_BE_EMPTY)
    assert report["flushes"] > 0


class NoStorage:
    """Storage hosts that hold a lock."""

    def locks(self) -> list[str]:
        """One."""
        return ["storage1: /data/0 active, of mount f2f53fff"]


def test_a_run_that_ends_early_tells_why(tmp_path: Path) -> None:
    nothing: Any = None
    storage: Any = NoStorage()
    told: list[str] = []
    soak = Soak(Cluster(tmp_path, nothing, storage, []), 1, failover=True)
    with pytest.raises(OSError, match="a reason"), soak._told_if_it_ends_early(told.append):
        raise OSError("a reason")
    assert "a reason" in told[0]
    assert "lock at storage1: /data/0 active" in told[-1]


def test_the_locks_of_a_dump_are_read() -> None:
    dump = """
path=/data/0
inodelk-count=2
inodelk.inodelk[0](ACTIVE)=type=WRITE, start=0, len=0, pid = 108, connection-id=CTX_ID:6e1b5a64-2c26-4852, granted at x
inodelk.inodelk[1](BLOCKED)=type=WRITE, start=0, len=0, pid = 51, connection-id=CTX_ID:f2f53fff-3acc-4802, blocked at x
path=/data/1
inodelk-count=0
"""
    assert [*gluster.locks_in(dump)] == [
        "/data/0 active, of mount 6e1b5a64",
        "/data/0 blocked, of mount f2f53fff",
    ]


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
