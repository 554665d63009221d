"""Records of traced requests: struct aiod_trace_event of the core (session/trace.h), unpacked."""

from __future__ import annotations

import struct
from typing import Any, Final

from aiod_protocol.operations import Op

RECORD: Final = struct.Struct("=6Q8s3i2H")
_KEYS: Final = (
    "submitted_ns", "started_ns", "done_ns", "reported_ns", "cookie", "bytes", "client", "error", "worker_tid",
    "reporter_tid", "op", "inlined",
)  # fmt: skip


def unpack(records: bytes) -> list[dict[str, Any]]:
    """One dictionary for each record; `op` is the operation's name. Raises ValueError for a wrong length."""
    if len(records) % RECORD.size:
        raise ValueError(f"{len(records)} bytes of trace records: not a multiple of {RECORD.size}")
    return [_shown(dict(zip(_KEYS, values, strict=True))) for values in RECORD.iter_unpack(records)]


def _shown(event: dict[str, Any]) -> dict[str, Any]:
    client = event["client"].rstrip(b"\0").decode("ascii", "replace")
    return event | {"client": client, "op": Op(event["op"]).name.lower(), "inlined": bool(event["inlined"])}
