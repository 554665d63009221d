"""Descriptions of active requests."""

from __future__ import annotations

from typing import Any

import pytest

from aiod.engine.active_requests import describe_request


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            {"op": "write", "file": "disk/a", "offset": 512, "bytes": 4096, "client": "1f2e3d4c", "age_s": 12.34},
            "write of 4096 bytes at 512 on disk/a, client 1f2e3d4c, for 12.3 s",
        ),
        (
            {"op": "flush", "file": "disk/a", "offset": 0, "bytes": 0, "client": "1f2e3d4c", "age_s": 1.0},
            "flush on disk/a, client 1f2e3d4c, for 1.0 s",
        ),
        (
            {"op": "open", "file": "disk/a", "offset": 0, "bytes": 0, "client": "1f2e3d4c", "age_s": 1.0},
            "open disk/a, client 1f2e3d4c, for 1.0 s",
        ),
        (
            {"op": "name", "file": "rename a/b to a/c", "handle": 0, "client": "1f", "age_s": 1.0},
            "rename a/b to a/c, client 1f, for 1.0 s",
        ),
        (
            {"op": "name", "file": "disk", "handle": 65537, "client": "1f", "age_s": 1.0},
            "name on disk, client 1f, for 1.0 s",
        ),
        ({"op": "close", "file": "", "offset": 0, "bytes": 0, "client": "", "age_s": 1.0}, "close, for 1.0 s"),
    ],
)
def test_an_active_request_is_described_in_words(request_: dict[str, Any], words: str) -> None:
    assert describe_request(request_) == words
