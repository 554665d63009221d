"""Submission records made by hand."""

from __future__ import annotations


def record(cookie: int, op: int, handle: int, offset: int = 0, length: int = 0, **other: int) -> tuple[int, ...]:
    """A submission record; `other`: flags, deadline_ms, frame, frame_offset, reserved."""
    keys = ("deadline_ms", "frame", "frame_offset", "reserved")
    return (cookie, op, other.get("flags", 0), handle, offset, length, *(other.get(key, 0) for key in keys))
