"""The cluster soak: clients verify their data while hosts are killed, cut off and frozen by a seeded schedule."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.cluster.gluster import Storage
from tests.cluster.hosts import Host, HostError, Switch, switched
from tests.conftest import Daemon, wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MUST_BE_EMPTY = ("wrong", "bricks that differ")
"""The lists of a report that must be empty."""
CLIENTS = 4
DAEMON_HOSTS = 2
PORT, ENGINE_PORT = 5570, 5571
PROGRESS_TIMEOUT_S = 240.0
FROZEN_MAX_S = 60.0
"""How long the clients may have to wait for what a frozen host holds: then it continues, and the report counts that."""
LOG_LINES = 8
"""Of each log, when a run ends early."""
STEPS = 30
"""Requests of each client between two events."""


class Pause(NamedTuple):
    """A time without a successful request of one client (of time.monotonic())."""

    begin_s: float
    end_s: float


class Client:
    """The process of client.py on a host."""

    def __init__(self, host: Host, endpoints: str, prefer: str, path: str, seed: int, log: Path) -> None:
        self.done = 0
        self.progress_s = time.monotonic()
        """When it got something done last."""
        self.error = "no error"
        """What failed last."""
        self.pauses: list[Pause] = []
        self.final: dict[str, Any] = {}
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [*host.prefix, sys.executable, "-m", "tests.cluster.client", endpoints, prefer, path, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "done" in said:
                self.done, self.progress_s = said["done"], time.monotonic()
            self.error = said.get("error", self.error)
            if "pause" in said:
                self.pauses.append(Pause(*said["pause"]))
            if "final" in said:
                self.final = said

    @property
    def lives(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def __str__(self) -> str:
        """How it is."""
        silent_s = time.monotonic() - self.progress_s
        state = "" if self.lives else "has ended; "
        return f"{state}{self.done} requests done, the last one {silent_s:.1f} s ago; last error: {self.error}"

    def end(self) -> None:
        """Tell it to verify all blocks, and wait."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PROGRESS_TIMEOUT_S)
        self._reader.join(PROGRESS_TIMEOUT_S)
        self._log.close()


def _last_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []


class Server:
    """A host that runs aiod over the mounted volume."""

    def __init__(self, host: Host, storage: Storage, base: Path) -> None:
        self.host = host
        self.point = base / "mounted"
        self.point.mkdir(parents=True)
        self.endpoint = f"tcp://{host.address}:{PORT}"
        self._storage = storage
        self.daemon = Daemon(
            base,
            **{
                "tcp": {"listen": f"{host.address}:{PORT}", "insecure_tcp": True},
                "engine.main": {"tcp_port": ENGINE_PORT, "slow_request_ms": 1000},
                "exports.shared": {"path": str(self.point / "data"), "shared": "cluster"},
            },
        )

    def power_on(self) -> None:
        """Start the host, mount the volume, start the daemon."""
        self.host.power_on()
        self._storage.mount(self.host, self.point)
        self.host.run("mkdir", "-p", str(self.point / "data"))
        self.daemon.start(prefix=self.host.prefix)

    def thaw(self) -> None:
        """Continue after host.freeze(). nsenter(1) has stopped itself, outside of the host."""
        self.host.thaw()
        if self.daemon.process is not None:
            self.daemon.process.send_signal(signal.SIGCONT)

    def __str__(self) -> str:
        """How it is: whether the mount answers, and the last words of the daemon and of the mount's process."""
        mount = "the mount answers"
        try:
            self.host.run("timeout", "5", "stat", "-f", str(self.point))
        except (HostError, AssertionError) as error:
            mount = f"the mount does not answer ({error})"
        logs = (self.daemon.log_path, self._storage.log_of(self.host))
        last = [f"  {log.name}: {line}" for log in logs for line in _last_lines(log)]
        return "\n".join([mount, *last])

    def power_off(self) -> None:
        """Kill everything."""
        self.host.power_off()
        if self.daemon.process is not None:
            self.daemon.process.kill()  # nsenter(1), which is stopped if the host is frozen
            self.daemon.process.wait()


