"""Submission records built by hand, and helpers that examine failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def record(cookie: int, op: int, handle: int, offset: int = 0, length: int = 0, **other: int) -> tuple[int, ...]:
    """A submission record; `other`: flags, deadline_ms, frame, frame_offset, reserved."""
    keys = ("deadline_ms", "frame", "frame_offset", "reserved")
    return (cookie, op, other.get("flags", 0), handle, offset, length, *(other.get(key, 0) for key in keys))


def failure(call: Callable[[], object]) -> tuple[int | None, int]:
    """(errno, written) of the OSError that `call` fails with."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is the caller's to compare
        call()
    return caught.value.errno, getattr(caught.value, "written", 0)


def refused(call: Callable[[], object]) -> int | None:
    """The errno that `call` fails with."""
    return failure(call)[0]
