"""The identity of a request is allocated by the core: a refused request must not leak it."""

from __future__ import annotations

from typing import Any

import pytest

from aiod import _core
from aiod.util.process_limits import resident_bytes

REFUSALS = 1000
GROUPS = list(range(60000))
"""So that one identity is about 240 kB."""


@pytest.fixture
def core() -> Any:
    """A core without threads."""
    return _core.Core(
        "identity",
        max_threads=1,
        min_threads=0,
        idle_timeout_ms=1000,
        spawn_retry_ms=1000,
        inline_read_max=0,
        buffer_cache_max=0,
        rings_max=1,
        ring_poll_max_us=0,
    )


def refuse_open(core: Any) -> None:
    with pytest.raises(ValueError, match="zero byte"):
        core.open(
            1,
            "ipc",
            None,
            "/",
            "a\0b",
            1,
            0,
            exact_mode=False,
            uid=-1,
            gid=-1,
            links=True,
            as_client=(1, 1, GROUPS),
            timeout_ms=0,
        )


def refuse_name(core: Any) -> None:
    with pytest.raises(ValueError, match="zero byte"):
        core.directory_operation(
            1,
            "ipc",
            None,
            _core.VERB_STAT,
            "/",
            "a\0b",
            to="",
            cursor=0,
            mode=0,
            replace=False,
            links=True,
            as_client=(1, 1, GROUPS),
            timeout_ms=0,
        )


@pytest.mark.parametrize("refuse", [refuse_open, refuse_name])
def test_a_path_with_a_zero_byte_is_refused_without_a_memory_leak(core: Any, refuse: Any) -> None:
    refuse(core)
    before = resident_bytes()
    for _ in range(REFUSALS):
        refuse(core)
    assert resident_bytes() - before < 60 * 2**20  # 240 MB, were it lost
