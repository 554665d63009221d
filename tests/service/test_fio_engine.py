"""Jobs of fio against aiod, by the engine that `make fio-engine` builds."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.patience import scaled

ENGINE: Final = Path(__file__).parents[2] / "build" / "fio-aiod.so"
SIZE: Final = 1 << 20

pytestmark = [
    pytest.mark.skipif(shutil.which("fio") is None, reason="no fio on this machine"),
    pytest.mark.skipif(not ENGINE.exists(), reason="build/fio-aiod.so is not built: make fio-engine"),
]


def fio(daemon: Any, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a job."""
    command = [
        "fio",
        f"--ioengine=external:{ENGINE}",
        f"--endpoint={daemon.endpoint}",
        "--name=job",
        "--verify_state_save=0",
        *options,
    ]
    return subprocess.run(
        [*command, f"--size={SIZE}", "--output-format=json"],
        capture_output=True, text=True, timeout=scaled(120), check=False,
    )  # fmt: skip


def done(daemon: Any, *options: str) -> dict[str, Any]:
    """The result of a job, which must have no errors."""
    ended = fio(daemon, *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (job,) = json.loads(ended.stdout[ended.stdout.index("{") :])["jobs"]
    assert job["error"] == 0
    return dict(job)


@pytest.mark.parametrize("direct", [0, 1])
def test_what_a_job_has_written_is_verified(renewed_daemon: Any, direct: int) -> None:
    job = done(
        renewed_daemon, "--filename=scratch/file", "--rw=randwrite", "--bs=4k", "--iodepth=16", "--verify=crc32c",
        f"--direct={direct}", "--fsync=16",
    )  # fmt: skip
    assert (job["write"]["total_ios"], job["read"]["total_ios"]) == (SIZE // 4096, SIZE // 4096)
    assert job["sync"]["total_ios"] > 0
    assert (renewed_daemon.path / "file").stat().st_size == SIZE


def test_corrupt_data_is_noticed(renewed_daemon: Any) -> None:
    """The verification reads what the daemon has, so that the test above could fail."""
    write = ("--filename=scratch/file", "--rw=write", "--bs=4k", "--verify=crc32c", "--iodepth=4")
    done(renewed_daemon, *write, "--do_verify=0")
    with (renewed_daemon.path / "file").open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"x" * 4096)
    assert fio(renewed_daemon, *write, "--verify_only").returncode != 0


def test_a_file_that_is_to_be_read_is_written_first(renewed_daemon: Any) -> None:
    options = ("--filename=scratch/file", "--rw=randread", "--bs=64k", "--iodepth=4", "--numjobs=2")
    job = done(renewed_daemon, *options, "--thread", "--group_reporting")
    assert job["read"]["io_bytes"] == 2 * SIZE
    assert (renewed_daemon.path / "file").read_bytes().count(0) < SIZE // 2


def test_jobs_use_the_ring_and_trim(renewed_daemon: Any) -> None:
    """Several files, forked jobs, durable writes and discards."""
    options = ("--filename=scratch/one:scratch/two", "--bs=4k", "--iodepth=8", "--numjobs=2", "--group_reporting")
    written = done(renewed_daemon, *options, "--rw=randwrite", "--sync=1", "--fdatasync=64")["write"]
    trimmed = done(renewed_daemon, *options, "--rw=randtrim")["trim"]
    assert written["total_ios"] == trimmed["total_ios"] == 2 * SIZE // 4096
    counts = {name: found["count"] for name, found in renewed_daemon.engine["ops"].items()}
    assert counts["discard"] >= 2 * SIZE // 4096
    assert counts["flush"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--filename=none/file", "--rw=write"), "none/file: no aiod at"),
        (("--filename=scratch/file", "--rw=write", "--endpoint=ipc:///no/where"), "start aiod, or set AIOD_ENDPOINT"),
        (("--filename=scratch/missing/file", "--rw=write"), "scratch/missing/file"),
        (("--filename=scratch/file", "--rw=write", "--bs=1m", "--iodepth=4096"), "ring"),
    ],
)
def test_a_job_that_cannot_run_says_why(renewed_daemon: Any, options: tuple[str, ...], said: str) -> None:
    ended = fio(renewed_daemon, *options)
    assert ended.returncode != 0
    assert said in ended.stdout + ended.stderr
