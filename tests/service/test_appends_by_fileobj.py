"""Python file objects that append: short writes continue without duplicates, unknown outcomes are not repeated."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import fileobj
from tests.conftest import freeze, kill, wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Daemon

KIB = 1024
LIMIT = 100 * KIB + 7
DATA = bytes(range(1, 252)) * (300 * KIB // 251)
RECORD = b"one record\n"


@pytest.fixture(name="daemon")
def daemon_fixture(renewed_daemon: Daemon) -> Daemon:
    """The same one for all tests."""
    return renewed_daemon


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


@pytest.fixture(params=["a", "w"])
def mode(request: pytest.FixtureRequest) -> Any:
    """Appending, and writing at a position."""
    return request.param


@pytest.fixture
def client(daemon: Any, transport: Any) -> Iterator[aiod_client.Client]:
    """A client of an engine that makes no file larger than LIMIT; its ring was made before the limit."""
    with aiod_client.connect(daemon.endpoint, transport=transport, timeout=scaled(60)) as client:
        client.open("scratch/file", "w").close()
        limit(daemon, LIMIT)
        yield client
    limit(daemon, resource.RLIM_INFINITY)


def limit(daemon: Any, file_bytes: int) -> None:
    """Set the engine's limit of file sizes."""
    resource.prlimit(daemon.engine["pid"], resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))


@pytest.mark.parametrize("size", [4 * KIB, 32 * KIB, 128 * KIB, 512 * KIB])
def test_after_a_short_write_the_buffer_keeps_the_unwritten_bytes(
    daemon: Any, client: Any, mode: str, size: int
) -> None:
    """tell() is right however much of a write is buffered or written, and nothing is written twice."""
    with fileobj.open(client, "scratch/file", mode, size) as file:
        with pytest.raises(OSError, match="EFBIG"):
            write_all(file)
        assert (daemon.path / "file").read_bytes() == DATA[:LIMIT]
        limit(daemon, resource.RLIM_INFINITY)
        file.write(DATA[file.tell() :])
    assert (daemon.path / "file").read_bytes() == DATA


def write_all(file: Any) -> None:
    """Write DATA in pieces that are not multiples of a buffer's size."""
    for start in range(0, len(DATA), 40 * KIB):
        file.write(DATA[start : start + 40 * KIB])
    file.flush()


def test_a_short_write_is_reported_once(daemon: Any, client: Any, mode: str) -> None:
    path = daemon.path / "file"
    with fileobj.open(client, "scratch/file", mode, 0) as raw:
        assert raw.write(DATA) == LIMIT
        with pytest.raises(OSError, match="EFBIG") as caught:
            raw.write(DATA[LIMIT:])
        assert caught.value.written == LIMIT  # type: ignore[attr-defined]
        limit(daemon, resource.RLIM_INFINITY)
        assert raw.write(DATA[LIMIT:]) == len(DATA) - LIMIT
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("use", ["flush", "sync", "truncate", "close"])
def test_an_unnoticed_short_write_is_reported_by_the_next_call(client: Any, mode: str, use: str) -> None:
    raw = fileobj.open(client, "scratch/file", mode, 0)
    assert raw.write(DATA) == LIMIT
    with pytest.raises(OSError, match="EFBIG"):
        getattr(raw, use)()
    raw.close()
    assert raw.closed
    assert raw._file.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize("buffering", [0, -1, 4 * KIB])
def test_copyfileobj_raises_after_a_short_write(daemon: Any, client: Any, mode: str, buffering: int) -> None:
    with pytest.raises(OSError, match="EFBIG"), fileobj.open(client, "scratch/file", mode, buffering) as file:
        shutil.copyfileobj(io.BytesIO(DATA), file, 64 * KIB)
    assert (daemon.path / "file").read_bytes() == DATA[:LIMIT]


def test_a_dropped_buffer_writes_nothing_twice(daemon: Any, client: Any, mode: str) -> None:
    file = fileobj.open(client, "scratch/file", mode, 2 * len(DATA))
    file.write(DATA)
    with pytest.raises(OSError, match="EFBIG"):
        file.flush()
    limit(daemon, resource.RLIM_INFINITY)
    del file
    assert (daemon.path / "file").read_bytes() == DATA


# ---- in doubt -------------------------------------------------------------------------------------------------------


def test_an_append_of_unknown_outcome_is_not_repeated(daemon: Any, transport: Any) -> None:
    """The engine dies during the append; flush, close and __del__ of the buffer must not send it to the next engine."""
    with aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=scaled(60)) as client:
        file = fileobj.open(client, "scratch/log", "a")
        file.write(RECORD)
        pid = daemon.engine["pid"]
        freeze(pid)
        killer = threading.Thread(target=kill_when_sent, args=(file.raw._file._link, pid))  # type: ignore[attr-defined]
        killer.start()
        with pytest.raises(OSError, match="unknown whether done"):
            file.flush()
        killer.join()
        for name, arguments in (("flush", ()), ("write", (bytes(2 * fileobj.BUFFER_BYTES),)), ("close", ())):
            with pytest.raises(aiod_client.AiodError, match=r"scratch/log: unknown whether done: .*open it again"):
                getattr(file, name)(*arguments)
        del file
        assert (daemon.path / "log").read_bytes() == b""
        with fileobj.open(client, "scratch/log", "a") as again:
            again.write(RECORD)
        assert (daemon.path / "log").read_bytes() == RECORD


def kill_when_sent(link: Any, pid: int) -> None:
    wait_until(lambda: link.pending, "the append is sent")
    kill(pid)


def test_writes_at_a_position_continue_with_the_next_engine(daemon: Any, transport: Any) -> None:
    with aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=scaled(60)) as client:
        with fileobj.open(client, "scratch/file", "w") as file:
            file.write(RECORD)
            file.flush()
            kill(daemon.engine["pid"])
            file.write(RECORD)
        assert (daemon.path / "file").read_bytes() == RECORD * 2


class InterruptionError(Exception):
    """Raised by a signal handler."""


def interrupt(*_: object) -> None:
    raise InterruptionError


def test_an_append_that_a_signal_handler_interrupts_is_not_repeated(daemon: Any, transport: Any) -> None:
    usual = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with aiod_client.connect(daemon.endpoint, transport=transport) as client:
            file = fileobj.open(client, "scratch/log", "a")
            file.write(RECORD)
            pid = daemon.engine["pid"]
            freeze(pid)
            link = file.raw._file._link  # type: ignore[attr-defined]
            interrupter = threading.Thread(target=interrupt_when_sent, args=(link,))
            interrupter.start()
            with pytest.raises(InterruptionError):
                file.flush()
            interrupter.join()
            os.kill(pid, signal.SIGCONT)
            for use in (file.flush, file.close):
                with pytest.raises(aiod_client.AiodError, match="unknown whether done"):
                    use()
            assert (daemon.path / "log").read_bytes() in {b"", RECORD}
    finally:
        signal.signal(signal.SIGUSR1, usual)


def interrupt_when_sent(link: Any) -> None:
    main = threading.main_thread().ident
    assert main is not None
    wait_until(lambda: link.pending, "the append is sent")
    signal.pthread_kill(main, signal.SIGUSR1)