class Cluster(NamedTuple):
    """The hosts but for clients."""

    base: Path
    switch: Switch
    storage: Storage
    servers: list[Server]


@contextlib.contextmanager
def cluster_in(base: Path) -> Iterator[Cluster]:
    """Storage hosts with a volume, and servers, in the directory `base`."""
    with switched() as switch, contextlib.ExitStack() as stack:
        storage = Storage(switch, base)
        for host in storage.hosts:
            stack.callback(host.power_off)
        storage.create()
        servers = []
        for number in range(DAEMON_HOSTS):
            host = Host(switch, f"aiod{number}", 11 + number)
            servers.append(Server(host, storage, base / host.name))
            stack.callback(servers[-1].daemon.destroy)
            stack.callback(servers[-1].power_off)
            servers[-1].power_on()
        yield Cluster(base, switch, storage, servers)


def _progress_of(clients: list[Client]) -> Callable[[], bool]:
    """A function that says whether each of these has got something done since now, or has died."""
    wanted = [(client, client.done + STEPS) for client in clients]
    return lambda: all(client.done > done or not client.lives for client, done in wanted)


class Soak:
    """One run."""

    def __init__(self, cluster: Cluster, seed: int, *, failover: bool) -> None:
        """Use a cluster, for its last time; `seed` decides the events and their order.

        `failover`: each client may use all servers; else it waits for its own.
        """
        self._failover = failover
        self._cluster = cluster
        self._base = cluster.base
        self._storage = cluster.storage
        self._servers = cluster.servers
        self._clients: list[Client] = []
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - a schedule
        self._events: list[tuple[str, float]] = []
        self._held_by_frozen = 0
        self._kinds: dict[str, Callable[[], None]] = {
            "storage host killed": self._kill_storage,
            "storage host cut off": self._cut_storage,
            "aiod host killed": self._kill_server,
            "aiod host cut off": self._cut_server,
            "aiod host frozen": self._freeze_server,
            "mount killed": self._kill_mount,
        }

    def run(self, seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
        """For so many seconds, at least one event of each kind; returns the report. Calls `tell` for each event.

        0: one event of each kind, but of the two losses of a storage host only one, since healing takes long. If it
        ends early it tells how everything was then.
        """
        begin_s = time.monotonic()
        with self._working_clients(), self._told_if_it_ends_early(tell):
            rounds = [*self._kinds]
            self._random.shuffle(rounds)
            if not seconds:
                rounds.remove(next(name for name in rounds if name.startswith("storage")))
            while rounds or time.monotonic() - begin_s < seconds:
                self._let_work(self._clients)
                name = rounds.pop() if rounds else self._random.choice([*self._kinds])
                tell(f"{time.monotonic() - begin_s:6.1f} s: {name}")
                self._events.append((name, time.monotonic()))
                self._kinds[name]()
            self._let_work(self._clients)
            for client in self._clients:
                client.end()
            tell(f"{time.monotonic() - begin_s:6.1f} s: the clients have ended")
            self._storage.wait_healed()
            for server in self._servers:
                self._storage.unmount(server.host, server.point)
            return self._report(time.monotonic() - begin_s)

    @contextlib.contextmanager
    def _told_if_it_ends_early(self, tell: Callable[[str], None]) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            tell(f"ended early, after {len(self._events)} events: {error!r}")
            for number, client in enumerate(self._clients):
                tell(f"client {number}: {client}")
            for server in self._servers:
                tell(f"{server.host.name}: {server}")
            for lock in self._storage.locks():
                tell(f"lock at {lock}")
            raise

    @contextlib.contextmanager
    def _working_clients(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for number in range(CLIENTS):
                host = Host(self._cluster.switch, f"client{number}", 21 + number)
                stack.callback(host.power_off)
                host.power_on()
                self._clients.append(self._client(host, number))
            yield

    def _client(self, host: Host, number: int) -> Client:
        endpoints = [server.endpoint for server in self._servers]
        prefer = endpoints[number % DAEMON_HOSTS]
        endpoints = endpoints if self._failover else [prefer]
        log = self._base / f"{host.name}.log"
        return Client(host, ",".join(endpoints), prefer, f"shared/{number}", self._random.randrange(1 << 30), log)

    def _let_work(self, clients: list[Client]) -> None:
        """Wait until each of these has made progress."""
        wait_until(_progress_of(clients), "every client gets something done", PROGRESS_TIMEOUT_S)
        assert all(client.lives for client in clients), "a client has died: see its log"

    # ---- events: each begins and ends with everything well -----------------------------------------------------------

    def _choose_storage(self) -> Host:
        self._storage.wait_healed()
        for server in self._servers:
            self._storage.wait_connected(server.host, server.point)
        return self._random.choice(self._storage.hosts)

    def _kill_storage(self) -> None:
        host = self._choose_storage()
        host.power_off()
        self._let_work(self._clients)
        self._storage.power_on(host)

    def _cut_storage(self) -> None:
        host = self._choose_storage()
        host.cut()
        self._let_work(self._clients)
        host.mend()

    def _unaffected(self, server: Server) -> list[Client]:
        """Clients that go on without this server."""
        if self._failover:
            return self._clients
        lost = self._servers.index(server)
        return [client for number, client in enumerate(self._clients) if number % DAEMON_HOSTS != lost]

    def _kill_server(self) -> None:
        server = self._random.choice(self._servers)
        server.power_off()
        self._let_work(self._unaffected(server))
        server.power_on()

    def _cut_server(self) -> None:
        server = self._random.choice(self._servers)
        server.host.cut()
        self._let_work(self._unaffected(server))
        server.host.mend()

    def _freeze_server(self) -> None:
        server = self._random.choice(self._servers)
        server.host.freeze()
        have_progress, end_s = _progress_of(self._unaffected(server)), time.monotonic() + scaled(FROZEN_MAX_S)
        while not have_progress() and time.monotonic() < end_s:
            time.sleep(0.01)
        self._held_by_frozen += not have_progress()
        server.thaw()
        self._let_work(self._clients)

    def _kill_mount(self) -> None:
        """Clients of the host stay there, since its daemon lives."""
        server = self._random.choice(self._servers)
        self._storage.kill_mount(server.host)
        self._storage.unmount(server.host, server.point)
        self._storage.mount(server.host, server.point)

    # ---- the report --------------------------------------------------------------------------------------------------

    def _report(self, seconds: float) -> dict[str, Any]:
        finals = [client.final for client in self._clients]
        counts, errors = Counter[str](), Counter[str]()
        for final in finals:
            counts.update(final.get("counts", {}))
            errors.update(final.get("errors", {}))
        wrong = [each for final in finals for each in final.get("wrong", ["a client died"])]
        files, differ = self._storage.compare()
        return {
            "seed": self._seed,
            "seconds": round(seconds, 1),
            "events": dict(Counter(name for name, _ in self._events)),
            **counts,
            "longest pause (s)": self._longest_pauses(),
            "had to wait until a frozen host continued": self._held_by_frozen,
            "errors told": dict(errors),
            "files compared": files,
            "bricks that differ": differ,
            "wrong": wrong,
        }

    def _longest_pauses(self) -> dict[str, float]:
        """By the last event before the end of the pause."""
        longest: dict[str, float] = {}
        for client in self._clients:
            for pause in client.pauses:
                before = [name for name, at_s in self._events if at_s < pause.end_s]
                name = before[-1] if before else "none"
                longest[name] = max(longest.get(name, 0.0), round(pause.end_s - pause.begin_s, 2))
        return longest
