"""Upgrade, removal and purge of the Debian packages under a real systemd, and their own tests (debian/tests)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.systemd.conftest import CONFIG, ROOT

if TYPE_CHECKING:
    from tests.systemd.conftest import Box

pytestmark = pytest.mark.timeout(900)
"""The first test sets up the box, which builds the packages: minutes on a slow machine."""

OLDER = "/tmp/older.deb"

MAKE_OLDER = f"""
set -e
dpkg-deb --raw-extract "$1" /tmp/older
sed -i 's/^Version: .*/Version: 0.0.1/; s/(= [^)]*)/(>= 0.0.1)/' /tmp/older/DEBIAN/control
echo '# a line of the version before' >>/tmp/older/etc/aiod/aiod.toml
dpkg-deb --root-owner-group -Znone --build /tmp/older {OLDER}
rm -r /tmp/older
"""

WORK_UNTIL_TOLD = """
import itertools, os
with aiod_client.connect(reconnect_timeout=300) as client, client.open("scratch/worked", "w+") as file:
    for number in itertools.count():
        assert file.pwrite(number.to_bytes(8, "big"), number * 8) == 8
        if number == 100:
            print("working", flush=True)
        if number % 100 == 0 and os.path.exists("/tmp/upgraded"):
            break
    assert file.pread(8, 8 * number) == number.to_bytes(8, "big")
print("went on", flush=True)
"""


def test_an_upgrade_restarts_what_runs_and_keeps_configuration_and_clients(box: Box, packages: list[str]) -> None:
    (newer,) = [package for package in packages if "/aiod_" in package]
    box.run("sh", "-c", MAKE_OLDER, "make-older", newer)
    box.dpkg("--install", "--force-confold", OLDER)
    mine = box.run("cat", str(CONFIG)).stdout + "# mine\n"
    box.write(CONFIG, mine)
    box.systemctl("start", "aiod")
    pid = box.shows("MainPID")
    with box.client_at_work(WORK_UNTIL_TOLD) as client:
        client.hears("working")
        box.dpkg("--install", "--force-confold", newer)
        assert box.shows("ActiveState") == "active"
        assert box.shows("MainPID") != pid
        box.run("touch", "/tmp/upgraded")
        client.hears("went on")
    assert box.run("cat", str(CONFIG)).stdout == mine


def test_an_upgrade_starts_nothing(box: Box, packages: list[str]) -> None:
    box.dpkg("--install", *packages)
    assert box.shows("ActiveState") == "inactive"
    assert box.systemctl("is-enabled", "aiod", check=False).stdout == "disabled\n"


def test_removing_it_stops_the_service_and_keeps_configuration_and_data(service: Box, packages: list[str]) -> None:
    service.client("aiod_client.connect().open('scratch/kept', 'w+').pwrite(b'data', 0)")
    service.write(CONFIG, service.run("cat", str(CONFIG)).stdout + "# mine\n")
    removed = service.dpkg("--remove", "aiod")
    try:
        assert removed.stderr == ""
        assert service.run("systemctl", "is-active", "aiod", check=False).stdout == "inactive\n"
        assert service.run("cat", "/srv/scratch/kept").stdout == "data"
        assert service.run("tail", "-n1", str(CONFIG)).stdout == "# mine\n"
        assert service.run("test", "-e", "/usr/lib/aiod", check=False).returncode == 1
    finally:
        service.dpkg("--install", *packages)
    service.systemctl("start", "aiod")
    service.client("assert aiod_client.connect().open('scratch/kept').pread(4, 0) == b'data'")


def test_purging_them_leaves_nothing_but_the_user(service: Box, packages: list[str]) -> None:
    service.run("sh", "-c", "rm -rf /srv/scratch/* && touch /etc/aiod/second.toml")
    names = [package.rpartition("/")[2].partition("_")[0] for package in packages]
    assert names == ["aiod", "libaiod-dev", "libaiod0", "nbdkit-plugin-aiod", "python3-aiod-client"]
    files = service.dpkg("--listfiles", *names).stdout.split()
    purged = service.dpkg("--purge", *names)
    try:
        assert purged.stderr == ""
        own = [file for file in files if "aiod" in file] + ["/etc/aiod", "/run/aiod", "/srv/scratch", "/var/lib/aiod"]
        left = service.run("sh", "-c", 'for file; do [ ! -e "$file" ] || echo "$file"; done', "left", *own)
        assert left.stdout == ""
        assert service.run("id", "--name", "--user", "aiod").stdout == "aiod\n"
    finally:
        service.dpkg("--install", *packages)


@pytest.mark.parametrize("name", ["python", "c", "nbdkit"])
def test_their_own_tests_pass(box: Box, name: str) -> None:
    for file in ("daemon", name):
        box.write(ROOT / "build" / "package-tests" / file, (ROOT / "debian" / "tests" / file).read_text())
    said = box.run("sh", str(ROOT / "build" / "package-tests" / name)).stdout
    assert said.endswith(f"{name}: passed\n")


def test_nothing_in_them_names_where_they_were_built(box: Box) -> None:
    places = ("/usr/lib/aiod", "/usr/lib/systemd/system", "/usr/lib/python3/dist-packages/aiod_client")
    assert box.run("grep", "-rl", str(ROOT), *places, check=False).stdout == ""
