"""C programs with libaiod whose engine or daemon goes away: they go on, or get a truthful error."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import freeze, wait_until
from tests.patience import scaled
from tests.service.frozen import drain
from tests.service.resuming import Program, build_program
from tests.service.ring_memory import untaken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.service.frozen import Frozen

RECONNECT_MS = 30_000
KILLS = 3
WORK = 20

UNKNOWN = 100
"""AIOD_RING_UNKNOWN"""
READ, WRITE, CREATE = 1, 2, 4
NAMES = 128
RDWR = READ | WRITE | CREATE


@pytest.fixture(scope="module", name="build")
def build_fixture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds resuming.c, with a sanitizer or none ("")."""
    directory = tmp_path_factory.mktemp("resuming")
    return lambda sanitizer: build_program(directory, sanitizer)


@pytest.fixture(name="run")
def run_fixture(build: Callable[[str], Path], daemon: Any) -> Iterator[Callable[..., Program]]:
    """Starts programs, which are killed after the test."""
    programs: list[Program] = []

    def run(*arguments: object, sanitizer: str = "") -> Program:
        programs.append(Program(build(sanitizer), daemon, *map(str, arguments)))
        return programs[-1]

    yield run
    for program in programs:
        program.kill()


def wait_for_work(daemon: Any) -> None:
    """Wait until the engine has done some of the program's load."""

    def done(name: str) -> int:
        return int(daemon.engine["ops"].get(name, {}).get("count", 0))

    wait_until(lambda: min(done("read"), done("write")) > WORK, "it does its work", scaled(60))


