"""Two daemons over one directory stand for two hosts: locks hold between them, and fence what a dead one left."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import aiod_client
from tests.conftest import Daemon, freeze, kill, wait_until
from tests.patience import rounds, scaled
from tests.service.locking import is_free

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_S = scaled(60.0)


class Hosts:
    """Two daemons that export the same directory, and a front endpoint that is moved from one to the other."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.path = base / "shared"
        self.path.mkdir()
        self.hosts = []
        for name in "ab":
            (base / name).mkdir()
            sections = {
                "exports.scratch": {"path": str(self.path)},
                "sessions": {"heartbeat_s": 0.5, "session_timeout_s": 2.0},
            }
            self.hosts.append(Daemon(base / name, **sections))
        self.link = base / "front.sock"

    @property
    def moving(self) -> str:
        """The endpoint of the host that the clients find."""
        return f"ipc://{self.link}"

    def renew(self) -> None:
        """Both run, and clients find the first one."""
        for host in self.hosts:
            host.renew()
        self.move(0)

    def move(self, number: int) -> None:
        """Have clients find that host from now on."""
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(self.hosts[number].runtime_dir / "aiod.sock")

    def nowhere(self) -> None:
        """Have clients find no host."""
        self.link.unlink()

    def pids(self, number: int) -> list[int]:
        """Of a host's daemon: the engine goes first, so that it has nobody who could replace it."""
        host = self.hosts[number]
        return [host.pid, host.engine["pid"]]

    def destroy(self, pids: list[int]) -> None:
        """The host dies: everything at once."""
        for pid in pids:
            kill(pid)
        self.hosts[0].process.wait()  # type: ignore[union-attr]


