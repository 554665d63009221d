"""Ctrl-C anywhere loses no session: KeyboardInterrupt is raised at each place where a signal's handler can run.

CPython looks for signals after a call, at the beginning of a function and at the end of a turn of a loop. The tests
raise at the first such place of an operation within the client, then at a later one, until the operation ends without:
at every third; with AIOD_TEST_ROUNDS=10 at every one.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

import aiod_client
from aiod_client import fileobj
from tests.client.interruption import Interruption
from tests.patience import rounds, scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Daemon

PATIENCE_S = scaled(60.0)
UNREACHED = 1 << 30


@pytest.fixture(params=["zmq", "ring"], scope="module")
def client(request: pytest.FixtureRequest, shared_daemon: Daemon) -> Iterator[aiod_client.Client]:
    """A client whose sessions continue when their connection is given up."""
    connecting = aiod_client.connect(
        shared_daemon.endpoint, transport=request.param, timeout=PATIENCE_S, reconnect_timeout=PATIENCE_S
    )
    with connecting as client:
        client.write_file("scratch/file", b"0123456789" * 10)
        yield client


def read_and_write(client: aiod_client.Client, file: aiod_client.File) -> None:
    del client
    file.pread(10, 0)
    file.pwrite(b"0123456789", 0)


def flush(client: aiod_client.Client, file: aiod_client.File) -> None:
    del client
    file.flush()
    file.size()


def submit(client: aiod_client.Client, file: aiod_client.File) -> None:
    del client
    for future in file.submit([("read", 10, 0), ("write", b"0123456789", 0)]):
        future.result(PATIENCE_S)


def open_and_close(client: aiod_client.Client, file: aiod_client.File) -> None:
    del file
    client.open("scratch/file").close()


def whole_files(client: aiod_client.Client, file: aiod_client.File) -> None:
    del file
    client.read_file("scratch/file")
    client.stat("scratch/file")


def directory(client: aiod_client.Client, file: aiod_client.File) -> None:
    del file
    client.list("scratch")


def buffered(client: aiod_client.Client, file: aiod_client.File) -> None:
    del file
    with fileobj.open(client, "scratch/file", "r+", 16) as opened:
        opened.read(3)
        opened.seek(0)
        opened.write(b"0123456789" * 3)


LONG = (whole_files, buffered)
"""They mostly have the places of the others."""

USES = [read_and_write, flush, submit, open_and_close, whole_files, directory, buffered]


@pytest.mark.parametrize("use", USES, ids=lambda use: str(use.__name__))
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_session_continues_after_an_interruption_anywhere(
    client: aiod_client.Client,
    use: Callable[[aiod_client.Client, aiod_client.File], None],
    wait_until: Callable[..., None],
) -> None:
    with client.open("scratch/file", "r+") as file:
        link = file._link
        with Interruption(UNREACHED):  # from Python 3.12 on a function is traced fully from its second call on
            use(client, file)
        place, step = 0, max(1, (7 if use in LONG else 3) // rounds(1))
        while True:
            interruption = Interruption(place)
            try:
                with interruption:
                    use(client, file)
            except KeyboardInterrupt:
                assert interruption.where
            except BaseException as error:
                error.add_note(f"interrupted at: {interruption.where or 'no place'}")
                raise
            if not interruption.where:
                break
            assert file.pread(100, 0) == b"0123456789" * 10, interruption.where
            assert file._link is link, interruption.where
            assert link.ended is None, interruption.where
            assert client._links_at[link.endpoint] is link, interruption.where
            place += step
        assert place > 5

        def has_one_file() -> bool:
            client.open("scratch/file").close()  # which closes what the ring has opened late
            gc.collect()
            clients = client.control("clients")["clients"]
            return bool(sum(each["handles"] for each in clients if each["pid"] == os.getpid()) <= files_max)

        files_max = 2 if link.paths is not None else 1  # the NAMES handle of a ring, too
        wait_until(has_one_file, "no file is left open")
