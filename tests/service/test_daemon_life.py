"""Start, drain, stop, restart; two daemons on one directory; leftovers of a dead one."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq

import aiod_client
from aiod_protocol import wire
from tests.conftest import freeze, listens
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20


def engine_pid(daemon: Any) -> int:
    """The process id of the only engine."""
    return int(daemon.engine["pid"])


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def run_aiod(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `aiod` to its end."""
    command = [sys.executable, "-m", "aiod", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=scaled(60), check=False, env=os.environ | environment
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_nothing_acknowledged_is_lost(new_daemon: Callable[..., Any], number: int) -> None:
    daemon = new_daemon()
    daemon.start()
    pid = engine_pid(daemon)
    with aiod_client.connect(daemon.endpoint) as client:
        file = client.open("scratch/drained", "w+")
        futures = file.submit([("write", bytes([index]) * MIB, index * MIB) for index in range(64)])
        futures[0].result(timeout=scaled(60))
        assert daemon.stop(number) == 0
        written = []
        for index, future in enumerate(futures):
            error = future.exception(timeout=scaled(60))
            if error is None:
                written.append(index)
            else:
                assert isinstance(error, OSError)
                assert error.errno in {errno.ESHUTDOWN, errno.ECONNRESET}
    assert written
    data = (daemon.path / "drained").read_bytes()
    for index in written:
        assert data[index * MIB : (index + 1) * MIB] == bytes([index]) * MIB
    assert not alive(pid)
    assert sorted(path.name for path in daemon.runtime_dir.iterdir()) == ["aiod.lock", "engine-main.lock"]


def test_a_second_signal_stops_the_daemon_at_once(
    new_daemon: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    daemon = new_daemon(**{"": {"drain_timeout_s": 600.0}})
    daemon.start()
    pid = engine_pid(daemon)
    freeze(pid)
    daemon.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "draining" in daemon.log, "the first signal is noticed")
    assert daemon.stop() == 1
    assert not alive(pid)


def test_the_drain_timeout_bounds_the_stop(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"": {"drain_timeout_s": 0.2}})
    daemon.start()
    pid = engine_pid(daemon)
    freeze(pid)
    assert daemon.stop() == 1
    daemon.wait_logged("killing it")
    assert not alive(pid)


def test_signals_of_the_terminal_do_not_end_the_engine(daemon: Any) -> None:
    pid = engine_pid(daemon)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert engine_pid(daemon) == pid
    assert daemon.stop() == 0


def test_a_daemon_has_no_processes_but_its_engines(daemon: Any, wait_until: Callable[..., None]) -> None:
    def children() -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()]

    first = engine_pid(daemon)
    assert children() == [first]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: daemon.engine["state"] == "serving" and engine_pid(daemon) != first, "another engine")
    assert children() == [engine_pid(daemon)]


def test_an_engine_that_dies_is_replaced(daemon: Any, wait_until: Callable[..., None]) -> None:
    first = daemon.engine
    with aiod_client.connect(daemon.endpoint) as client:
        file = client.open("scratch/kept", "w+")
        file.pwrite(b"acknowledged", 0)
        os.kill(first["pid"], signal.SIGKILL)
        with pytest.raises(ConnectionError):
            file.pread(1, 0)
        wait_until(lambda: daemon.engine["state"] == "serving" and daemon.engine["restarts"] == 1, "a new engine")
        assert client.open("scratch/kept").pread(12, 0) == b"acknowledged"
    second = daemon.engine
    assert second["pid"] != first["pid"]
    assert second["incarnation"] > first["incarnation"]
    daemon.wait_logged(f"engine main (pid {first['pid']}) was killed by SIGKILL")


def test_opens_fail_with_the_reason_while_an_engine_is_missing(daemon: Any, wait_until: Callable[..., None]) -> None:
    """While its lock is held, for example by a worker in the kernel, no replacement starts."""
    pid = engine_pid(daemon)
    with (daemon.runtime_dir / "engine-main.lock").open("rb+") as lock:
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), "the engine is dead")
        wait_until(lambda: _taken(lock), "its lock is ours")
        with aiod_client.connect(daemon.endpoint) as client:
            wait_until(lambda: "waiting for pid" in daemon.log, "the supervisor waits for the lock")
            with pytest.raises(OSError, match=f"pid {pid}.*SIGKILL") as caught:
                client.open("scratch/x", "w")
            assert caught.value.errno == errno.EIO
            assert daemon.engine["state"] == "failed"
            fcntl.flock(lock, fcntl.LOCK_UN)
            wait_until(lambda: daemon.engine["state"] == "serving", "a new engine")
            client.open("scratch/x", "w").close()