@pytest.fixture(scope="module", name="_two")
def two_fixture() -> Iterator[Hosts]:
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    made = Hosts(base)
    yield made
    for host in made.hosts:
        host.destroy()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def hosts(_two: Hosts) -> Hosts:
    """As new."""
    _two.renew()
    return _two


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport: both, for a test that is marked so."""
    return getattr(request, "param", "auto")


by_both = pytest.mark.parametrize("transport", ["zmq", "ring"], indirect=True)


def connect(endpoint: str, transport: Any = "auto") -> aiod_client.Client:
    return aiod_client.connect(endpoint, transport=transport, timeout=LONG_S, reconnect_timeout=LONG_S)


@pytest.fixture
def moving(hosts: Hosts, transport: Any) -> Iterator[aiod_client.Client]:
    """A client that continues with the other host."""
    with connect(hosts.moving, transport) as client:
        yield client


@pytest.fixture
def other(hosts: Hosts) -> Iterator[aiod_client.Client]:
    """A client of the second host."""
    with connect(hosts.hosts[1].endpoint) as client:
        yield client


def test_a_lock_holds_between_hosts(moving: aiod_client.Client, other: aiod_client.Client) -> None:
    file, far = moving.open("scratch/f", "w+"), other.open("scratch/f", "r+")
    with ThreadPoolExecutor() as threads:
        with file.lock(length=10):
            assert not is_free(far)
            assert is_free(far, offset=10)
            waits = threads.submit(far.lock, exclusive=False)
        waits.result(LONG_S).unlock()


@by_both
def test_a_write_in_doubt_is_repeated_under_a_regained_lock(hosts: Hosts, moving: aiod_client.Client) -> None:
    """The host dies with a write that it may or may not have done; the other one does it, and says so."""
    before = hosts.hosts[1].engine["locks"]["regained"]
    file = moving.open("scratch/f", "w+")
    with file.lock(offset=100, length=100) as lock:
        pids = hosts.pids(0)
        freeze(pids[1])
        write, outside, append = file.submit([("write", b"mine", 100), ("write", b"mine", 199), ("append", b"x")])
        hosts.move(1)
        hosts.destroy(pids)
        assert write.result(LONG_S) == len(b"mine")
        for request in (outside, append):
            with pytest.raises(OSError, match="unknown whether done"):
                request.result(LONG_S)
        assert not lock.lost
        assert file.pread(4, 100) == b"mine"
        assert hosts.hosts[1].engine["locks"]["regained"] == before + 1
    assert (hosts.path / "f").read_bytes()[100:104] == b"mine"


def test_without_a_lock_a_write_in_doubt_is_not_repeated(hosts: Hosts, moving: aiod_client.Client) -> None:
    """Nor with a shared one, of which others may have written."""
    file = moving.open("scratch/f", "w+")
    with file.lock(exclusive=False):
        pids = hosts.pids(0)
        freeze(pids[1])
        (write,) = file.submit([("write", b"mine", 0)])
        hosts.move(1)
        hosts.destroy(pids)
        with pytest.raises(OSError, match="unknown whether done") as failed:
            write.result(LONG_S)
        assert failed.value.errno == errno.EIO
        assert file.pwrite(b"mine", 0) == len(b"mine")


def test_a_lock_that_another_client_had_in_between_is_lost(
    hosts: Hosts, moving: aiod_client.Client, other: aiod_client.Client
) -> None:
    """The write in doubt does not overwrite what the other client wrote under the lock; nor does a new one."""
    file, far = moving.open("scratch/f", "w+"), other.open("scratch/f", "r+")
    lock = file.lock(length=10)
    pids = hosts.pids(0)
    freeze(pids[1])
    (write,) = file.submit([("write", b"mine", 0)])
    hosts.nowhere()
    hosts.destroy(pids)
    with far.lock(offset=2, length=1, timeout=LONG_S):
        far.pwrite(b"theirs", 0)
    hosts.move(1)
    with pytest.raises(aiod_client.LockLostError, match="unknown whether done"):
        write.result(LONG_S)
    assert lock.lost
    for request in (lambda: file.pwrite(b"mine", 0), lambda: file.pread(4, 0)):
        with pytest.raises(aiod_client.LockLostError):
            request()
    lock.unlock()
    assert file.pread(6, 0) == b"theirs"
    with file.lock():
        file.pwrite(b"mine", 0)


def test_a_lock_beside_others_is_not_lost(hosts: Hosts, moving: aiod_client.Client, other: aiod_client.Client) -> None:
    file, far = moving.open("scratch/f", "w+"), other.open("scratch/f", "r+")
    with file.lock(length=10) as lock:
        pids = hosts.pids(0)
        hosts.nowhere()
        hosts.destroy(pids)
        with far.lock(offset=10, length=10):
            hosts.move(1)
            assert file.pwrite(b"mine", 0) == len(b"mine")
        with far.lock(exclusive=False, offset=10):
            assert not lock.lost


def test_a_frozen_host_keeps_its_locks_until_it_dies(hosts: Hosts, moving: aiod_client.Client) -> None:
    """It may still carry out what it has: so the client's next host waits for the lock, and repeats nothing before."""
    file = moving.open("scratch/f", "w+")
    with file.lock() as lock:
        pids = hosts.pids(0)
        for pid in pids:
            freeze(pid)
        (write,) = file.submit([("write", b"mine", 0)])
        hosts.move(1)
        wait_until(lambda: hosts.hosts[1].engine["locks"]["waiting"] == 1, "the next host waits for the lock")
        assert not write.done()
        assert not (hosts.path / "f").read_bytes()
        hosts.destroy(pids)
        assert write.result(LONG_S) == len(b"mine")
        assert not lock.lost


def test_a_host_that_lost_its_client_gives_the_lock_back(hosts: Hosts, moving: aiod_client.Client) -> None:
    """The session that the client has left holds the lock for session_timeout_s; the client gets it from there."""
    file = moving.open("scratch/f", "w+")
    with file.lock() as lock:
        pids = hosts.pids(0)
        freeze(pids[0])
        freeze(pids[1])
        (write,) = file.submit([("write", b"mine", 0)])
        hosts.move(1)
        wait_until(lambda: hosts.hosts[1].engine["locks"]["waiting"] == 1, "the next host waits for the lock")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert write.result(LONG_S) == len(b"mine")
        assert not lock.lost
        assert file.pread(4, 0) == b"mine"


