"""Many clients append to one file at once: every record is whole, and is where its completion says."""

from __future__ import annotations

import errno
import random
import threading
from typing import Any

import pytest

import aiod_client
from tests.patience import scaled

APPENDERS = 6
RECORDS = 60
RECORD_BYTES_MAX = 20_000


def test_appends_of_many_clients_are_whole_and_disjoint(place: Any, mounts_daemon: Any) -> None:
    found: list[tuple[int, bytes]] = []
    start = threading.Barrier(APPENDERS)

    def append(number: int) -> None:
        choice = random.Random(number)  # noqa: S311 - no secret
        with (
            aiod_client.connect(mounts_daemon.endpoint, timeout=scaled(60)) as client,
            client.open(f"{place.name}/log", "a") as appending,
            client.open(f"{place.name}/log", "r+") as both,
        ):
            start.wait()
            for _ in range(RECORDS):
                data = bytes([number + 1]) * choice.randrange(1, RECORD_BYTES_MAX)
                found.append((choice.choice((appending, both)).append(data), data))

    (place.path / "log").touch()
    threads = [threading.Thread(target=append, args=(number,)) for number in range(APPENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == APPENDERS * RECORDS
    assert (place.path / "log").read_bytes() == b"".join(data for _, data in sorted(found))
    end = 0
    for offset, data in sorted(found):
        assert offset == end
        end += len(data)


def test_an_append_goes_to_the_end_at_its_execution(place: Any) -> None:
    with place.open("log", "w+") as file, place.open("log", "a+") as appending:
        assert file.append(b"12345") == 0
        file.truncate(100)
        assert appending.append(b"end") == 100
        file.truncate(2)
        assert appending.append(b"345") == 2
        assert appending.append(b"") == 5
        assert appending.pread(100, 0) == b"12345"
    assert (place.path / "log").read_bytes() == b"12345"


def test_append_with_o_direct_is_refused_even_if_aligned(place: Any) -> None:
    with place.open("log", "w+", direct=True) as file:
        for data in (b"odd", bytes(4096), b""):
            with pytest.raises(OSError, match="EINVAL") as caught:
                file.append(data)
            assert caught.value.errno == errno.EINVAL
        assert file.size() == 0
