"""Describes an active request in words, for the log and for aiodctl."""

from __future__ import annotations

from typing import Any

from aiod_protocol.messages import describe_operation
from aiod_protocol.operations import Op


def describe_request(request: dict[str, Any]) -> str:
    """One entry of the verb `requests`: "write of 4096 bytes at 0 on disk/a, client 1f2e3d4c, for 12.3 s"."""
    name = request["op"]
    if name == "name":
        what = f"name on {request['file']}" if request["handle"] else request["file"]
    elif name in {"open", "close"}:
        what = f"{name} {request['file']}".rstrip()
    else:
        what = describe_operation(Op[name.upper()], request["file"], request["offset"], request["bytes"])
    client = f", client {request['client']}" if request["client"] else ""
    return f"{what}{client}, for {request['age_s']:.1f} s"
