"""NAME messages: the effect of each verb, and errno and text of each refusal."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aiod_protocol import wire
from aiod_protocol.operations import Op
from aiod_protocol.wire import MessageType
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANY = 5000
BURST = 64


def send(raw: Any, verb: str, path: str, export: str = "scratch", *, cookie: int = 1, **arguments: Any) -> None:
    """Send a NAME without waiting for its answer."""
    arguments = {"cursor": 0, "mode": 0o755, "to": "", "replace": False} | arguments
    raw.send(MessageType.NAME, raw.token, cookie, verb, export, path, arguments)


def ask(raw: Any, verb: str, path: str, export: str = "scratch", **arguments: Any) -> tuple[int, str, Any]:
    """(result, text, body) of a NAME."""
    send(raw, verb, path, export, **arguments)
    kind, cookie, result, text, body, *_ = raw.answer()
    assert (kind, cookie) == (MessageType.REPLY, 1), (kind, text)
    return result, text or "", body


def do(raw: Any, verb: str, path: str, **arguments: Any) -> Any:
    """The body of a NAME that succeeds."""
    result, text, body = ask(raw, verb, path, **arguments)
    assert (result, text) == (0, ""), text
    return body


def pages(raw: Any, path: str, export: str = "scratch") -> Iterator[list[Any]]:
    """The entries of each page of a listing."""
    cursor = 0
    while cursor is not None:
        result, text, body = ask(raw, "list", path, export, cursor=cursor)
        assert result == 0, text
        yield body["entries"]
        cursor = body["next"]


def entries(raw: Any, path: str) -> dict[str | bytes, tuple[str, int]]:
    """Name -> (kind, size) of all entries of a directory."""
    return {name: (kind, size) for page in pages(raw, path) for name, kind, size in page}


@pytest.fixture
def tree(shared_daemon: Any, tmp_path_factory: Any) -> Path:
    """A directory in the export, named `tree.name`, with one object of each kind, and links out of the export."""
    path = Path(shared_daemon.path) / str(tmp_path_factory.mktemp("names").name)
    (path / "dir" / "inner").mkdir(parents=True)
    (path / "file").write_bytes(b"12345")
    (path / "dir" / "link").symlink_to("../file")
    (path / "out").symlink_to(shared_daemon.base)
    (path / "loop").symlink_to("loop")
    os.mkfifo(path / "fifo")
    return path


# ---- what the verbs do


def test_list_returns_kinds_and_sizes(raw: Any, tree: Path, shared_daemon: Any) -> None:
    (tree / os.fsdecode(b"\xff\xfe")).write_bytes(b"1")
    (tree / "grün").touch()
    found = entries(raw, tree.name)
    assert found["file"] == ("file", 5)
    assert found["dir"][0] == "dir"
    assert found["out"] == ("link", len(str(shared_daemon.base)))
    assert found["fifo"][0] == "other"
    assert found[b"\xff\xfe"] == ("file", 1)
    assert found.keys() == {"file", "dir", "out", "loop", "fifo", "grün", b"\xff\xfe"}
    assert (tree.name, "dir") in {(name, kind) for page in pages(raw, "") for name, kind, _ in page}


def test_list_with_stat_returns_the_record_of_each_name_itself(raw: Any, tree: Path) -> None:
    (tree / os.fsdecode(b"\xff\xfe")).write_bytes(b"1")
    (tree / "new\nline").touch()
    body = do(raw, "list", tree.name, stat=True)
    names = [os.fsdecode(name) for name in body["names"].split(b"\0")[:-1]]
    assert sorted(names) == sorted(path.name for path in tree.iterdir())
    for name, record in zip(names, wire.STAT.iter_unpack(body["stats"]), strict=True):
        real = (tree / name).lstat()
        assert record[:4] == (real.st_size, real.st_blocks * 512, real.st_dev, real.st_ino)
        assert record[4:8] == (real.st_atime_ns, real.st_mtime_ns, real.st_ctime_ns, real.st_mode)
    assert body["next"] is None


def test_list_reports_block_devices(new_daemon: Callable[..., Any], connect: Any, locate: Any) -> None:
    devices = [path for path in Path("/dev").iterdir() if path.is_block_device() and not path.is_symlink()]
    if not devices:
        pytest.skip("this machine has no block devices")
    daemon = new_daemon(**{"exports.dev": {"path": "/dev", "read_only": True}})
    daemon.start()
    raw = connect(locate(daemon.endpoint))
    raw.hello()
    found = {name: kind for page in pages(raw, "", "dev") for name, kind, _ in page}
    assert {found[path.name] for path in devices} == {"block"}
    assert found["null"] == "other"


def test_list_returns_large_directories_in_pages(raw: Any, tree: Path) -> None:
    """Long names, with and without valid UTF-8: each page fits into the header."""
    many = tree / "many"
    many.mkdir()
    names = [f"{number:04}{'ü' * (number % 126)}" for number in range(MANY)]
    for number in range(0, MANY, 2):
        names[number] = os.fsdecode(f"{number:04}".encode() + b"\xff" * 251)
    for name in names:
        os.mknod(many / name)
    told = list(pages(raw, f"{tree.name}/many"))
    assert max(len(wire.pack(page)) for page in told) < wire.HEADER_BYTES_MAX
    assert len(told) > MANY // 512
    assert sorted(os.fsencode(name) for page in told for name, _, _ in page) == sorted(map(os.fsencode, names))
    assert {kind for page in told for _, kind, _ in page} == {"file"}
    with_stat = []
    cursor: int | None = 0
    while cursor is not None:
        body = do(raw, "list", f"{tree.name}/many", cursor=cursor, stat=True)
        assert len(wire.pack(MessageType.REPLY, 2**64 - 1, 0, None, body)) < wire.HEADER_BYTES_MAX
        with_stat += body["names"].split(b"\0")[:-1]
        assert len(body["stats"]) == wire.STAT.size * body["names"].count(b"\0")
        cursor = body["next"]
    assert sorted(with_stat) == sorted(map(os.fsencode, names))


def test_stat_returns_the_kernels_record(raw: Any, tree: Path) -> None:
    for path in ("file", "dir/link"):
        record = wire.STAT.unpack(do(raw, "stat", f"{tree.name}/{path}")["stat"])
        real = (tree / "file").stat()
        times = (real.st_atime_ns, real.st_mtime_ns, real.st_ctime_ns)
        assert record[:7] == (5, real.st_blocks * 512, real.st_dev, real.st_ino, *times)
        assert record[7:] == (real.st_mode, 1, real.st_uid, real.st_gid, 1, real.st_blksize)
    record = wire.STAT.unpack(do(raw, "stat", "")["stat"])
    assert (record[3], stat.S_ISDIR(record[7])) == (tree.parent.stat().st_ino, True)


def test_mkdir_rmdir_remove_and_sync_work(raw: Any, tree: Path) -> None:
    at = tree.name
    assert do(raw, "mkdir", f"{at}/new", mode=0o700) is None
    assert (tree / "new").stat().st_mode == stat.S_IFDIR | 0o700
    assert do(raw, "sync", at) is None
    do(raw, "sync", "")
    do(raw, "rmdir", f"{at}/new")
    do(raw, "remove", f"{at}/file")
    do(raw, "remove", f"{at}/out")
    do(raw, "remove", f"{at}/fifo")
    assert {path.name for path in tree.iterdir()} == {"dir", "loop"}


def test_rename_replaces_only_on_request(raw: Any, tree: Path) -> None:
    (tree / "other").write_text("other")
    old, new = f"{tree.name}/file", f"{tree.name}/other"
    result, text, _ = ask(raw, "rename", old, to=new)
    assert result == -errno.EEXIST
    assert f"rename scratch/{old} to scratch/{new}" in text
    assert "ask to replace" in text
    assert (tree / "other").read_text() == "other"
    do(raw, "rename", old, to=new, replace=True)
    assert (tree / "other").read_text() == "12345"
    do(raw, "rename", new, to=f"{tree.name}/dir/inner/deep")
    assert (tree / "dir" / "inner" / "deep").read_text() == "12345"


def test_a_handle_works_after_its_file_was_removed(raw: Any, tree: Path) -> None:
    handle = raw.handle(f"{tree.name}/file", 1)
    do(raw, "remove", f"{tree.name}/file")
    assert raw.submit((7, Op.SIZE, 0, handle, 0, 0, 0, 0, 0, 0)) == {7: (5, "")}


def test_only_one_of_two_clients_creates_a_directory(connect: Any, engine_endpoint: str, tree: Path) -> None:
    clients = [connect(engine_endpoint) for _ in range(2)]
    for client in clients:
        client.hello()
    for number in range(100):
        for client in clients:
            send(client, "mkdir", f"{tree.name}/{number}")
        assert sorted(client.answer()[2] for client in clients) == [-errno.EEXIST, 0]
        assert (tree / str(number)).is_dir()


# ---- what is refused

TOO_LONG = "x/" * 3000


@pytest.mark.parametrize(
    ("verb", "path", "number", "advice"),
    [
        ("list", "absent", errno.ENOENT, "no such name"),
        ("list", "file", errno.ENOTDIR, "not a directory"),
        ("list", "out", errno.EACCES, "leaves the export"),
        ("list", "../..", errno.EACCES, "leaves the export"),
        ("list", "loop", errno.ELOOP, "symbolic links"),
        ("stat", "absent", errno.ENOENT, "no such name"),
        ("stat", "out", errno.EACCES, "leaves the export"),
        ("stat", "file/x", errno.ENOTDIR, "not a directory"),
        ("remove", "absent", errno.ENOENT, "no such name"),
        ("remove", "dir", errno.EISDIR, "use rmdir"),
        ("remove", "out/aiod.toml", errno.EACCES, "leaves the export"),
        ("rmdir", "dir", errno.ENOTEMPTY, "remove its entries"),
        ("rmdir", "file", errno.ENOTDIR, "not a directory"),
        ("rmdir", ".", errno.EINVAL, "must not end with ."),
        ("rmdir", "out/scratch", errno.EACCES, "leaves the export"),
        ("mkdir", "dir", errno.EEXIST, "exists already"),
        ("mkdir", "absent/new", errno.ENOENT, "directory of the path is missing"),
        ("mkdir", "out/new", errno.EACCES, "leaves the export"),
        ("mkdir", "x" * 300, errno.ENAMETOOLONG, "longer than"),
        ("sync", "file", errno.ENOTDIR, "not a directory"),
        ("sync", "out", errno.EACCES, "leaves the export"),
        ("stat", "nul\0byte", errno.EINVAL, "zero bytes"),
        ("stat", TOO_LONG, errno.ENAMETOOLONG, "4095 bytes"),
        ("mend", "file", errno.EINVAL, "list, stat, remove, rmdir, rename, mkdir, sync"),
    ],
)
def test_a_refused_operation_gets_errno_and_advice_and_changes_nothing(
    raw: Any, tree: Path, verb: str, path: str, number: int, advice: str
) -> None:
    before = entries(raw, tree.name)
    result, text, body = ask(raw, verb, f"{tree.name}/{path}")
    assert (errno.errorcode.get(-result), body) == (errno.errorcode[number], None), text
    assert verb in text
    assert advice in text
    assert errno.errorcode[number] in text
    assert entries(raw, tree.name) == before


@pytest.mark.parametrize(
    ("path", "to", "replace", "number", "advice"),
    [
        ("absent", "new", False, errno.ENOENT, "no such name"),
        ("file", "absent/new", False, errno.ENOENT, "directory of the path is missing"),
        ("file", "dir", False, errno.EEXIST, "choose another"),
        ("file", "dir", True, errno.EISDIR, "is a directory"),
        ("dir", "file", True, errno.ENOTDIR, "the new name is a file"),
        ("dir", "dir/inner/new", False, errno.EINVAL, "into itself"),
        ("dir", "dir/inner/new", True, errno.EINVAL, "into itself"),
        ("file", "out/new", False, errno.EACCES, "leaves the export"),
        ("file", "../../new", True, errno.EACCES, "leaves the export"),
        ("out/aiod.toml", "new", False, errno.EACCES, "leaves the export"),
        ("file", "nul\0byte", False, errno.EINVAL, "zero bytes"),
        ("file", TOO_LONG, False, errno.ENAMETOOLONG, "4095 bytes"),
        (".", "new", False, errno.EBUSY, "cannot be changed"),
    ],
)
def test_a_refused_rename_gets_errno_and_advice_and_changes_nothing(
    raw: Any,
    tree: Path,
    path: str,
    to: str,
    replace: bool,  # noqa: FBT001
    number: int,
    advice: str,
) -> None:
    before = entries(raw, tree.name)
    result, text, _ = ask(raw, "rename", f"{tree.name}/{path}", to=f"{tree.name}/{to}", replace=replace)
    assert errno.errorcode.get(-result) == errno.errorcode[number], text
    assert advice in text
    assert entries(raw, tree.name) == before


def test_absolute_paths_and_changes_of_the_export_itself_are_refused(raw: Any, shared_daemon: Any, tree: Path) -> None:
    for verb in ("list", "stat", "remove", "rmdir", "rename", "mkdir", "sync"):
        for path in ("/", f"{tree}/file", str(shared_daemon.path)):
            result, text, _ = ask(raw, verb, path, to=f"{tree.name}/new")
            assert (result, "leaves the export" in text) == (-errno.EACCES, True), text
    assert ask(raw, "rename", f"{tree.name}/file", to=f"{tree}/new")[0] == -errno.EACCES
    assert ask(raw, "remove", "")[0] == -errno.EISDIR
    assert ask(raw, "rmdir", "")[0] == -errno.EINVAL
    assert ask(raw, "mkdir", "")[0] == -errno.EEXIST
    assert ask(raw, "rename", "", to="new")[0] == -errno.EBUSY
    assert (tree / "file").exists()


def test_arguments_out_of_range_are_refused(raw: Any, tree: Path) -> None:
    result, text, _ = ask(raw, "mkdir", f"{tree.name}/odd", mode=0o1777)
    assert (result, "permission bits" in text) == (-errno.EINVAL, True)
    result, text, _ = ask(raw, "list", tree.name, cursor=2**63)
    assert (result, "start with 0" in text) == (-errno.EINVAL, True)
    assert not (tree / "odd").exists()


def test_an_unknown_export_is_refused(raw: Any) -> None:
    result, text, _ = ask(raw, "list", "", export="nowhere")
    assert (result, "the exports are: scratch" in text) == (-errno.ENOENT, True)


def test_arguments_of_other_verbs_are_ignored(raw: Any, tree: Path) -> None:
    do(raw, "stat", f"{tree.name}/file", cursor="no number", mode=None, to=7, replace=[], unheard_of=1)
    do(raw, "mkdir", f"{tree.name}/new", cursor=-1, to=7, replace=[])


def test_read_only_file_and_multi_file_system_exports_refuse_changes(
    new_daemon: Callable[..., Any], connect: Any, locate: Any, disk_path: Path
) -> None:
    """A read-only export, a file, and one with two file systems: a rename cannot leave /dev/shm."""
    single = disk_path / "single"
    single.write_text("data")
    daemon = new_daemon(
        **{
            "exports.scratch": {"read_only": True},
            "exports.single": {"path": str(single)},
            "exports.devices": {"path": "/dev"},
        }
    )
    (daemon.path / "dir").mkdir()
    daemon.start()
    raw = connect(locate(daemon.endpoint))
    raw.hello()
    for verb in ("remove", "rmdir", "rename", "mkdir"):
        result, text, _ = ask(raw, verb, "dir", to="new")
        assert (result, "read-only" in text) == (-errno.EROFS, True)
    assert entries(raw, "").keys() == {"dir"}
    do(raw, "stat", "dir")
    do(raw, "sync", "dir")
    for verb in ("list", "stat", "remove", "rmdir", "rename", "mkdir", "sync"):
        for path in ("", "x"):
            result, text, _ = ask(raw, verb, path, export="single", to="new")
            assert (result, "not a directory" in text) == (-errno.ENOTDIR, True)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        path = file.name.removeprefix("/dev/")
        result, text, _ = ask(raw, "rename", path, export="devices", to="aiod-test", replace=True)
    assert (result, "different file systems" in text) == (-errno.EXDEV, True)
    assert daemon.engine["ops"]["name"]["errors"] == 15


def test_operations_without_permission_are_refused(new_daemon: Callable[..., Any], connect: Any, locate: Any) -> None:
    """The daemon runs as root without the capabilities that bypass permissions."""
    daemon = new_daemon()
    (daemon.path / "secret").mkdir(mode=0)
    daemon.start(prefix=["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else [])
    raw = connect(locate(daemon.endpoint))
    raw.hello()
    for verb, path in (("list", "secret"), ("mkdir", "secret/new"), ("stat", "secret/x"), ("sync", "secret")):
        result, text, _ = ask(raw, verb, path)
        assert (result, "no permission" in text) == (-errno.EACCES, True)


# ---- many at once


def test_operations_above_the_credit_are_refused(new_daemon: Callable[..., Any], connect: Any, locate: Any) -> None:
    daemon = new_daemon(sessions={"depth_max": 4}, **{"engine.main": {"max_threads": 1}})
    for number in range(512):
        (daemon.path / str(number)).touch()
    daemon.start()
    raw = connect(locate(daemon.endpoint))
    raw.hello()
    refused: list[str] = []
    while not refused:  # ends unless one worker lists faster than the main loop reads
        for cookie in range(BURST):
            send(raw, "list", "", cookie=cookie)
        answers = [raw.answer() for _ in range(BURST)]
        assert sorted(answer[1] for answer in answers) == list(range(BURST))
        assert {answer[2] for answer in answers} <= {0, -errno.EAGAIN}
        refused = [answer[3] for answer in answers if answer[2]]
    assert all("4 such requests wait already" in text for text in refused)
    assert sum(map(len, pages(raw, ""))) == 512


def test_a_session_may_end_before_its_answer(connect: Any, engine_endpoint: str, raw: Any, tree: Path) -> None:
    for number in range(50):
        hasty = connect(engine_endpoint)
        hasty.hello()
        send(hasty, "mkdir", f"{tree.name}/{number}")
        send(hasty, "list", tree.name)
        hasty.send(MessageType.GOODBYE, hasty.token, 9)
        while hasty.answer()[1] != 9:
            pass
    names = {str(number) for number in range(50)}
    wait_until(lambda: names <= entries(raw, tree.name).keys(), "the directories of the sessions that ended")
