"""Permissions of exports, and creation of files in them."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled
from tests.service.access import NOBODY, open_to_all, run_as

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE, BOB = 12001, 12002
STAFF = 12100
SCRATCH = "exports.scratch"
OPEN = """
try:
    with aiod_client.connect(sys.argv[1], transport=sys.argv[2]) as client:
        client.open(sys.argv[3], sys.argv[4]).close()
    print("opened")
except OSError as error:
    print(error.errno, error.strerror)
"""


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> str:
    """The transport."""
    return str(request.param)


@pytest.fixture
def shared(new_daemon: Callable[..., Any], tmp_path: Path) -> Any:
    """A daemon that every user can reach: an export for Alice, one for the staff, one for everyone."""
    sections = {}
    for name, who in (("alices", {"users": [str(ALICE)]}), ("staffs", {"groups": [str(STAFF)]}), ("all", {})):
        path = tmp_path / name
        path.mkdir()
        (path / "file").write_text("there")
        sections[f"exports.{name}"] = {"path": str(path)} | who
    daemon = new_daemon(**sections)
    open_to_all(daemon)
    return daemon


def attempt(daemon: Any, transport: str, path: str, mode: str = "r", **who: Any) -> str:
    """The result of opening a file."""
    return run_as(OPEN, daemon.endpoint, transport, path, mode, **who)


def test_only_listed_users_may_use_the_export(shared: Any, transport: str) -> None:
    assert attempt(shared, transport, "alices/file", uid=ALICE) == "opened"
    refusal = attempt(shared, transport, "alices/file", uid=BOB)
    assert refusal.startswith(f"{errno.EACCES} ")
    assert f"the export alices is not for uid {BOB}" in refusal
    assert attempt(shared, transport, "all/file", uid=BOB) == "opened"
    assert "is not for uid 0" in attempt(shared, transport, "alices/file", uid=0, gid=0)


def test_only_members_of_listed_groups_may_use_the_export(shared: Any, transport: str) -> None:
    assert attempt(shared, transport, "staffs/file", uid=BOB, groups=(7, STAFF)) == "opened"
    assert attempt(shared, transport, "staffs/file", uid=BOB, gid=STAFF) == "opened"
    assert "is not for uid" in attempt(shared, transport, "staffs/file", uid=BOB, groups=(7,))
    assert attempt(shared, transport, "staffs/file", uid=BOB, groups=(*range(13000, 13200), STAFF)) == "opened"


def test_directory_operations_are_for_listed_users_only(shared: Any) -> None:
    listing = "print(aiod_client.connect(sys.argv[1]).list(sys.argv[2]))"
    assert "file" in run_as(listing, shared.endpoint, "alices", uid=ALICE)
    refused = "\ntry:\n    " + listing + "\nexcept PermissionError as error:\n    print(error)"
    assert "is not for uid" in run_as(refused, shared.endpoint, "alices", uid=BOB)


def test_a_user_taken_off_the_list_keeps_what_is_open_until_kicked(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{SCRATCH: {"users": ["0"]}})
    daemon.start()
    with aiod_client.connect(daemon.endpoint) as client:
        file = client.open("scratch/kept", "w+")
        daemon.write_config({SCRATCH: {"users": [str(ALICE)]}})
        daemon.ctl("reload")
        assert file.pwrite(b"x", 0) == 1
        with pytest.raises(PermissionError):
            client.open("scratch/kept")
        (shown,) = daemon.json("clients")["clients"]
        assert daemon.json("kick", shown["id"]) == {"client": shown["id"], "engines": ["main"]}
        with pytest.raises(OSError, match=r"closed the ring|ended this session"):
            file.pwrite(b"x", 0)


@pytest.mark.parametrize("how", ["zmq", "ring"])
def test_kick_ends_one_session_and_no_other(daemon: Any, how: Any) -> None:
    with (
        aiod_client.connect(daemon.endpoint, transport=how) as one,
        aiod_client.connect(daemon.endpoint, transport=how) as other,
    ):
        mine, others = one.open("scratch/one", "w+"), other.open("scratch/other", "w+")
        mine.pwrite(b"x", 0)
        (client,) = [client for client in daemon.json("clients")["clients"] if client["handles"] == 1][:1]
        daemon.ctl("kick", client["id"])
        ended = 0
        for file in (mine, others):
            try:
                file.pwrite(b"y", 0)
            except OSError:
                ended += 1
        assert ended == 1
    refused = daemon.ctl("kick", "00000000", check=False)
    assert refused.returncode == 1
    assert "there is no client '00000000'" in refused.stderr


def test_create_false_refuses_new_files_and_directories(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{SCRATCH: {"create": False}})
    daemon.start()
    (daemon.path / "there").write_text("x")
    with aiod_client.connect(daemon.endpoint) as client:
        client.open("scratch/there", "w+").pwrite(b"y", 0)
        with pytest.raises(FileNotFoundError):
            client.open("scratch/new", "w+")
        for refused in (lambda: client.open("scratch/new", "x"), lambda: client.mkdir("scratch/new")):
            with pytest.raises(PermissionError, match="nothing may be created"):
                refused()
    assert [path.name for path in daemon.path.iterdir()] == ["there"]


def test_new_files_get_create_mode_and_create_owner(new_daemon: Callable[..., Any]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    daemon = new_daemon(**{SCRATCH: {"create_mode": "0606", "create_owner": f"{ALICE}:{STAFF}"}})
    daemon.start(umask=0o077)
    with aiod_client.connect(daemon.endpoint) as client:
        client.open("scratch/new", "w+", perm=0o644)
    status = (daemon.path / "new").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o606, ALICE, STAFF)


@pytest.mark.parametrize("how", ["zmq", "ring"])
def test_no_file_grows_beyond_the_limit(new_daemon: Callable[..., Any], how: Any) -> None:
    daemon = new_daemon(**{SCRATCH: {"max_file_bytes": 10_000}})
    daemon.start()
    with aiod_client.connect(daemon.endpoint, transport=how) as client:
        file = client.open("scratch/limited", "w+")
        assert file.pwrite(b"x" * 10_000, 0) == 10_000
        too_large: list[Callable[[], Any]] = [
            lambda: file.pwrite(b"x", 10_000),
            lambda: file.truncate(10_001),
            lambda: file.allocate(9_000, 1_001),
            lambda: file.write_zeroes(9_999, 2),
            lambda: client.open("scratch/limited", "a").append(b"x"),
            lambda: client.open("scratch/limited", "a").append(b""),
        ]
        for attempt_ in too_large[:-1]:
            with pytest.raises(OSError, match="max_file_bytes") as refusal:
                attempt_()
            assert refusal.value.errno == errno.EFBIG
        too_large[-1]()
        file.truncate(9_000)
        assert client.open("scratch/limited", "a").append(b"x" * 1_000) == 9_000
    assert (daemon.path / "limited").stat().st_size == 10_000


def test_symlinks_false_refuses_symbolic_links(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{SCRATCH: {"symlinks": False}})
    daemon.start()
    (daemon.path / "there").write_text("x")
    (daemon.path / "link").symlink_to("there")
    with aiod_client.connect(daemon.endpoint) as client:
        client.open("scratch/there")
        with pytest.raises(OSError, match="ELOOP"):
            client.open("scratch/link")
        assert sorted(entry.name for entry in client.list("scratch")) == ["link", "there"]
        daemon.write_config({})
        daemon.ctl("reload")
        client.open("scratch/link")


def test_as_client_checks_the_clients_permissions(new_daemon: Callable[..., Any], transport: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    daemon = new_daemon(**{SCRATCH: {"as_client": True}})
    for directory in [*daemon.path.parents][:-1]:
        if not directory.stat().st_mode & 0o001:
            directory.chmod(0o711)
    daemon.path.chmod(0o777)
    (daemon.path / "roots").write_text("secret")
    (daemon.path / "roots").chmod(0o600)
    (daemon.path / "staffs").touch()
    (daemon.path / "staffs").chmod(0o040)
    os.chown(daemon.path / "staffs", 0, STAFF)
    open_to_all(daemon)
    assert attempt(daemon, transport, "scratch/alices", "w+", uid=ALICE) == "opened"
    assert (daemon.path / "alices").stat().st_uid == ALICE
    assert attempt(daemon, transport, "scratch/roots", uid=ALICE).startswith(f"{errno.EACCES} ")
    assert attempt(daemon, transport, "scratch/roots", "w+", uid=ALICE).startswith(f"{errno.EACCES} ")
    assert (daemon.path / "roots").read_text() == "secret"
    assert attempt(daemon, transport, "scratch/staffs", uid=BOB, groups=(STAFF,)) == "opened"
    assert attempt(daemon, transport, "scratch/staffs", uid=BOB).startswith(f"{errno.EACCES} ")
    make = "aiod_client.connect(sys.argv[1]).mkdir('scratch/' + sys.argv[2]); print('made')"
    assert run_as(make, daemon.endpoint, "bobs", uid=BOB) == "made"
    assert (daemon.path / "bobs").stat().st_uid == BOB
    # The workers are nobody but root, whoever's file they serve.
    with aiod_client.connect(daemon.endpoint) as client:
        client.open("scratch/roots")
    for task in Path(f"/proc/{daemon.engine['pid']}/task").iterdir():
        assert re.search(r"^Uid:\t0\t0\t0\t0$", (task / "status").read_text(), re.MULTILINE), task


def test_an_unknown_user_is_a_configuration_error(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{SCRATCH: {"users": ["no-such-user"], "create_mode": "644"}})
    daemon.start(wait=False)
    assert daemon.process.wait(scaled(60)) == 1
    daemon.wait_logged("exports.scratch.users.0: this host has no user 'no-such-user'")
    assert re.search("exports.scratch.create_mode: .*four octal digits", daemon.log)


def test_privileged_commands_are_for_control_groups(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"": {"control_groups": [str(STAFF)], "stats_for": "control"}})
    open_to_all(daemon)
    ask = """
try:
    with aiod_client.connect(sys.argv[1]) as client:
        client.control(sys.argv[2], {})
    print("done")
except OSError as error:
    print(error.strerror)
"""
    for verb in ("handles", "stats", "clients", "threads", "exports"):
        assert run_as(ask, daemon.endpoint, verb, uid=BOB, groups=(STAFF,)) == "done"
        refusal = run_as(ask, daemon.endpoint, verb, uid=BOB, gid=NOBODY)
        assert refusal == f"{verb}: only root, the daemon's own user (uid 0) and members of {STAFF} may do this (EPERM)"
    assert run_as(ask, daemon.endpoint, "ping", uid=BOB) == "done"
    assert json.loads(daemon.ctl("--json", "stats").stdout)
