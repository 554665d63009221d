"""C programs with libaiod, and the load generator: they need no ZeroMQ and no Python."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.libaiod_objects import build_with_libaiod
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Daemon

CLIENT = Path(__file__).parents[2] / "clients" / "c"

PROGRAM = r"""
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "aiod.h"

static int fail(const char *what)
{
    printf("%s: %s\n", what, aiod_error());
    return 1;
}

int main(int argc, char **argv)
{
    static char data[9 << 20];
    struct aiod_client *client;
    int64_t handle;

    if (aiod_connect(&client, argc > 1 ? argv[1] : "scratch", NULL) < 0) {
        return fail("connect");
    }
    if (aiod_open(client, "scratch/missing", AIOD_OPEN_READ, 0) != -ENOENT) {
        return fail("missing");
    }
    printf("said: %s\n", aiod_error());
    handle = aiod_open(client, "scratch/c", AIOD_OPEN_READ | AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, 0644);
    if (handle < 0) {
        return fail("open");
    }
    memset(data, 'c', sizeof(data));
    if (aiod_pwrite(client, (uint32_t)handle, data, sizeof(data), 1, AIOD_NO_TIMEOUT) != sizeof(data) ||
        aiod_flush(client, (uint32_t)handle, AIOD_NO_TIMEOUT) != 0) {
        return fail("write");
    }
    memset(data, 0, sizeof(data));
    if (aiod_pread(client, (uint32_t)handle, data, sizeof(data), 0, AIOD_NO_TIMEOUT) != sizeof(data) ||
        data[0] != 0 || data[1] != 'c' || data[sizeof(data) - 1] != 'c') {
        return fail("read");
    }
    if (aiod_close(client, (uint32_t)handle) < 0 ||
        aiod_pread(client, (uint32_t)handle, data, 1, 0, AIOD_NO_TIMEOUT) != -EBADF) {
        return fail("close");
    }
    aiod_disconnect(client);
    printf("done\n");
    return 0;
}
"""


@pytest.fixture(name="daemon")
def daemon_fixture(renewed_daemon: Daemon) -> Daemon:
    """The same one for all tests."""
    return renewed_daemon


@pytest.fixture(scope="module", name="program")
def program_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program above."""
    directory = tmp_path_factory.mktemp("libaiod")
    (directory / "program.c").write_text(PROGRAM)
    return build_with_libaiod(directory / "program", directory / "program.c")


