"""Upgrade and removal of the Debian package under a real systemd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.systemd.conftest import CONFIG, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.systemd.conftest import Box


def test_an_upgrade_restarts_what_runs(service: Box, package: Path) -> None:
    pid = service.shows("MainPID")
    service.run("dpkg", "--install", str(package))
    assert service.shows("ActiveState") == "active"
    assert service.shows("MainPID") != pid


def test_an_upgrade_starts_nothing(box: Box, package: Path) -> None:
    box.run("dpkg", "--install", str(package))
    assert box.shows("ActiveState") == "inactive"


def test_removing_it_stops_the_service_and_keeps_configuration_and_data(service: Box, package: Path) -> None:
    service.client("aiod_client.connect().open('scratch/kept', 'w+').pwrite(b'data', 0)")
    service.write(CONFIG, service.run("cat", str(CONFIG)).stdout + "# mine\n")
    removed = service.run("dpkg", "--remove", "aiod")
    try:
        assert removed.stderr == ""
        assert service.run("systemctl", "is-active", "aiod", check=False).stdout == "inactive\n"
        assert service.run("cat", "/srv/scratch/kept").stdout == "data"
        assert service.run("tail", "-n1", str(CONFIG)).stdout == "# mine\n"
        assert service.run("test", "-e", "/usr/lib/aiod", check=False).returncode == 1
    finally:
        service.run("dpkg", "--install", str(package))
    service.systemctl("start", "aiod")
    service.client("assert aiod_client.connect().open('scratch/kept').pread(4, 0) == b'data'")


def test_nothing_in_it_names_where_it_was_built(box: Box) -> None:
    found = box.run("grep", "-rl", str(ROOT), "/usr/lib/aiod", "/usr/lib/systemd/system", check=False)
    assert found.stdout == ""
