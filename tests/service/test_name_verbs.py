"""NAME's verbs for links, attributes and trees: their effect, and what exports and admission refuse."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aiod import _core
from aiod.engine.name_verbs import NAME_VERBS
from aiod_protocol import wire
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import MessageType
from tests.conftest import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST = "n" * 255
NEWLINE = "new\nline"
ARGUMENTS: dict[str, Any] = {
    "cursor": 0,
    "mode": 0o640,
    "to": "new",
    "target": "anywhere",
    "replace": False,
    "times": struct.pack("<qq", 1, 2),
    "follow": True,
    "name": "user.a",
    "value": b"x",
    "flags": 0,
}
CHANGING = sorted(name for name, verb in NAME_VERBS.items() if verb.changes)
NEW = ("lstat", "readlink", "symlink", "link", "utime", "chmod", "getxattr", "setxattr", "listxattr", "removexattr")


@pytest.fixture(scope="module")
def service() -> Iterator[Daemon]:
    """A daemon that serves one directory three times: with everything allowed, with the defaults, and read-only."""
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    path = str(base / "scratch")
    sections: dict[str, Any] = {
        "exports.scratch": {"links": True, "attributes": True},
        "exports.default": {"path": path},
        "exports.fixed": {"path": path, "read_only": True, "links": True, "attributes": True},
        "exports.full": {"path": path, "create": False, "links": True, "attributes": True},
    }
    daemon = Daemon(base, **sections)
    daemon.start()
    yield daemon
    daemon.destroy()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def client(service: Daemon, connect: Any, locate: Any) -> Any:
    """A raw client with a session."""
    raw = connect(locate(service.endpoint))
    raw.hello()
    return raw


@pytest.fixture
def tree(service: Daemon) -> Iterator[Path]:
    """A directory in the export with one object of each kind, and links out of the export."""
    path = Path(tempfile.mkdtemp(dir=service.path))
    (path / "dir" / "inner").mkdir(parents=True)
    (path / "file").write_bytes(b"12345")
    (path / "link").symlink_to("file")
    (path / "out").symlink_to(service.base)
    (path / "loop").symlink_to("loop")
    os.mkfifo(path / "fifo")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def ask(raw: Any, verb: str, path: str, export: str = "scratch", **arguments: Any) -> tuple[int, str, Any, int]:
    """(result, text, body, reason) of a NAME."""
    raw.send(MessageType.NAME, raw.token, 1, verb, export, path, ARGUMENTS | arguments)
    kind, cookie, result, text, body, *reason = raw.answer()
    assert (kind, cookie) == (MessageType.REPLY, 1), (kind, text)
    return result, text or "", body, reason[0] if reason else 0


def do(raw: Any, verb: str, path: str, **arguments: Any) -> Any:
    """The body of a NAME that succeeds."""
    result, text, body, _ = ask(raw, verb, path, **arguments)
    assert (result, text) == (0, ""), text
    return body


def snapshot(tree: Path) -> list[tuple[Any, ...]]:
    """Everything about the names beneath `tree` that a verb could change."""
    found: list[tuple[Any, ...]] = []
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        found.append((str(path), status.st_mode, status.st_nlink, status.st_mtime_ns, status.st_ino))
    return found


# ---- what the verbs do


def test_lstat_and_readlink_describe_the_link(client: Any, tree: Path, service: Daemon) -> None:
    record = wire.STAT.unpack(do(client, "lstat", f"{tree.name}/out")["stat"])
    assert (record[3], stat.S_ISLNK(record[7])) == ((tree / "out").lstat().st_ino, True)
    assert do(client, "readlink", f"{tree.name}/out") == {"target": os.fsencode(service.base)}
    (tree / "bytes").symlink_to(os.fsdecode(b"\xff\n"))
    assert do(client, "readlink", f"{tree.name}/bytes") == {"target": b"\xff\n"}


@pytest.mark.parametrize("name", ["new", LONGEST, NEWLINE, "grün"])
def test_symlink_and_link_make_names(client: Any, tree: Path, name: str) -> None:
    do(client, "symlink", f"{tree.name}/{name}", target="../x y")
    assert (tree / name).readlink() == Path("../x y")
    do(client, "link", f"{tree.name}/file", to=f"{tree.name}/dir/{name}")
    assert (tree / "dir" / name).samefile(tree / "file")


def test_utime_and_chmod_change_the_file_or_the_link(client: Any, tree: Path) -> None:
    do(client, "utime", f"{tree.name}/link", times=struct.pack("<qq", -1, 2**33 * 10**9 + 5))
    do(client, "utime", f"{tree.name}/link", times=struct.pack("<qq", 10**9, 2 * 10**9), follow=False)
    assert (tree / "file").stat().st_mtime_ns == 2**33 * 10**9 + 5
    assert (tree / "file").stat().st_atime_ns == -1
    assert (tree / "link").lstat().st_mtime == 2
    do(client, "utime", f"{tree.name}/fifo", times=b"")
    do(client, "chmod", f"{tree.name}/link", mode=0o604)
    assert stat.S_IMODE((tree / "file").stat().st_mode) == 0o604
    do(client, "chmod", f"{tree.name}/fifo", mode=0o777)
    assert ask(client, "chmod", f"{tree.name}/link", follow=False)[0] == -errno.EOPNOTSUPP


def test_extended_attributes_are_kept(client: Any, tree: Path) -> None:
    path = f"{tree.name}/link"
    longest = "user." + "n" * 250
    for name, value in (("user.a", b"\0\xff"), ("user.ü", b""), (longest, b"x" * 1000)):
        do(client, "setxattr", path, name=name, value=value)
        assert do(client, "getxattr", path, name=name) == {"value": value}
    names = do(client, "listxattr", path)["names"].split(b"\0")[:-1]
    assert sorted(names) == sorted(name.encode() for name in ("user.a", "user.ü", longest))
    do(client, "removexattr", path)
    assert ask(client, "getxattr", path)[:2] == (-errno.ENODATA, ask(client, "getxattr", path)[1])
    assert "no such attribute" in ask(client, "getxattr", path)[1]
    assert ask(client, "setxattr", path, flags=2)[0] == -errno.ENODATA
    do(client, "setxattr", path, flags=1)
    assert ask(client, "setxattr", path, flags=1)[0] == -errno.EEXIST


def test_rmtree_removes_a_tree_in_parts_and_follows_no_link(client: Any, tree: Path, service: Daemon) -> None:
    for number in range(700):
        (tree / "dir" / f"{number}").touch()
    (tree / "dir" / "inner" / "out").symlink_to(service.base)
    (tree / "dir" / "inner" / os.fsdecode(b"\xff")).touch()
    (tree / "to-dir").symlink_to("dir")
    for path in ("to-dir", "to-dir/", "file", "out/", "fifo"):
        assert ask(client, "rmtree", f"{tree.name}/{path}")[0] == -errno.ENOTDIR, path
    assert ask(client, "rmtree", f"{tree.name}/dir")[0] == 1
    assert ask(client, "rmtree", f"{tree.name}/dir")[0] == 0
    assert not (tree / "dir").exists()
    assert (service.base / "aiod.toml").exists()
    assert ask(client, "rmtree", f"{tree.name}/dir")[0] == -errno.ENOENT
    for path in ("", ".", ".."):
        assert ask(client, "rmtree", path)[0] == -errno.EINVAL
    assert tree.exists()


# ---- what is refused


def refuses(raw: Any, tree: Path, verb: str, path: str, number: int, **arguments: Any) -> str:
    """The text of a NAME that is refused, and changes nothing."""
    before = snapshot(tree.parent)
    result, text, body, _ = ask(raw, verb, path, **arguments)
    assert (errno.errorcode.get(-result), body) == (errno.errorcode[number], None), (verb, path, text)
    assert snapshot(tree.parent) == before
    return text


@pytest.mark.parametrize("verb", [*NEW, "rmtree"])
def test_no_verb_leaves_the_export(client: Any, tree: Path, service: Daemon, verb: str) -> None:
    (service.base / "secret").mkdir(exist_ok=True)
    for path in ("../secret/x", f"{tree.name}/out/secret/x", f"{service.base}/secret/x", f"{tree.name}/../../secret/x"):
        assert "leaves the export" in refuses(client, tree, verb, path, errno.EACCES)
    if verb in {"utime", "chmod", "getxattr", "setxattr", "listxattr", "removexattr"}:
        assert "leaves the export" in refuses(client, tree, verb, f"{tree.name}/out", errno.EACCES)
    if verb == "link":
        for to in ("../new", f"{tree.name}/out/new", f"{service.base}/new"):
            refuses(client, tree, verb, f"{tree.name}/file", errno.EACCES, to=to)


@pytest.mark.parametrize("verb", [*NEW, "rmtree"])
def test_names_that_no_system_call_takes_are_refused(client: Any, tree: Path, verb: str) -> None:
    refuses(client, tree, verb, f"{tree.name}/nul\0byte", errno.EINVAL)
    refuses(client, tree, verb, "x/" * 2048, errno.ENAMETOOLONG)
    refuses(client, tree, verb, f"{tree.name}/{'n' * 256}", errno.ENAMETOOLONG)
    missing = errno.ENOENT
    if verb == "symlink":
        refuses(client, tree, verb, f"{tree.name}/absent/new", missing)
        refuses(client, tree, verb, f"{tree.name}/file", errno.EEXIST)
    else:
        for name in ("absent", LONGEST, NEWLINE, "x/" * 1990):
            refuses(client, tree, verb, f"{tree.name}/{name}", missing, to=f"{tree.name}/new")


def test_arguments_out_of_range_are_refused(client: Any, tree: Path) -> None:
    path = f"{tree.name}/file"
    for arguments in ({"times": b"x"}, {"times": bytes(15)}, {"times": bytes(17)}):
        assert "bytes of times" in refuses(client, tree, "utime", path, errno.EINVAL, **arguments)
    assert "permission bits" in refuses(client, tree, "chmod", path, errno.EINVAL, mode=0o4755)
    for verb in ("getxattr", "setxattr", "removexattr"):
        for name in ("trusted.a", "security.capability", "system.posix_acl_access", "user", "", "user.\0"):
            assert "begin with user." in refuses(client, tree, verb, path, errno.EPERM, name=name)
        refuses(client, tree, verb, path, errno.ENAMETOOLONG, name="user." + "n" * 251)
    assert "unknown flags" in refuses(client, tree, "setxattr", path, errno.EINVAL, flags=3)
    too_long = b"x" * (_core.XATTR_BYTES_MAX + 1)
    assert "at most" in refuses(client, tree, "setxattr", path, errno.E2BIG, value=too_long)
    refuses(client, tree, "symlink", f"{tree.name}/new", errno.ENAMETOOLONG, target="x" * 4096)
    refuses(client, tree, "symlink", f"{tree.name}/new", errno.EINVAL, target="a\0b")
    refuses(client, tree, "symlink", f"{tree.name}/new", errno.ENOENT, target="")


@pytest.mark.parametrize("verb", CHANGING)
def test_a_read_only_export_refuses_every_change(client: Any, tree: Path, verb: str) -> None:
    text = refuses(client, tree, verb, f"{tree.name}/file", errno.EROFS, export="fixed")
    assert "is read-only" in text


@pytest.mark.parametrize("verb", sorted(set(NAME_VERBS) - set(CHANGING)))
def test_a_read_only_export_answers_every_question(client: Any, tree: Path, verb: str) -> None:
    path = {"list": "dir", "sync": "dir", "readlink": "link"}.get(verb, "file")
    os.setxattr(tree / "file", "user.a", b"x")
    assert ask(client, verb, f"{tree.name}/{path}", export="fixed")[0] == 0


@pytest.mark.parametrize("verb", sorted(name for name, verb in NAME_VERBS.items() if verb.needs))
def test_links_and_attributes_need_their_option(client: Any, tree: Path, verb: str) -> None:
    text = refuses(client, tree, verb, f"{tree.name}/file", errno.EPERM, export="default", to=f"{tree.name}/new")
    assert f"its option {NAME_VERBS[verb].needs}" in text
    assert ask(client, verb, f"{tree.name}/file", export="default")[3] == Reason.NOT_ALLOWED


@pytest.mark.parametrize("verb", sorted(name for name, verb in NAME_VERBS.items() if verb.creates))
def test_nothing_is_created_where_nothing_may_be(client: Any, tree: Path, verb: str) -> None:
    refuses(client, tree, verb, f"{tree.name}/file", errno.EACCES, export="full", to=f"{tree.name}/new")


@pytest.mark.parametrize("verb", [name for name, verb in NAME_VERBS.items() if verb.arguments])
def test_an_argument_of_another_type_ends_the_session(
    service: Daemon, connect: Any, locate: Any, tree: Path, verb: str
) -> None:
    for missing in NAME_VERBS[verb].arguments:
        raw = connect(locate(service.endpoint))
        raw.hello()
        raw.send(MessageType.NAME, raw.token, 1, verb, "scratch", f"{tree.name}/file", ARGUMENTS | {missing: None})
        kind, number, text, *_ = raw.answer()
        assert (kind, number) == (MessageType.REFUSAL, errno.EPROTO), text
        assert missing in text


def make_socket(path: Path) -> None:
    """A name of a socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, make_socket])
def test_what_may_block_is_examined_without_being_opened(client: Any, tree: Path, make: Callable[[Path], Any]) -> None:
    """Each answer comes from the one session, in order: an open of a FIFO would never end."""
    make(tree / "s")
    path = f"{tree.name}/s"
    for verb in ("lstat", "stat", "utime", "chmod", "listxattr"):
        assert ask(client, verb, path)[0] == 0, verb
    assert ask(client, "setxattr", path)[0] == -errno.EPERM
    assert ask(client, "readlink", path)[0] == -errno.EINVAL
    assert ask(client, "list", path)[0] == ask(client, "rmtree", path)[0] == -errno.ENOTDIR
    assert ask(client, "link", path, to=f"{tree.name}/other")[0] == 0
    assert ask(client, "remove", path)[0] == 0
