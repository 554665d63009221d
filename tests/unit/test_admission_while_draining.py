"""While the daemon drains, opens and directory operations are refused."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from aiod._core import Session as CoreSession
from aiod.config import make_config
from aiod.engine.admission import Admission
from aiod.engine.session import Session
from aiod.engine.user_quotas import UserQuota
from aiod.engine_api.settings import RateLimits, UserLimits
from aiod.net.peer import Peer
from aiod_protocol.reasons import Reason, reason_of


@pytest.fixture
def session() -> Session:
    limits = {"depth_max": 4, "bytes_max": 4096, "request_bytes_max": 4096, "batch_max": 4, "handles_max": 4}
    peer = Peer(b"peer", -1, "", os.getuid(), os.getgid(), os.getpid())
    return Session(
        token=b"token",
        peer=peer,
        software="test",
        core=CoreSession(None, client="", transport="ipc", rate=None, **limits),
        depth_max=4,
        bytes_max=4096,
        request_bytes_max=4096,
        quota=UserQuota(peer.principal, UserLimits(0, 0, 0, 0, 0, 0, 0, RateLimits(0, 0, 0))),
        gids=frozenset(),
        hello_connection=peer.connection,
        started_s=0,
        last_message_s=0,
    )


@pytest.fixture
def admission() -> Admission:
    config = make_config({"runtime_dir": "/run/aiod", "exports": {"scratch": {"path": "/srv/scratch"}}}, "FILE")
    return Admission(config.engine_settings("main", 1), descriptors_max=4)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [("list", {"cursor": 0}), ("mkdir", {"mode": 0o755}), ("rename", {"to": "new", "replace": False}), ("remove", {})],
)
def test_directory_operations_are_refused_while_draining(
    admission: Admission, session: Session, verb: str, arguments: dict[str, Any]
) -> None:
    assert admission.admit_directory_request(session, verb, "scratch", "path", arguments).path == "path"
    admission.drain()
    with pytest.raises(OSError, match="daemon is stopping") as caught:
        admission.admit_directory_request(session, verb, "scratch", "path", arguments)
    assert caught.value.errno == errno.ESHUTDOWN
    assert reason_of(caught.value) == Reason.STOPPING


def test_opens_are_refused_while_draining(admission: Admission, session: Session) -> None:
    assert admission.admit_open(session, "scratch", "path", 1, 0, descriptors=0).path == "path"
    admission.drain()
    with pytest.raises(OSError, match="daemon is stopping") as caught:
        admission.admit_open(session, "scratch", "path", 1, 0, descriptors=0)
    assert caught.value.errno == errno.ESHUTDOWN
    assert reason_of(caught.value) == Reason.STOPPING