def _taken(lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_engines_end_with_their_supervisor(daemon: Any, wait_until: Callable[..., None]) -> None:
    pid = engine_pid(daemon)
    daemon.process.kill()
    daemon.process.wait()
    wait_until(lambda: not alive(pid), "the engine has ended by itself")
    daemon.wait_logged("the supervisor is gone")


def test_a_stale_socket_does_not_prevent_the_start(daemon: Any) -> None:
    pid = engine_pid(daemon)
    os.kill(pid, signal.SIGKILL)
    daemon.process.kill()
    daemon.process.wait()
    assert (daemon.runtime_dir / "aiod.sock").is_socket()
    daemon.start()
    assert engine_pid(daemon) != pid
    stale = [path for path in daemon.runtime_dir.glob("engine-*.sock") if not listens(path)]
    assert not stale


def test_a_second_daemon_on_one_runtime_directory_is_refused(daemon: Any) -> None:
    second = run_aiod("--config", str(daemon.config_path))
    assert second.returncode == 1
    assert f"another aiod (pid {daemon.pid}) is running" in second.stderr
    assert daemon.ctl("ping").returncode == 0
    with aiod_client.connect(daemon.endpoint) as client:
        client.open("scratch/x", "w").close()


def test_a_runtime_directory_of_another_user_is_refused(tmp_path: Path, disk_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a directory another user's")
    theirs = disk_path / "theirs"  # whose path is short
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    config = tmp_path / "aiod.toml"
    config.write_text(f'runtime_dir = "{theirs}"\n[exports.x]\npath = "{tmp_path}"\n')
    done = run_aiod("--config", str(config))
    assert (done.returncode, "belongs to uid 65534" in done.stderr) == (1, True), done.stderr


def test_check_config_reports_errors(tmp_path: Path) -> None:
    config = tmp_path / "aiod.toml"
    config.write_text('runtime_dir = "/run/aiod"\n[exports.x]\npath = "/x"\n')
    done = run_aiod("--config", str(config), "--check-config")
    assert (done.returncode, done.stdout) == (0, f"{config}: ok, exports: x\n")
    config.write_text('runtime_dir = "/run/aiod"\n[exports.x]\npath = "x"\n[engine.main]\nmax_thread = 1\n')
    done = run_aiod("--check-config", AIOD_CONFIG=str(config))
    assert done.returncode == 1
    assert f"{config}: exports.x.path: not an absolute path" in done.stderr
    assert f"{config}: engine.main.max_thread: unknown key" in done.stderr
    assert run_aiod("--nonsense").returncode == 2


def test_a_runtime_directory_too_long_for_a_socket_is_refused() -> None:
    done = run_aiod(XDG_RUNTIME_DIR="/tmp/" + "x" * 100)
    assert done.returncode == 1
    assert "unix sockets allow 107" in done.stderr


def test_the_embedded_default_serves_scratch(disk_path: Path, wait_until: Callable[..., None]) -> None:
    """Without a config file: a private directory, one engine, one export in a directory that the daemon creates."""
    environment = os.environ | {"XDG_RUNTIME_DIR": "/tmp/" + disk_path.name, "XDG_STATE_HOME": str(disk_path)}
    runtime_dir = Path(environment["XDG_RUNTIME_DIR"]) / "aiod"
    log = disk_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "aiod"], env=environment, stderr=output)
    try:
        endpoint = f"ipc://{runtime_dir}/aiod.sock"
        wait_until(lambda: listens(runtime_dir / "aiod.sock") or process.poll() is not None, "its socket")
        assert runtime_dir.stat().st_mode & 0o777 == 0o700
        with aiod_client.connect(endpoint) as client, client.open("scratch/x", "w+") as file:
            assert file.pwrite(b"data", 0) == 4
        assert (disk_path / "aiod" / "scratch" / "x").read_bytes() == b"data"
    finally:
        process.terminate()
        assert process.wait(scaled(60)) == 0, log.read_text()
        for path in (*runtime_dir.iterdir(), runtime_dir, runtime_dir.parent):
            path.rmdir() if path.is_dir() else path.unlink()


def test_the_handles_of_a_dead_client_are_closed(daemon: Any, wait_until: Callable[..., None]) -> None:
    program = (
        "import sys, aiod_client\n"
        "file = aiod_client.connect(sys.argv[1]).open('scratch/held', 'w')\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, daemon.endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"open\n"
    (client,) = daemon.json("clients")["clients"]
    assert (client["pid"], client["uid"], client["handles"]) == (child.pid, os.getuid(), 1)
    child.kill()
    child.communicate()
    wait_until(lambda: daemon.engine["files"] == 0, "its file is closed")
    wait_until(lambda: daemon.json("clients")["clients"] == [], "its session has ended")
    daemon.wait_logged("its process has exited")


def test_the_session_of_a_silent_client_is_ended(
    new_daemon: Callable[..., Any], connect: Callable[[str], Any], locate: Callable[[str], str],
    wait_until: Callable[..., None],
) -> None:  # fmt: skip
    daemon = new_daemon(sessions={"heartbeat_s": 0.2, "session_timeout_s": 2.0})
    daemon.start()
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/lively", "w+") as file:
        raw = connect(locate(daemon.endpoint))
        raw.hello()
        raw.handle("silent")
        wait_until(lambda: daemon.engine["files"] == 1, "the silent one's file is closed")
        daemon.wait_logged("no message for 2 s")
        # The library has sent heartbeats by itself all the time.
        assert file.pwrite(b"x", 0) == 1


def test_the_session_of_a_client_that_does_not_read_its_replies_is_ended(
    daemon: Any, connect: Callable[[str], Any], locate: Callable[[str], str], wait_until: Callable[..., None]
) -> None:
    """Otherwise its replies would pile up without a bound."""
    raw = connect(locate(daemon.endpoint))
    raw.dealer.setsockopt(zmq.RCVHWM, 1)
    raw.hello()
    end_s = time.monotonic() + 60
    while daemon.engine["sessions"] and time.monotonic() < end_s:
        for _ in range(500):
            raw.send(wire.MessageType.HEARTBEAT, raw.token)
    wait_until(lambda: daemon.engine["sessions"] == 0, "the session has been ended")
