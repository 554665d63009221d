"""The number of libzmq's threads of an engine."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from aiod.engine.transports import io_threads_of


@pytest.mark.parametrize(
    ("tcp", "cpus", "threads"), [(None, 8, 1), (object(), 1, 1), (object(), 2, 1), (object(), 6, 3), (object(), 64, 4)]
)
def test_connections_of_other_hosts_share_several_threads(
    tcp: object, cpus: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    settings: Any = SimpleNamespace(tcp=tcp)
    assert io_threads_of(settings) == threads
