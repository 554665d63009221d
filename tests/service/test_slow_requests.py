"""I/O that hangs on a frozen file system: it is logged, other requests continue, and its workers are replaced."""

from __future__ import annotations

import contextlib
import errno
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

import aiod_client
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from tests.service.frozen import Frozen

SLOW_MS = 100
DRAIN_TIMEOUT_S = 1.0
STOP_MARGIN_S = scaled(10.0)
Transport = Literal["auto", "ring", "zmq"]
BLOCK = b"12345678" * 512
HUNG_TIMEOUT_S = 60.0


def sections(frozen: Frozen, **keys: Any) -> dict[str, Any]:
    """Sections of a configuration: the engine main, with two workers, serves `frozen`; `keys` are the engine's."""
    return {
        "": {"drain_timeout_s": DRAIN_TIMEOUT_S},
        "exports.frozen": {"path": str(frozen.path)},
        "exports.as-client": {"path": str(frozen.path), "as_client": True},
        "exports.third": {"path": str(frozen.path)},
        "exports.etc-as-client": {"path": "/etc", "as_client": True, "read_only": True},
        "exports.other": {"path": "/usr/include", "engine": "other", "read_only": True},
        "engine.main": {"max_threads": 2, "slow_request_ms": SLOW_MS, "idle_timeout_s": 0.5} | keys,
        "engine.other": {},
    }


@pytest.fixture(name="serve")
def serve_fixture(new_daemon: Callable[..., Any], frozen: Frozen) -> Iterator[Callable[..., Any]]:
    """Starts a daemon with these sections; thaws before it ends."""

    def serve(**keys: Any) -> Any:
        daemon = new_daemon(**sections(frozen, **keys))
        daemon.start()
        return daemon

    yield serve
    frozen.thaw()


def engine(daemon: Any, name: str = "main") -> dict[str, Any]:
    return next(engine for engine in daemon.json("stats")["engines"] if engine["name"] == name)


def stuck(daemon: Any) -> int:
    return int(engine(daemon)["pool"]["stuck_threads"])


@contextlib.contextmanager
def connected(daemon: Any, transport: Transport = "auto") -> Iterator[aiod_client.Client]:
    with aiod_client.connect(daemon.endpoint, timeout=HUNG_TIMEOUT_S, transport=transport) as client:
        yield client


def why_timed_out(future: Future[Any]) -> str:
    error = future.exception(timeout=scaled(60))
    assert isinstance(error, OSError)
    assert error.errno == errno.ETIMEDOUT
    return str(error)


def open_files(pid: int, under: str) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(under)]


@pytest.mark.parametrize("transport", ["ring", "zmq"])
def test_other_files_are_served_while_requests_of_one_hang(
    serve: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None], transport: Transport
) -> None:
    daemon = serve()
    with connected(daemon, transport) as client:
        files = [client.open(f"frozen/{name}", "w+") for name in ("a", "b")]
        other = client.open("scratch/other", "w+")
        before = engine(daemon)["ops"]["write"]["count"]
        frozen.freeze()
        hanging = [files[0].submit([("write", BLOCK, 4096)])[0], files[1].submit([("write", BLOCK[:1000], 512)])[0]]
        wait_until(lambda: stuck(daemon) == 2, "both workers are seen to be stuck")

        assert other.pwrite(BLOCK, 0) == len(BLOCK)
        other.flush()
        assert other.pread(len(BLOCK), 0) == BLOCK
        with connected(daemon) as second, second.open("scratch/second", "w+") as file:
            assert file.pwrite(b"x", 0) == 1
        with connected(daemon) as third, third.open("other/stdio.h") as file:
            assert file.pread(10, 0)

        listed = daemon.json("requests")
        requests = listed["requests"]
        # sorted: one that io_uring has returned to the queue was begun by its worker after the other one
        assert sorted((each["op"], each["file"], each["offset"], each["bytes"]) for each in requests) == [
            ("write", "frozen/a", 4096, 4096),
            ("write", "frozen/b", 512, 1000),
        ]
        (client_id,) = {each["client"] for each in requests}
        assert client_id in {each["id"] for each in daemon.json("clients")["clients"]}
        assert {each["tid"] for each in requests} < {
            thread["tid"] for process in daemon.json("threads")["engines"] for thread in process["threads"]
        }
        assert all(each["age_s"] * 1000 >= SLOW_MS and each["engine"] == "main" for each in requests)
        assert daemon.json("requests", "other")["requests"] == []
        assert listed["engines"][0] == {"name": "main", "queued": 0, "stuck_threads": 2}
        assert "frozen/b" in daemon.ctl("requests", "main").stdout
        assert engine(daemon)["slow_requests"] == 2
        assert engine(daemon)["pool"]["max_threads"] == 2
        assert engine(daemon, "other")["slow_requests"] == 0

        assert not any(future.done() for future in hanging)
        frozen.thaw()
        assert [future.result(timeout=scaled(60)) for future in hanging] == [4096, 1000]
        wait_until(lambda: stuck(daemon) == 0 and engine(daemon)["pool"]["cur_threads"] <= 2, "the pool shrinks back")
        assert daemon.json("requests")["requests"] == []
        assert files[0].pread(4096, 4096) == BLOCK
        assert engine(daemon)["ops"]["write"]["count"] == before + 4  # each once

    slow = [line for line in daemon.log.splitlines() if "slow: " in line]
    assert len(slow) == 2
    (of_a,) = (line for line in slow if "frozen/a" in line)
    assert f"write of 4096 bytes at 4096 on frozen/a, client {client_id}, for " in of_a
    assert re.search(r"worker \d+ waits in \w+ \(system call \d+\), stack: \w+ < \w+", of_a), of_a


