"""nbdkit-aiod-plugin, judged by NBD's own tools: nbdinfo, nbdcopy, qemu-img, qemu-io, nbdfuse, fio and libnbd."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import kill
from tests.patience import scaled
from tests.service.file_systems import unmount
from tests.service.nbd_server import PLUGIN, build_plugin, nbd_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2**20
SIZE_BYTES = 24 * MIB
KILLS = 3
WRITES_BEFORE_A_KILL = 500
QEMU_WRITES = (
    "write -P 1 0 1M",
    "write -f -P 2 1M 4k",
    "write -P 3 1234567 4321",
    "write -z -u 512k 64k",
    "write -z -f 576k 64k",
    "write -P 4 20M 2M",
    "discard 21M 512k",
    "flush",
)
QEMU_READS = (
    "read -P 1 0 512k",
    "read -P 0 512k 128k",
    "read -P 2 1M 4k",
    "read -P 3 1234567 4321",
    "read -P 4 20M 1M",
    "read -P 0 21M 512k",
)

SYSTEM_PYTHON = "/usr/bin/python3"
LIBNBD = """
import sys
import nbd

one, other = nbd.NBD(), nbd.NBD()
for each in one, other:
    each.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    each.connect_uri(sys.argv[1])
assert one.can_multi_conn()
buffers = [nbd.Buffer.from_bytearray(bytearray([number] * 4096)) for number in range(64)]
in_flight = [one.aio_pwrite(buffer, number * 4096) for number, buffer in enumerate(buffers)]
while in_flight:
    one.poll(-1)
    in_flight = [cookie for cookie in in_flight if not one.aio_command_completed(cookie)]
other.flush()
assert all(other.pread(4096, number * 4096) == bytes([number]) * 4096 for number in range(64))
one.pwrite(b"x" * 8192, 1 << 20, nbd.CMD_FLAG_FUA)
other.zero(4096, 1 << 20)
one.trim(1 << 20, 2 << 20)
one.cache(1 << 20, 0)
found = []
other.block_status(1 << 21, 1 << 20, lambda context, offset, entries, error: found.extend(entries))
assert sum(found[::2]) >= 8192, found
try:
    one.pread(4096, one.get_size() - 1)
except nbd.Error:
    pass
else:
    raise AssertionError("a read beyond the end")
for each in one, other:
    each.shutdown()
"""


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    build_plugin()


@pytest.fixture(name="image")
def image_fixture(shared_daemon: Any) -> Iterator[Path]:
    """An empty image in the daemon's export `scratch`."""
    path: Path = shared_daemon.path / f"nbd-{os.getpid()}.img"
    with path.open("wb") as file:
        file.truncate(SIZE_BYTES)
    yield path
    path.unlink()


@pytest.fixture(name="uri")
def uri_fixture(shared_daemon: Any, image: Path) -> Iterator[str]:
    with nbd_server(shared_daemon.endpoint, f"scratch/{image.name}") as uri:
        yield uri


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(120), check=False)
    assert done.returncode == 0 or not check, (command, done.stdout, done.stderr)
    return done


def info(uri: str) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(run("nbdinfo", "--json", uri).stdout)["exports"][0]
    return described


def qemu_io(uri: str, *commands: str) -> str:
    """The output; a pattern that is not found is an error."""
    arguments = [part for command in commands for part in ("-c", command)]
    out = run("qemu-io", "-f", "raw", *arguments, uri).stdout
    assert "failed" not in out, out
    return out


def filled(base: Path, name: str) -> Path:
    """An image of SIZE_BYTES with data at its beginning and end, and a hole."""
    path = base / name
    with path.open("wb") as file:
        file.write(os.urandom(3 * MIB))
        file.seek(SIZE_BYTES - MIB - 17)
        file.write(os.urandom(MIB + 17))
    return path


def test_the_export_offers_what_the_daemon_can_do(uri: str) -> None:
    described = info(uri)
    assert described["export-size"] == SIZE_BYTES
    offered = ("cache", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero")
    assert {name: described[f"can_{name}"] for name in offered} == dict.fromkeys(offered, True)
    assert not described["is_read_only"]
    assert (described["block_size_minimum"], described["block_size_preferred"]) == (1, 4096)


def test_nbdcopy_both_ways(uri: str, image: Path, tmp_path: Path) -> None:
    source, back = filled(tmp_path, "source"), tmp_path / "back"
    run("nbdcopy", str(source), uri)
    assert image.read_bytes() == source.read_bytes()
    run("nbdcopy", "--connections=4", uri, str(back))
    assert back.read_bytes() == source.read_bytes()


def test_qemu_img_converts_and_compares(uri: str, image: Path, tmp_path: Path) -> None:
    source = filled(tmp_path, "source")
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(source), uri)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), uri)
    assert image.read_bytes() == source.read_bytes()