@pytest.mark.parametrize("frozen", [False, True], ids=["dead", "frozen"])
def test_a_client_of_several_daemons_takes_its_locks_along(hosts: Hosts, *, frozen: bool) -> None:
    """A host that is frozen has the lock until it goes on, and ends the session: what it was sent comes to nothing."""
    first, second = (host.endpoint for host in hosts.hosts)
    with connect(first) as early:  # the first host may be in its grace period, and answer later than `host_timeout`
        early.stat("scratch")
    with aiod_client.connect(
        f"{first},{second}", prefer=first, timeout=LONG_S, reconnect_timeout=LONG_S, host_timeout=scaled(4.0)
    ) as client:
        file = client.open("scratch/f", "w+")
        assert client.endpoint == first
        with file.lock(length=100) as lock:
            pids = hosts.pids(0)
            for pid in pids:
                freeze(pid)
            write, outside = file.submit([("write", b"mine", 0), ("write", b"mine", 100)])
            if frozen:
                wait_until(lambda: hosts.hosts[1].engine["locks"]["waiting"] == 1, "the next host waits for the lock")
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
            else:
                hosts.destroy(pids)
            assert write.result(LONG_S) == len(b"mine")
            with pytest.raises(OSError, match="unknown whether done"):
                outside.result(LONG_S)
            assert client.endpoint == second
            assert not lock.lost
            assert file.pread(4, 0) == b"mine"


OWNERS: Final = 4
BYTES: Final = 16


class _Model:
    """The locks that are held, by owner: {(first, last): exclusive}."""

    def __init__(self) -> None:
        self.held: list[dict[tuple[int, int], bool]] = [{} for _ in range(OWNERS)]

    def expected(self, me: int, first: int, last: int, *, exclusive: bool) -> int:
        """The errno of a request that does not wait; 0: it is granted."""

        def overlaps(owner: int, *, any_kind: bool) -> bool:
            return any(
                start <= last and first <= end and (any_kind or is_exclusive)
                for (start, end), is_exclusive in self.held[owner].items()
            )

        if overlaps(me, any_kind=True):
            return errno.EDEADLK
        others = [owner for owner in range(OWNERS) if owner != me]
        return errno.EAGAIN if any(overlaps(owner, any_kind=exclusive) for owner in others) else 0


def _lock(file: aiod_client.File, first: int, last: int, *, exclusive: bool) -> int:
    try:
        file.lock(exclusive=exclusive, offset=first, length=last - first + 1, timeout=0)
    except OSError as error:
        return error.errno or -1
    return 0


class _Owners:
    """Owners at two hosts, each with an open file of a session of its own, and the model of their locks."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.model = _Model()
        self.clients = [connect(hosts.hosts[number % 2].endpoint) for number in range(OWNERS)]
        first, *others = self.clients
        self.files = [first.open("scratch/f", "w+"), *(client.open("scratch/f", "r+") for client in others)]

    def lock(self, me: int, chance: random.Random) -> None:
        """Ask for any range."""
        first = chance.randrange(BYTES)
        last = min(BYTES - 1, first + chance.randrange(5))
        exclusive = chance.random() < 0.5
        expected = self.model.expected(me, first, last, exclusive=exclusive)
        assert _lock(self.files[me], first, last, exclusive=exclusive) == expected
        if expected == 0:
            self.model.held[me][first, last] = exclusive

    def unlock(self, me: int, chance: random.Random) -> None:
        """Release any lock, if there is one."""
        held = self.model.held[me]
        if held:
            first, last = chance.choice(list(held))
            self.files[me].unlock(offset=first, length=last - first + 1)
            del held[first, last]

    def unlock_all(self, me: int, _: random.Random) -> None:
        """Release all locks at once."""
        self.files[me].unlock()
        self.model.held[me].clear()

    def reopen(self, me: int, _: random.Random) -> None:
        """Close the file, and open it again."""
        self.files[me].close()
        self.model.held[me].clear()
        self.files[me] = self.clients[me].open("scratch/f", "r+")

    def kill_engine(self, me: int, _: random.Random) -> None:
        """Kill the owner's engine; wait until all have regained their locks."""
        kill(self.hosts.hosts[me % 2].engine["pid"])
        for file in self.files:
            file.size()


def test_locks_by_chance_against_a_model(hosts: Hosts) -> None:
    """Owners at two hosts lock and unlock, engines die: whoever has a lock keeps it, and nobody else gets it."""
    chance = random.Random(26)  # noqa: S311
    owners = _Owners(hosts)
    steps = [owners.lock, owners.unlock, owners.unlock_all, owners.reopen, owners.kill_engine]
    for step in chance.choices(steps, [55, 35, 5, 4, 1], k=rounds(200)):
        step(chance.randrange(OWNERS), chance)
    for client in owners.clients:
        client.close()