def kill_engine(daemon: Any) -> None:
    """Kill the engine, and wait for the next one to serve."""
    pid = daemon.engine["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: (now := daemon.engine)["pid"] != pid and now["state"] == "serving", "another engine")


def kill_daemon(daemon: Any) -> None:
    """Kill the supervisor, and with it all that was kept; start another one."""
    daemon.stop(signal.SIGKILL)
    daemon.start()


@pytest.mark.parametrize("sanitizer", ["", "thread", "address,undefined"])
@pytest.mark.parametrize("how", ["threads", "loop"])
def test_load_survives_engines_that_die(daemon: Any, run: Callable[..., Program], how: str, sanitizer: str) -> None:
    program = run(RECONNECT_MS, how, sanitizer=sanitizer)
    for _ in range(KILLS):
        wait_for_work(daemon)
        kill_engine(daemon)
    wait_for_work(daemon)
    counted = program.finish()
    assert counted["restarted"] == 0, "nothing acknowledged is in doubt: flushes succeed"
    assert counted["flushes"] > KILLS
    assert counted["unknowns"] < counted["writes"] / 2
    assert counted["reads"] > KILLS
    assert daemon.engine["ops"]["read"]["count"] > 0, "the last engine has served reads"


@pytest.mark.parametrize("how", ["threads", "loop"])
def test_load_loses_nothing_when_the_daemon_stops_in_order(daemon: Any, run: Callable[..., Program], how: str) -> None:
    program = run(RECONNECT_MS, how)
    for _ in range(KILLS):
        wait_for_work(daemon)
        assert daemon.stop() == 0
        daemon.start()
    wait_for_work(daemon)
    counted = program.finish()
    assert (counted["unknowns"], counted["restarted"]) == (0, 0)
    assert daemon.engine["ops"]["write"]["count"] > 0


def test_paths_are_served_by_the_next_engine(daemon: Any, run: Callable[..., Program]) -> None:
    """The length of a path is not taken for a handle, and the export's handle is another one there."""
    program = run(RECONNECT_MS)
    file = program.say("open", "scratch/first", RDWR)
    names = program.say("open", "scratch", NAMES)
    assert program.say("write-file", "file", names, 5000) == 5000
    for restart in (lambda: kill_engine(daemon), lambda: (daemon.stop(), daemon.start())):
        restart()
        assert program.say("stat-name", "file", names) == 5000
        assert program.say("read-file", "file", names) == 5000
        assert program.say("write-file", "file", names, 6000) == 6000
        assert program.say("read-file", "file", names) == 6000
        assert program.say("write-file", "file", names, 5000) == 5000
    assert program.say("read-file", "missing", names) == -errno.ENOENT
    assert program.say("close", "x", names) == program.say("close", "x", file) == 0
    assert (daemon.path / "file").read_bytes() == b"f" * 5000


def test_the_session_ends_with_its_engine_without_reconnect_timeout(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(0)
    handle = program.say("open", "scratch/file", RDWR)
    os.kill(daemon.engine["pid"], signal.SIGKILL)
    began_s = time.monotonic()
    assert program.say("read", "x", handle, 1) == -errno.ECONNRESET
    assert time.monotonic() - began_s < RECONNECT_MS / 1000
    assert program.say("ended") == errno.ECONNRESET


def test_the_session_ends_when_no_engine_comes_in_time(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(500)
    handle = program.say("open", "scratch/file", RDWR)
    daemon.stop(signal.SIGTERM)
    began_s = time.monotonic()
    assert program.say("wait", "-", 1_000_000) == -errno.ETIMEDOUT, "a wait keeps its timeout while there is no engine"
    assert program.say("read", "x", handle, 1) == -errno.ECONNRESET
    assert time.monotonic() - began_s > 0.3
    program.send("write", "x", handle, 1)
    said = program.answer()
    assert said.startswith(f"{-errno.ECONNRESET} ")
    assert "start aiod" in said
    assert program.say("open", "scratch/file", READ) == -errno.ECONNRESET
    assert program.say("ended") == errno.ECONNRESET


def test_a_kicked_session_does_not_reconnect(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/file", RDWR)
    (client,) = [c["id"] for c in daemon.json("clients")["clients"] if c["software"] == "libaiod"]
    daemon.ctl("kick", client)
    began_s = time.monotonic()
    program.send("read", "x", handle, 1)
    assert program.answer().startswith(f"{-errno.ECONNRESET} ")
    assert time.monotonic() - began_s < RECONNECT_MS / 1000


def test_reconnecting_waits_for_the_grace_period(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/file", RDWR)
    assert program.say("write", "x", handle, 3) == 3
    with aiod_client.connect(daemon.endpoint, transport="zmq") as client:
        client.open("scratch/file")
        kill_engine(daemon)
        assert program.say("read", "x", handle, 5) == 3
        daemon.wait_logged("1 sessions did not reconnect")


def test_acknowledged_writes_are_flushed_after_the_death_of_an_engine(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(RECONNECT_MS)
    file, removed, renamed = (program.say("open", f"scratch/{name}", RDWR) for name in ("file", "removed", "renamed"))
    reader = program.say("open", "scratch/file", READ)
    for handle in (file, removed, renamed):
        assert program.say("write", "a", handle, 5000) == 5000
    (daemon.path / "removed").unlink()
    (daemon.path / "renamed").rename(daemon.path / "other")
    (daemon.path / "renamed").write_bytes(b"x")
    for _ in range(2):
        kill_engine(daemon)
        assert [program.say("flush", "-", handle) for handle in (file, removed, renamed)] == [0, 0, 0]
        assert [program.say("read", "a", handle, 5000) for handle in (file, removed, renamed, reader)] == [5000] * 4
        assert program.say("write", "a", renamed, 6000) == 6000
    assert [program.say("close", "-", handle) for handle in (file, removed, renamed, reader)] == [0] * 4
    assert (daemon.path / "other").read_bytes() == b"a" * 6000
    wait_until(lambda: daemon.engine["files"] == 0, "the engine has closed all of them")


def test_an_engine_that_dies_in_the_grace_period_is_followed(daemon: Any, run: Callable[..., Program]) -> None:
    """The program has reopened its files there, and waits for another client, which does not come."""
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/file", RDWR)
    assert program.say("write", "x", handle, 3) == 3
    with aiod_client.connect(daemon.endpoint, transport="zmq") as client:
        client.open("scratch/file")
        kill_engine(daemon)
        program.send("flush", "-", handle)
        wait_until(lambda: daemon.engine["files"] >= 1, "it has reopened its file")
        kill_engine(daemon)
        assert program.answer().split()[0] == "0"
    assert program.say("read", "x", handle, 3) == 3


def test_the_first_flush_after_the_death_of_the_daemon_reports_unflushed_changes(
    daemon: Any, run: Callable[..., Program]
) -> None:
    """Nothing has kept a descriptor of the files."""
    program = run(RECONNECT_MS)
    dirty, clean = (program.say("open", f"scratch/{name}", RDWR) for name in ("dirty", "clean"))
    assert program.say("write", "c", clean, 5000) == 5000
    assert program.say("flush", "-", clean) == 0
    assert program.say("write", "d", dirty, 5000) == 5000
    kill_daemon(daemon)
    assert program.say("flush", "-", clean) == 0
    program.send("flush", "-", dirty)
    said = program.answer()
    assert said.startswith(f"{-errno.EIO} ")
    assert "earlier data may be lost" in said
    assert program.say("flush", "-", dirty) == 0, "once"
    assert program.say("read", "d", dirty, 5000) == 5000
    assert program.say("write", "e", dirty, 5000) == 5000
    daemon.stop()
    daemon.start()
    assert program.say("flush", "-", dirty) == 0, "the daemon has flushed before it ended"
    assert program.say("close", "-", dirty) == 0
    assert program.say("flush", "-", dirty) == -errno.EBADF


def test_a_write_of_unknown_outcome_is_not_repeated(daemon: Any, run: Callable[..., Program]) -> None:
    (daemon.path / "file").write_bytes(b"before")
    config = daemon.config_path.read_text()
    daemon.config_path.write_text(
        config.replace("[exports.scratch]", "[exports.scratch]\niops_max = 1\nburst_s = 0.01")
    )
    daemon.ctl("reload")
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/file", RDWR)
    pid = daemon.engine["pid"]
    for word in ("begin-read", "begin-read", "begin-write"):  # each waits a second for the one before it
        program.say(word, "w", handle, 6)
    wait_until(lambda: untaken(pid) == 0, "the engine has taken them")
    os.kill(pid, signal.SIGKILL)
    program.send("end")
    program.send("end")
    program.send("end")
    assert [program.answer() for _ in range(3)] == ["6 0", "6 0", f"{-errno.EIO} {UNKNOWN}"]
    assert (daemon.path / "file").read_bytes() == b"before"
    program.say("begin-read", "-", handle, 6)
    program.say("begin-write", "a", handle, 6)
    assert daemon.stop() == 0
    daemon.start()
    program.say("begin-write", "z", handle, 6)
    program.send("end")
    program.send("end")
    program.send("end")
    assert [program.answer() for _ in range(3)] == ["6 0", "6 0", "6 0"], "an orderly stop leaves no doubt"
    assert set((daemon.path / "file").read_bytes()) <= set(b"az")


def test_a_write_that_the_engine_has_not_taken_is_repeated(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/file", RDWR)
    assert program.say("write", "a", handle, 6) == 6
    freeze(pid := daemon.engine["pid"])
    program.send("write", "b", handle, 6)
    wait_until(lambda: untaken(pid) == 1, "the write lies in the ring")
    os.kill(pid, signal.SIGKILL)
    assert program.answer() == "6"
    assert (daemon.path / "file").read_bytes() == b"bbbbbb"


def test_requests_submitted_without_an_engine_wait_for_the_next(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/file", RDWR)
    daemon.stop()
    assert program.say("wait", "-", 200_000_000) == -errno.ETIMEDOUT, "the program has noticed the loss"
    program.say("begin-write", "m", handle, 6)
    assert program.say("wait", "-", 100_000_000) == -errno.ETIMEDOUT
    daemon.start()
    program.send("end")
    assert program.answer() == "6 0"
    assert (daemon.path / "file").read_bytes() == b"m" * 6


def test_buffers_keep_address_and_contents(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(RECONNECT_MS, sanitizer="address,undefined")
    handle = program.say("open", "scratch/file", RDWR)
    assert program.say("alloc", "a", 1 << 20) == 1, "the whole area"
    for offset in (0, 1 << 20):
        kill_engine(daemon)
        assert program.say("is", "a") == 1
        assert program.say("kwrite", "-", handle, offset) == 1 << 20
    assert (daemon.path / "file").read_bytes() == b"a" * (2 << 20)
    (daemon.path / "file").write_bytes(b"b" * (1 << 20))
    assert program.say("kread", "-", handle, 0) == 1 << 20
    assert program.say("is", "b") == 1
    assert program.say("read", "b", handle, 1) == -errno.ENOBUFS, "the caller holds the whole area"
    program.say("free")
    assert program.say("read", "b", handle, 5000) == 5000
    assert program.say("alloc", "c", 1 << 20) == 1
    assert program.say("kwrite", "-", handle, 0) == 1 << 20
    assert (daemon.path / "file").read_bytes() == b"c" * (1 << 20)


def test_replaced_and_removed_files_are_lost(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(RECONNECT_MS)
    changed, gone, same = (program.say("open", f"scratch/{name}", RDWR) for name in ("changed", "gone", "same"))
    assert program.say("write", "s", same, 5) == 5
    (daemon.path / "changed").rename(daemon.path / "moved")
    (daemon.path / "changed").write_bytes(b"x")
    (daemon.path / "gone").unlink()
    kill_daemon(daemon)
    program.send("read", "x", changed, 1)
    said = program.answer()
    assert said.startswith(f"{-errno.ESTALE} ")
    assert "could not be opened again" in said
    assert program.say("write", "x", gone, 1) == -errno.ENOENT
    assert program.say("read", "s", same, 5) == 5
    assert program.say("close", "-", gone) == 0
    assert program.say("close", "-", gone) == -errno.EBADF
    assert program.say("open", "scratch/gone", RDWR) > 0
    wait_until(lambda: daemon.engine["files"] == 2, "the replaced file is closed at the engine")


def test_open_and_close_wait_for_the_next_engine(daemon: Any, run: Callable[..., Program]) -> None:
    program = run(RECONNECT_MS)
    handle = program.say("open", "scratch/file", RDWR)
    daemon.stop()
    program.send("open", "scratch/other", RDWR)
    time.sleep(0.2)
    daemon.start()
    other = int(program.answer().split()[0])
    assert other > 0
    assert other != handle
    daemon.stop()
    program.send("close", "-", handle)
    time.sleep(0.2)
    daemon.start()
    assert program.answer() == "0"
    assert program.say("write", "o", other, 3) == 3
    assert (daemon.path / "other").read_bytes() == b"ooo"


def test_an_open_refused_by_a_stopping_daemon_is_asked_of_the_next(
    new_daemon: Callable[..., Any], frozen: Frozen, build: Callable[[str], Path]
) -> None:
    daemon = new_daemon(**{"exports.frozen": {"path": str(frozen.path)}, "": {"drain_timeout_s": 60.0}})
    daemon.start()
    program = Program(build(""), daemon, str(RECONNECT_MS))
    try:
        assert program.say("open", "scratch/file", RDWR) > 0
        drain(daemon, frozen)
        program.send("open", "scratch/other", RDWR)
        daemon.json("clients")  # meanwhile the engine refuses the open
        frozen.thaw()
        assert daemon.process.wait(scaled(60)) == 0
        daemon.start()
        assert int(program.answer().split()[0]) > 0
    finally:
        program.kill()


@pytest.mark.parametrize("reconnect_ms", [0, RECONNECT_MS])
def test_a_file_opened_after_the_timeout_is_closed(daemon: Any, run: Callable[..., Program], reconnect_ms: int) -> None:
    program = run(f"{reconnect_ms}:100")
    handle = program.say("open", "scratch/file", RDWR)
    os.kill(pid := daemon.engine["pid"], signal.SIGSTOP)
    try:
        program.send("open", "scratch/late", RDWR)
        said = program.answer()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert said.startswith(f"{-errno.ETIMEDOUT} ")
    assert "unknown whether done" in said
    wait_until((daemon.path / "late").exists, "the engine has opened the file")
    while program.say("open", "scratch/file", READ) == -errno.ETIMEDOUT:  # on a slow machine
        pass
    wait_until(lambda: daemon.engine["files"] == 2, "the late file is closed")
    assert program.say("write", "x", handle, 3) == 3