def test_at_most_stuck_threads_max_workers_are_replaced(
    serve: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None]
) -> None:
    daemon = serve(stuck_threads_max=1)
    with connected(daemon) as client:
        files = [client.open(path, "w+") for path in ("frozen/a", "as-client/b", "third/c")]
        other = client.open("scratch/other", "w+")
        frozen.freeze()
        hanging = [file.submit([("write", BLOCK, number * 4096)])[0] for file in files for number in range(2)]
        wait_until(lambda: stuck(daemon) == 3, "two workers, and one beyond max_threads")
        (waiting,) = other.submit([("write", BLOCK, 0)])
        wait_until(lambda: daemon.json("requests")["engines"][0]["queued"] == 4, "three hang, in any order")
        daemon.write_config(sections(frozen))
        assert "stuck_threads_max: 1 -> 16" in daemon.ctl("reload").stdout
        assert waiting.result(timeout=scaled(60)) == len(BLOCK)
        frozen.thaw()
        assert [future.result(timeout=scaled(60)) for future in hanging] == [len(BLOCK)] * 6


@pytest.mark.parametrize("transport", ["ring", "zmq"])
def test_requests_of_a_hanging_export_leave_workers_to_other_exports(
    serve: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None], transport: Transport
) -> None:
    """Also with many queued requests of the hanging export."""
    daemon = serve(max_threads=4, stuck_threads_max=2)
    with connected(daemon, transport) as client, connected(daemon, transport) as healthy:
        file = client.open("frozen/a", "w+")
        frozen.freeze()
        hanging = [file.submit([("write", BLOCK, number * 4096)])[0] for number in range(100)]
        wait_until(lambda: stuck(daemon) >= 2, "the allowed number of workers hangs")
        for number in range(20):
            with healthy.open(f"scratch/{number}", "w+") as other:
                assert other.pwrite(BLOCK, 0) == len(BLOCK)
                other.flush()
        assert client.stat("scratch/0").size == len(BLOCK)
        assert stuck(daemon) <= 4
        assert not any(future.done() for future in hanging)
        frozen.thaw()
        assert [future.result(timeout=scaled(60)) for future in hanging] == [len(BLOCK)] * 100


def test_opens_of_a_hanging_export_leave_workers_to_other_exports(
    serve: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None]
) -> None:
    """More opens hang than there are workers and replacements."""
    daemon = serve(max_threads=4, stuck_threads_max=2, open_timeout_s=HUNG_TIMEOUT_S)
    with contextlib.ExitStack() as stack:
        hung = stack.enter_context(connected(daemon, "zmq"))
        healthy = stack.enter_context(connected(daemon))
        frozen.freeze()
        pool = stack.enter_context(ThreadPoolExecutor(22))
        hanging: list[Future[Any]] = [pool.submit(hung.open, f"frozen/{i}", "w+") for i in range(10)]
        hanging += [pool.submit(hung.mkdir, f"frozen/dir{i}") for i in range(10)]
        hanging += [pool.submit(hung.utime, "frozen"), pool.submit(hung.rmtree, "frozen/lost+found")]
        wait_until(lambda: stuck(daemon) >= 2, "the allowed number of workers hangs")
        for number in range(20):
            with healthy.open(f"scratch/{number}", "w+") as other:
                assert other.pwrite(BLOCK, 0) == len(BLOCK)
                other.flush()
            healthy.mkdir(f"scratch/dir{number}")
        assert stuck(daemon) <= 4
        assert not any(future.done() for future in hanging)
        frozen.thaw()
        for future in hanging[:-1]:
            future.result(timeout=scaled(60))
        assert isinstance(hanging[-1].exception(timeout=scaled(60)), OSError | None)
        assert len(list(frozen.path.iterdir())) >= 20


def test_hanging_opens_as_client_do_not_affect_other_exports(
    serve: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None]
) -> None:
    """Each export has its own thread for opens as client."""
    daemon = serve()
    with contextlib.ExitStack() as stack:
        hung = stack.enter_context(connected(daemon, "zmq"))
        healthy = stack.enter_context(connected(daemon))
        frozen.freeze()
        pool = stack.enter_context(ThreadPoolExecutor(1))
        hanging = pool.submit(hung.open, "as-client/new", "w+")
        wait_until(lambda: engine(daemon)["slow_requests"] == 1, "it hangs")
        with healthy.open("etc-as-client/passwd") as file:
            assert file.pread(10, 0)
        assert healthy.stat("etc-as-client/passwd").size > 0
        assert not hanging.done()
        frozen.thaw()
        hanging.result(timeout=scaled(60)).close()


