"""Clients and files that are pickled and copied: a client as its configuration, a file as its path and mode."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import multiprocessing
import pickle
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import zmq.auth

import aiod_client
from aiod_client import aio, fileobj
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Daemon

PATIENCE_S = scaled(60.0)
WAYS: list[Callable[[Any], Any]] = [lambda made: pickle.loads(pickle.dumps(made)), copy.copy, copy.deepcopy]  # noqa: S301


@pytest.fixture(params=["zmq", "ring"])
def client(request: pytest.FixtureRequest, shared_daemon: Daemon) -> Iterator[aiod_client.Client]:
    """A client; the daemon has the file scratch/kept."""
    with aiod_client.connect(shared_daemon.endpoint, transport=request.param, timeout=PATIENCE_S) as client:
        client.write_file("scratch/kept", b"kept data")
        yield client


@pytest.fixture(params=WAYS, ids=["pickle", "copy", "deepcopy"])
def again(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Makes another of an object."""
    way: Callable[[Any], Any] = request.param
    return way


def test_a_copied_client_has_sessions_of_its_own(client: aiod_client.Client, again: Any) -> None:
    with client.open("scratch/kept") as file:
        with again(client) as other:
            assert (other.endpoint, other.timeout_s) == (client.endpoint, client.timeout_s)
            assert other._transport == client._transport
            assert other.read_file("scratch/kept") == b"kept data"
            assert other.open("scratch/kept").pread(4, 0) == b"kept"
        assert other.closed
        assert file.pread(4, 0) == b"kept", "the original's session is as before"


def test_a_closed_client_gives_an_open_one(client: aiod_client.Client, again: Any) -> None:
    client.close()
    with again(client) as other:
        assert other.read_file("scratch/kept") == b"kept data"


def test_a_client_is_unpickled_without_a_daemon(socket_dir: Path) -> None:
    made = aiod_client.Client.__new__(aiod_client.Client)
    made._set_up(f"ipc://{socket_dir}/none.sock", 1.0, "auto", None, None, 0.0)
    other = pickle.loads(pickle.dumps(made))  # noqa: S301
    with other, pytest.raises(aiod_client.DaemonUnreachableError):
        other.open("scratch/kept")


def test_a_copied_client_is_dropped_without_a_warning(client: aiod_client.Client, again: Any) -> None:
    other = again(client)
    assert other.read_file("scratch/kept") == b"kept data"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del other
        gc.collect()


def test_the_secret_key_is_pickled_as_the_name_of_its_file(tmp_path: Path) -> None:
    server_key, key = zmq.auth.create_certificates(tmp_path, "mine")
    made = aiod_client.Client.__new__(aiod_client.Client)
    made._set_up("tcp://localhost:1", 1.0, "zmq", key, server_key, 0.0)
    pickled = pickle.dumps(made)
    assert key.encode() in pickled
    assert made._keys is not None
    assert made._keys.secret not in pickled
    assert pickle.loads(pickled)._keys == made._keys  # noqa: S301


@pytest.mark.parametrize(
    ("mode", "direct"), [("r", False), ("r+", False), ("a", False), ("a+", False), ("rb", True), ("r+b", True)]
)
def test_a_copied_file_is_opened_again(client: aiod_client.Client, again: Any, mode: str, *, direct: bool) -> None:
    with client.open("scratch/kept", mode, direct=direct) as file, again(file) as other:
        assert (other.name, other.mode, other.size(), other._direct) == (file.name, mode, 9, direct)
        file.close()
        assert other.size() == 9


def test_files_of_one_client_are_unpickled_with_one_client(client: aiod_client.Client) -> None:
    with client.open("scratch/kept") as one, client.open("scratch/kept") as two:
        first, second = pickle.loads(pickle.dumps([one, two]))  # noqa: S301
    assert first._client is second._client
    with first._client, first, second:
        assert first.pread(4, 0) == second.pread(4, 0)


@pytest.mark.parametrize("mode", ["w", "w+", "x", "wb"])
def test_a_file_that_cannot_be_opened_again_is_not_pickled(client: aiod_client.Client, again: Any, mode: str) -> None:
    if mode == "x":
        client.remove("scratch/kept")
    with client.open("scratch/kept", mode) as file, pytest.raises(TypeError, match="opening it again would"):
        again(file)
    with pytest.raises(TypeError, match="closed"):
        again(file)


def test_a_file_with_a_position_keeps_it(client: aiod_client.Client, again: Any) -> None:
    with fileobj.open(client, "scratch/kept", "r", 0) as raw:
        raw.seek(5)
        with again(raw) as other:
            raw.close()
            assert other.read(4) == b"data"
    with pytest.raises(TypeError, match="closed"):
        again(raw)


def test_an_asyncio_client_is_pickled_and_its_files_are_not(shared_daemon: Daemon, again: Any) -> None:
    async def main() -> None:
        async with aio.connect(shared_daemon.endpoint, timeout=PATIENCE_S) as client:
            await client.write_file("scratch/kept", b"kept data")
            async with await client.open("scratch/kept") as file:
                with pytest.raises(TypeError, match="pickle its client and its path"):
                    again(file)
            async with again(client) as other:
                assert await other.read_file("scratch/kept") == b"kept data"
            assert not client.closed

    asyncio.run(main())


def read(file: aiod_client.File) -> bytes:
    """In another process."""
    with file._client as client, file:  # type: ignore[attr-defined]
        return file.pread(100, 0) + client.read_file(file.name)  # type: ignore[no-any-return]


def test_a_process_that_is_spawned_gets_files(client: aiod_client.Client) -> None:
    spawn = multiprocessing.get_context("spawn")
    with client.open("scratch/kept") as file, concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        assert pool.submit(read, file).result(PATIENCE_S) == b"kept data" * 2