def test_holes_are_shown(uri: str, image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(8 * MIB)
        file.write(b"x" * MIB)
        file.flush()
    extents = json.loads(run("nbdinfo", "--map", "--json", uri).stdout)
    assert [(extent["offset"], extent["length"], extent["type"]) for extent in extents] == [
        (0, 8 * MIB, 3),
        (8 * MIB, MIB, 0),
        (9 * MIB, SIZE_BYTES - 9 * MIB, 3),
    ]
    extents = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", uri).stdout)
    assert [(extent["start"], extent["length"], extent["data"]) for extent in extents] == [
        (0, 8 * MIB, False),
        (8 * MIB, MIB, True),
        (9 * MIB, SIZE_BYTES - 9 * MIB, False),
    ]


@pytest.mark.parametrize("direct", ["false", "true"])
def test_qemu_io_patterns(shared_daemon: Any, image: Path, direct: str) -> None:
    with nbd_server(shared_daemon.endpoint, f"scratch/{image.name}", f"direct={direct}") as uri:
        qemu_io(uri, *QEMU_WRITES)
        qemu_io(uri, *QEMU_READS)
        assert info(uri)["can_cache"] == (direct == "false")
    assert image.read_bytes()[1234567 : 1234567 + 4321] == b"\3" * 4321


def test_fio_verifies(uri: str) -> None:
    job = (
        "--ioengine=nbd",
        f"--uri={uri}",
        "--verify_state_save=0",
        "--rw=randrw",
        "--bsrange=512-64k",
        "--iodepth=16",
        "--size=8m",
    )
    done = run("fio", "--name=verify", *job, "--verify=crc32c", "--fsync=32", "--output-format=json")
    (result,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    assert result["error"] == 0
    assert result["read"]["total_ios"] > 0
    assert result["write"]["total_ios"] > 0


def has_libnbd() -> bool:
    return subprocess.run([SYSTEM_PYTHON, "-c", "import nbd"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_libnbd(), reason=f"no libnbd for {SYSTEM_PYTHON} (python3-libnbd)")
def test_libnbd_in_python(uri: str, image: Path) -> None:
    """Many requests in flight on one connection; and a flush of one connection covers the writes of the other."""
    run(SYSTEM_PYTHON, "-c", LIBNBD, uri)
    data = image.read_bytes()
    assert data[: 64 * 4096] == b"".join(bytes([number]) * 4096 for number in range(64))
    assert data[MIB : MIB + 8192] == bytes(4096) + b"x" * 4096


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a file system in a FUSE file")
def test_a_file_system_is_made_and_checked(uri: str, tmp_path: Path) -> None:
    point = tmp_path / "nbd"
    point.touch()
    with subprocess.Popen(["nbdfuse", str(point), uri]) as fuse:
        try:
            while point.stat().st_size != SIZE_BYTES:
                assert fuse.poll() is None
            run("mkfs.ext4", "-q", "-F", str(point))
            run("e2fsck", "-fn", str(point))
        finally:
            unmount(point)
            fuse.wait(scaled(60.0))


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_a_file_that_can_only_be_read_is_served_read_only(new_daemon: Any) -> None:
    daemon = new_daemon(**{"exports.scratch": {"read_only": True}})
    (daemon.path / "image").write_bytes(b"1" * 4096)
    daemon.start()
    with nbd_server(daemon.endpoint, "scratch/image") as uri:
        assert info(uri)["is_read_only"]
        run("qemu-io", "--read-only", "-f", "raw", "-c", "read -P 0x31 0 4096", uri)


def test_a_missing_file_is_named(shared_daemon: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with nbd_server(shared_daemon.endpoint, "scratch/missing") as uri:
        assert run("nbdinfo", uri, check=False).returncode != 0
    assert "open scratch/missing: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "path=EXPORT/PATH is needed"),
        (["path=/etc/passwd"], "path=EXPORT/PATH is needed"),
        (["path=x/y", "color=red"], "unknown parameter 'color': the parameters are path,"),
        (["path=x/y", "area=0"], "area=0: a size above 0 is needed"),
        (["path=x/y", "reconnect=4294968"], "at most 4294967 seconds"),
    ],
)
def test_wrong_parameters_are_refused(arguments: list[str], text: str) -> None:
    done = run("nbdkit", "--foreground", "--run", "true", str(PLUGIN), *arguments, check=False)
    assert done.returncode != 0
    assert text in done.stderr


# ---- the engine dies ------------------------------------------------------------------------------------------------


def written(daemon: Any) -> int:
    """The writes of the present engine."""
    return int(daemon.engine["ops"].get("write", {}).get("count", 0))


def test_writes_go_on_after_the_death_of_an_engine(daemon: Any, wait_until: Any) -> None:
    """Those in flight are repeated; what is on the disk at the end is what was written last. No flush fails."""
    image = daemon.path / "image"
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    with nbd_server(daemon.endpoint, "scratch/image") as uri:
        job = (
            "--ioengine=nbd",
            f"--uri={uri}",
            "--verify_state_save=0",
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=16",
            "--size=16m",
            "--fsync=64",
        )
        loops = ("--loops=4", "--verify=crc32c", "--verify_backlog=512", "--output-format=json")
        with subprocess.Popen(["fio", "--name=death", *job, *loops], stdout=subprocess.PIPE, text=True) as fio:
            try:
                for _ in range(KILLS):
                    wait_until(lambda: written(daemon) > WRITES_BEFORE_A_KILL, "writes of the present engine")
                    pid = daemon.engine["pid"]
                    kill(pid)
                    wait_until(lambda old=pid: daemon.engine["pid"] not in (old, None), "the next engine")
                out, _ = fio.communicate(timeout=scaled(240))
            finally:
                fio.kill()
    (result,) = json.loads(out[out.index("{") :])["jobs"]
    assert fio.returncode == 0
    assert result["error"] == 0