def test_a_stop_logs_unfinished_requests_and_does_not_wait_for_them(
    serve: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None]
) -> None:
    daemon = serve()
    with connected(daemon) as client:
        file = client.open("frozen/a", "w+")
        frozen.freeze()
        (hanging,) = file.submit([("write", BLOCK, 8192)])
        wait_until(lambda: stuck(daemon) == 1, "a stuck worker")
        (listed,) = daemon.json("requests")["requests"]
        began_s = time.monotonic()
        assert daemon.stop(signal.SIGTERM) != 0
        assert time.monotonic() - began_s < DRAIN_TIMEOUT_S + STOP_MARGIN_S
        with pytest.raises(OSError, match="unknown whether done"):
            hanging.result(timeout=scaled(60))
    left = f"unfinished at shutdown: write of 4096 bytes at 8192 on frozen/a, client {listed['client']}, for "
    daemon.wait_logged(left)
    daemon.wait_logged("stopping with 1 unfinished requests")


def test_hanging_and_queued_opens_time_out(
    serve: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None]
) -> None:
    """Two opens hang in the two workers; a third one and a directory operation wait in the queue."""
    daemon = serve(open_timeout_s=1.0, slow_request_ms=0)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(daemon, "zmq")) for _ in range(4)]
        (daemon.path / "there").touch()
        frozen.freeze()
        pool = stack.enter_context(ThreadPoolExecutor(len(clients)))
        hanging = [pool.submit(clients[i].open, f"frozen/new{i}", "w+") for i in range(2)]
        wait_until(lambda: len(daemon.json("requests")["requests"]) == 2, "both workers are inside the kernel")
        waiting: list[Future[Any]] = [
            pool.submit(clients[2].open, "scratch/there", "r"),
            pool.submit(clients[3].mkdir, "scratch/dir"),
        ]
        for each in hanging:
            assert "it hangs, unknown whether done; if it succeeds later, the file is closed" in why_timed_out(each)
        for future in waiting:
            assert "it was not executed" in why_timed_out(future)
        listed = daemon.json("requests")["requests"]
        assert sorted((one["op"], one["file"]) for one in listed) == [("open", "frozen/new0"), ("open", "frozen/new1")]
        frozen.thaw()
        wait_until(lambda: engine(daemon)["inflight"] == 0, "they end")
        wait_until(lambda: not open_files(engine(daemon)["pid"], str(frozen.path)), "what they opened is closed")
        assert not (daemon.path / "dir").exists()
        with clients[0].open("frozen/new0", "r+") as file:
            assert file.pwrite(b"x", 0) == 1


def test_hanging_and_queued_opens_as_client_time_out(
    serve: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None]
) -> None:
    """The thread for opens as client hangs: requests that wait for it time out, and workers continue."""
    daemon = serve(open_timeout_s=1.0)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(daemon, "zmq")) for _ in range(2)]
        (daemon.path / "there").touch()  # an open that creates it may take longer, on a disk that stalls
        frozen.freeze()
        pool = stack.enter_context(ThreadPoolExecutor(2))
        hanging: Future[Any] = pool.submit(clients[0].open, "as-client/new", "w+")
        wait_until(lambda: engine(daemon)["slow_requests"] == 1, "it is logged")
        waiting: Future[Any] = pool.submit(clients[1].mkdir, "as-client/dir")
        wait_until(lambda: daemon.json("requests")["engines"][0]["queued"] == 1, "another one waits")
        (listed,) = daemon.json("requests")["requests"]
        assert (listed["op"], listed["file"], listed["state"]) == ("open", "as-client/new", "in service")
        assert "it hangs" in why_timed_out(hanging)
        assert "it was not executed" in why_timed_out(waiting)
        assert clients[0].open("scratch/there", "r+").pwrite(BLOCK, 0) == len(BLOCK)
        frozen.thaw()
        wait_until(lambda: engine(daemon)["inflight"] == 0, "it ends")
        assert not (frozen.path / "dir").exists()
    daemon.wait_logged("slow: open as-client/new, client ")


def test_a_hanging_request_of_an_ended_session_is_still_listed(
    serve: Callable[..., Any], frozen: Frozen, wait_until: Callable[..., None]
) -> None:
    daemon = serve()
    with connected(daemon) as client:
        file = client.open("frozen/a", "w+")
        frozen.freeze()
        file.submit([("truncate", 10)])
        wait_until(lambda: stuck(daemon) == 1, "a stuck worker")
        (listed,) = daemon.json("requests")["requests"]
        daemon.ctl("kick", listed["client"])
        (after,) = daemon.json("requests")["requests"]
        assert (after["op"], after["file"], after["client"]) == ("truncate", "frozen/a", listed["client"])
        frozen.thaw()
        wait_until(lambda: stuck(daemon) == 0, "it ends")
        assert (frozen.path / "a").stat().st_size == 10