def run(program: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with AIOD_ENDPOINT in its environment."""
    environment = os.environ | {"AIOD_ENDPOINT": endpoint}
    return subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, timeout=scaled(60), check=False
    )


def test_blocking_calls_open_write_flush_and_read(daemon: Any, program: Path, wait_until: Callable[..., None]) -> None:
    done = run(program, daemon.endpoint)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "done"
    assert "there is no such file" in done.stdout
    assert (daemon.path / "c").read_bytes() == b"\0" + b"c" * (9 << 20)
    wait_until(lambda: (daemon.engine["rings"], daemon.engine["files"]) == (0, 0), "the engine has released everything")


def test_connecting_without_a_daemon_says_how_to_start_one(program: Path, tmp_path: Path) -> None:
    done = run(program, f"ipc://{tmp_path}/aiod.sock")
    assert done.returncode == 1
    assert "start aiod, or set AIOD_ENDPOINT" in done.stdout
    assert "on this host" in run(program, "tcp://127.0.0.1:9").stdout


def test_connecting_to_an_unknown_export_fails(shared_daemon: Any, program: Path) -> None:
    done = run(program, shared_daemon.endpoint, "nothing")
    assert done.returncode == 1
    assert "ring/nothing" in done.stdout
    assert "not the name of an export" in run(program, shared_daemon.endpoint, "../x").stdout


ENTRIES = 16
AREA_OFFSET = 4096 * 2
BYTES = AREA_OFFSET + 4096


def header(**fields: int) -> bytes:
    """The first line of a consistent header, but for `fields`."""
    line = {
        "magic": 0x474E4952444F4941,
        "version": 1 | ENTRIES << 32,
        "memory_bytes": BYTES,
        "sq_offset": 4096,
        "cq_offset": 4096 + 64 * ENTRIES,
        "area_offset": AREA_OFFSET,
        "area_bytes": BYTES - AREA_OFFSET,
    }
    return struct.pack("<7Q", *(line | fields).values())


MEMORIES: dict[str, tuple[bytes, int, int, str]] = {
    "not sealed": (header(), BYTES, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_GROW, "not sealed"),
    "too small": (header(), BYTES - 4096, -1, "does not have the size"),
    "no entries": (header(version=1), BYTES, -1, "is inconsistent"),
    "odd entries": (header(version=1 | 3 << 32), BYTES, -1, "is inconsistent"),
    "entries beyond": (header(version=1 | 4096 << 32), BYTES, -1, "is inconsistent"),
    "area beyond": (header(area_bytes=8192), BYTES, -1, "is inconsistent"),
    "area that overflows": (header(area_offset=2**64 - 4096), BYTES, -1, "is inconsistent"),
    "queue in the header": (header(sq_offset=64), BYTES, -1, "is inconsistent"),
    "queue beyond": (header(cq_offset=AREA_OFFSET), BYTES, -1, "is inconsistent"),
}
"""Invalid memory of an engine: its first bytes, its size, its seals (-1: the right ones); part of the error message."""


@pytest.mark.parametrize("memory", MEMORIES)
def test_invalid_memory_of_an_engine_is_refused(program: Path, tmp_path: Path, memory: str) -> None:
    content, nbytes, seals, message = MEMORIES[memory]
    (tmp_path / "ring").mkdir()
    environment = os.environ | {"AIOD_ENDPOINT": f"ipc://{tmp_path}/aiod.sock"}
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        os.fdopen(os.memfd_create("ring", os.MFD_ALLOW_SEALING), "r+b") as file,
    ):
        listener.bind(str(tmp_path / "ring/scratch"))
        listener.listen()
        listener.settimeout(scaled(60))
        attaching = subprocess.Popen([program], env=environment, stdout=subprocess.PIPE)
        os.pwrite(file.fileno(), content, 0)
        os.truncate(file.fileno(), nbytes)
        right = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, right if seals < 0 else seals)
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            attached = struct.pack("<IIQQII", 2, 1, BYTES, 1 << 20, ENTRIES, 0)
            socket.send_fds(connection, [attached], [file.fileno(), file.fileno()])
            said = attaching.communicate(timeout=scaled(60))[0].decode()
    assert attaching.returncode == 1
    assert message in said


def test_a_32_bit_program_is_refused() -> None:
    command = [os.environ.get("CC", "cc"), "-m32", "-ffreestanding", "-fsyntax-only", f"-I{CLIENT / 'include'}", "-xc"]
    plain = subprocess.run([*command, "-"], input=b"#include <stdint.h>", capture_output=True, check=False)
    if plain.returncode != 0:
        pytest.skip("the compiler has no 32 bits")
    done = subprocess.run([*command, "-"], input=b'#include "aiod.h"', capture_output=True, check=False)
    assert done.returncode != 0
    assert b"for 64-bit programs" in done.stderr


def test_aiod_bench_reports_what_the_engine_counted(new_daemon: Callable[..., Any], tmp_path: Path) -> None:
    daemon = new_daemon()
    daemon.start()
    program = build_with_libaiod(tmp_path / "aiod-bench", CLIENT / "aiod-bench.c")
    (daemon.path / "load").write_bytes(bytes(1 << 20))
    done = run(program, daemon.endpoint, "--file", "scratch/load", "--depth", "4", "--seconds", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["operations"] > 0
    assert figures["bandwidth_bytes"] == pytest.approx(figures["iops"] * 4096, rel=0.01)
    assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"] <= figures["max_us"] * 1.02
    assert daemon.engine["ops"]["read"]["count"] == figures["operations"]
    assert run(program, daemon.endpoint, "--help").stdout.startswith("usage: aiod-bench")
    assert run(program, daemon.endpoint).returncode == 2
    assert run(program, daemon.endpoint, "--file", "scratch/none").returncode == 1


@pytest.fixture(scope="module", name="signalled")
def signalled_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """signalled.c as a program."""
    program = tmp_path_factory.mktemp("signalled") / "signalled"
    return build_with_libaiod(program, Path(__file__).with_name("signalled.c"))


@pytest.mark.parametrize("interval_us", [10_000, 1000, 300])
@pytest.mark.parametrize("how", ["restart", "interrupt"])
def test_calls_survive_a_timers_signals(
    daemon: Any, signalled: Path, interval_us: int, how: str, wait_until: Callable[..., None]
) -> None:
    done = run(signalled, daemon.endpoint, str(interval_us), how, "50")
    assert (done.returncode, done.stdout) == (0, "done\n")
    wait_until(lambda: (daemon.engine["rings"], daemon.engine["files"]) == (0, 0), "the engine has released everything")
