"""A replicated GlusterFS volume on three storage hosts, mounted on others."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.hosts import Host, HostError, Switch
from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = ("glusterd", "gluster", "glusterfs")
HOSTS = 3
START_TIMEOUT_S = 120.0
HEAL_TIMEOUT_S = 240.0
VOLUME = "shared"
PING_TIMEOUT_S = 3
"""The default, 42 s, is how long a lost storage host delays everybody."""
OPTIONS = {
    "network.ping-timeout": str(PING_TIMEOUT_S),
    "performance.quick-read": "off",
    "performance.io-cache": "off",
    "performance.read-ahead": "off",
    "performance.stat-prefetch": "off",
    "performance.open-behind": "off",
    "performance.write-behind": "off",
    "cluster.quorum-type": "auto",
    "cluster.heal-timeout": "5",
    "features.locks-revocation-secs": "3",
    "client.strict-locks": "on",
    "server.tcp-user-timeout": "5",
    "server.keepalive-time": "3",
    "server.keepalive-interval": "1",
    "server.keepalive-count": "3",
}
"""As docs/distributed.md recommends them: what one host has written another one reads."""
MOUNT_OPTIONS = ("--attribute-timeout=0", "--entry-timeout=0", "--direct-io-mode=enable")


def missing() -> list[str]:
    """Commands that this machine lacks."""
    return [command for command in COMMANDS if shutil.which(command) is None]


class Storage:
    """The storage hosts and their volume."""

    def __init__(self, switch: Switch, base: Path) -> None:
        """Keep everything in `base`."""
        self._base = base
        self.hosts = [self._host(switch, number) for number in range(1, HOSTS + 1)]

    def _host(self, switch: Switch, number: int) -> Host:
        home = self._base / f"storage{number}"
        for name in ("state", "log", "brick"):
            (home / name).mkdir(parents=True)
        places = f"mount --bind {home}/state /var/lib/glusterd && mount --bind {home}/log /var/log/glusterfs"
        return Host(switch, f"storage{number}", number, f"{places} && mkdir /run/gluster")

    def power_on(self, host: Host) -> None:
        """Start a storage host and wait for its daemon, which starts the brick."""
        host.power_on()
        host.spawn(["glusterd", "--no-daemon", "--log-level", "WARNING"], self._base / host.name / "out")
        wait_until(lambda: _succeeds(host, "gluster", "peer", "status"), f"glusterd of {host.name}", START_TIMEOUT_S)

    def create(self) -> None:
        """Start all hosts and make the volume."""
        for host in self.hosts:
            self.power_on(host)
        first, *others = self.hosts
        for host in others:
            _gluster(first, "peer", "probe", host.address)
        wait_until(self._joined, "the storage hosts know each other", START_TIMEOUT_S)
        bricks = [f"{host.address}:{self._base / host.name / 'brick'}" for host in self.hosts]
        _gluster(first, "volume", "create", VOLUME, "replica", str(HOSTS), *bricks, "force")
        _gluster(first, "volume", "set", VOLUME, *(word for option in OPTIONS.items() for word in option))
        _gluster(first, "volume", "start", VOLUME)

    def _joined(self) -> bool:
        count = HOSTS - 1
        return all(
            host.run("gluster", "peer", "status").count("Peer in Cluster (Connected)") == count for host in self.hosts
        )

    def mount(self, host: Host, point: Path) -> None:
        """Mount the volume on a host; waits until it answers."""
        servers = [f"--volfile-server={each.address}" for each in self.hosts]
        log = f"--log-file={self.log_of(host)}"
        pid_file = f"--pid-file={self._pid_file(host)}"
        command = ("glusterfs", *servers, f"--volfile-id={VOLUME}", log, pid_file, *MOUNT_OPTIONS, str(point))
        # again where a process that was killed has not ended yet, and holds its pid file
        _repeat(host, *command)
        _repeat(host, "stat", "-f", str(point))

    def log_of(self, host: Host) -> Path:
        """The log of a host's mount."""
        return self._base / f"{host.name}.mount.log"

    def wait_connected(self, host: Host, point: Path) -> None:
        """Wait until a mount is connected to each brick: without that the loss of another brick is an error there."""
        clients = f"{point}/.meta/graphs/active/{VOLUME}-client-[0-9]*/private"

        def connected() -> bool:
            shown = host.run("sh", "-c", f"cat {clients} || true")  # ENOTCONN: to none of them
            return shown.count("connected = 1\n") == HOSTS

        wait_until(connected, f"{host.name} is connected to all bricks", START_TIMEOUT_S)

    def kill_mount(self, host: Host) -> None:
        """Kill the process that serves the mount."""
        host.run("kill", "-9", self._pid_file(host).read_text().strip())

    def unmount(self, host: Host, point: Path) -> None:
        """Remove a mount, dead or not, and those below it."""
        while f" {point} " in host.run("cat", "/proc/mounts"):
            host.run("umount", "--lazy", str(point))

    def _pid_file(self, host: Host) -> Path:
        return self._base / f"{host.name}.mount.pid"

    def wait_healed(self) -> None:
        """Wait until all bricks have all writes."""
        wait_until(self._healed, "the bricks are healed", HEAL_TIMEOUT_S)

    def _healed(self) -> bool:
        with contextlib.suppress(HostError):
            _gluster(self.hosts[0], "volume", "heal", VOLUME)
            shown = _gluster(self.hosts[0], "volume", "heal", VOLUME, "info")
            return shown.count("Number of entries: 0\n") == HOSTS
        return False

    def locks(self) -> list[str]:
        """The locks of writes that storage hosts hold, and those that wait for them: storage host, file, whose."""
        found = []
        for host in self.hosts:
            with contextlib.suppress(HostError, AssertionError):  # it is off
                found += [f"{host.name}: {lock}" for lock in locks_in(host.run("sh", "-c", _DUMP))]
        return found

    def compare(self) -> tuple[int, list[str]]:
        """Compare the bricks: the number of files, and the names of those that differ."""
        bricks = [dict(_digests(self._base / host.name / "brick")) for host in self.hosts]
        names = sorted({name for brick in bricks for name in brick})
        return len(names), [name for name in names if len({brick.get(name, "missing") for brick in bricks}) > 1]


