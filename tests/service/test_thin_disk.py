"""Acknowledged data that the disk has no room for: a FUA write in between does not hide it from the next flush."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.service.thin_disk import MIB, thin_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATA = b"acknowledged" * (16 * MIB // 12)


@pytest.fixture
def disk(disk_path: Path) -> Iterator[Any]:
    with thin_disk(disk_path) as disk:
        yield disk


@pytest.mark.parametrize("transport", ["ring", "zmq"])
@pytest.mark.parametrize("who", ["same handle", "other handle", "other session"])
def test_a_flush_reports_the_loss_after_a_fua_write(
    disk: Any, new_daemon: Callable[..., Any], transport: Any, who: str
) -> None:
    daemon = new_daemon(**{"exports.thin": {"path": str(disk.path)}})
    daemon.start()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(aiod_client.connect(daemon.endpoint, transport=transport))
        file = stack.enter_context(client.open("thin/file", "w+"))
        other = {
            "same handle": lambda: file,
            "other handle": lambda: stack.enter_context(client.open("thin/file", "r+")),
        }
        durable = other.get(
            who,
            lambda: stack.enter_context(
                stack.enter_context(aiod_client.connect(daemon.endpoint, transport=transport)).open("thin/file", "r+")
            ),
        )()
        file.pwrite(b"room", 64 * MIB)
        file.flush()
        disk.fill()
        assert file.pwrite(DATA, 0) == len(DATA)
        disk.write_back()
        with contextlib.suppress(OSError):
            durable.pwrite(b"FUA", 64 * MIB, fua=True)
        with pytest.raises(OSError, match="thin/file") as caught:
            file.flush()
        assert caught.value.errno in {errno.EIO, errno.ENOSPC}
        with pytest.raises(OSError, match="thin/file") as caught:
            durable.flush()
        assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("transport", ["ring", "zmq"])
def test_a_fua_write_without_room_alone_poisons_nothing(
    disk: Any, new_daemon: Callable[..., Any], transport: Any
) -> None:
    daemon = new_daemon(**{"exports.thin": {"path": str(disk.path), "max_file_bytes": 2 * MIB}})
    daemon.start()
    with (
        aiod_client.connect(daemon.endpoint, transport=transport) as client,
        client.open("thin/file", "w+") as file,
    ):
        file.pwrite(b"data", 0)
        with pytest.raises(OSError, match="thin/file") as caught:
            file.pwrite(bytes(MIB), 2 * MIB, fua=True)
        assert caught.value.errno == errno.EFBIG
        file.flush()
        assert file.pread(4, 0) == b"data"
