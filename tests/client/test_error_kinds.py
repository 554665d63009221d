"""Errors of the connection are those of Python's own kinds, so that code that catches these needs no other name."""

from __future__ import annotations

import errno
import pickle
from typing import TYPE_CHECKING

import pytest

import aiod_client

if TYPE_CHECKING:
    from pathlib import Path

    from tests.client.conftest import Peer


def test_a_daemon_that_is_not_there_is_a_refused_connection(socket_dir: Path) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        aiod_client.connect(f"ipc://{socket_dir}/none.sock")
    assert isinstance(caught.value, aiod_client.DaemonUnreachableError)
    assert caught.value.errno == errno.ECONNREFUSED


def test_a_lost_session_is_a_reset_connection(peer: Peer) -> None:
    peer.files["file"] = bytearray(10)
    with aiod_client.connect(peer.endpoint, reconnect_timeout=0) as client:
        file = client.open("scratch/file")
        peer.die()
        with pytest.raises(ConnectionResetError) as caught:
            file.pread(1, 0)
    assert isinstance(caught.value, aiod_client.SessionLostError)


def test_errors_are_pickled_with_what_they_say() -> None:
    error = aiod_client.SessionLostError(errno.EIO, "unknown whether done")
    error.written, error.reason = 5, 7
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is aiod_client.SessionLostError
    assert (again.errno, again.strerror, again.written, again.reason) == (errno.EIO, "unknown whether done", 5, 7)