_DUMP = """
cd /run/gluster && rm -f -- *.dump.*
for brick in $(pidof glusterfsd); do kill -USR1 $brick; done
for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2; grep -qs DUMP-END-TIME -- *.dump.* && break; done
cat -- *.dump.*
"""
_LOCK = re.compile(r"^inodelk.*\((ACTIVE|BLOCKED)\).* connection-id=CTX_ID:(\w{8})")


def locks_in(dump: str) -> Iterator[str]:
    """The locks of writes in a brick's statedump."""
    path = ""
    for line in dump.splitlines():
        if line.startswith("path="):
            path = line.removeprefix("path=")
        elif lock := _LOCK.match(line):
            yield f"{path} {lock[1].lower()}, of mount {lock[2]}"


def _digests(brick: Path) -> Iterator[tuple[str, str]]:
    for folder, folders, files in os.walk(brick):
        if ".glusterfs" in folders:
            folders.remove(".glusterfs")
        for name in files:
            path = Path(folder, name)
            with path.open("rb") as file:
                yield str(path.relative_to(brick)), hashlib.file_digest(file, "sha256").hexdigest()


def _gluster(host: Host, *arguments: str) -> str:
    return host.run("gluster", "--mode=script", *arguments)


def _succeeds(host: Host, *command: str) -> bool:
    try:
        host.run(*command)
    except HostError:
        return False
    return True


def _repeat(host: Host, *command: str) -> None:
    """Repeat a command until it succeeds. Raises HostError with its last output after START_TIMEOUT_S."""
    deadline_s = time.monotonic() + scaled(START_TIMEOUT_S)
    while True:
        try:
            host.run(*command)
        except HostError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
        else:
            return
