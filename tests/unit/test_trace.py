"""Traces: the core's records, and Chrome's JSON made of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aiod.ctl import trace
from aiod.ctl.program import Failure
from aiod.engine_api import trace_records

if TYPE_CHECKING:
    from pathlib import Path

PACKED = trace_records.RECORD.pack(1000, 3000, 7000, 9000, 42, 4096, b"1f2e3d4c", 5, 101, 100, 2, 0)
INLINE = trace_records.RECORD.pack(1000, 1500, 2000, 2000, 43, 4096, b"ab\0\0\0\0\0\0", 0, 100, 100, 1, 1)
CANCELLED = trace_records.RECORD.pack(1000, 0, 7000, 9000, 44, 0, b"1f2e3d4c", 125, 0, 100, 3, 0)


def test_a_record_has_the_size_of_the_cores_struct() -> None:
    assert trace_records.RECORD.size == 72
    with pytest.raises(ValueError, match="multiple of 72"):
        trace_records.unpack(PACKED + b"x")


def test_records_are_unpacked() -> None:
    request, inline = trace_records.unpack(PACKED + INLINE)
    assert (request["client"], request["op"], request["error"], request["inlined"]) == ("1f2e3d4c", "write", 5, False)
    assert (inline["client"], inline["op"], inline["inlined"]) == ("ab", "read", True)


def written(tmp_path: Path, records: bytes) -> list[dict[str, Any]]:
    engine: dict[str, Any] = {"name": "main", "pid": 100, "dropped": 7, "requests": trace_records.unpack(records)}
    body = trace.write({"version": "1", "seconds": 2.0, "engines": [engine]}, tmp_path / "trace.json")
    assert body["engines"] == [{"name": "main", "requests": len(engine["requests"]), "dropped": 7}]
    assert "7 without room" in next(iter(trace.show(body)))
    events: list[dict[str, Any]] = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    return events


def test_a_request_has_its_phases_and_its_place_on_its_thread(tmp_path: Path) -> None:
    events = written(tmp_path, PACKED)
    (slice_,) = [event for event in events if event["ph"] == "X"]
    assert (slice_["tid"], slice_["name"], slice_["ts"], slice_["dur"]) == (101, "write", 3.0, 4.0)
    assert slice_["args"] == {"client": "1f2e3d4c", "cookie": 42, "bytes": 4096, "errno": "EIO"}
    begins = {event["name"]: event["ts"] for event in events if event["ph"] == "b"}
    ends = {event["name"]: event["ts"] for event in events if event["ph"] == "e"}
    assert begins == {"write": 1.0, "queue": 1.0, "service": 3.0, "completion": 7.0}
    assert ends == {"write": 9.0, "queue": 3.0, "service": 7.0, "completion": 9.0}
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {0: "engine main", 100: "main loop", 101: "worker 101"}


def test_an_inline_request_has_no_queue_and_a_cancelled_one_no_thread(tmp_path: Path) -> None:
    assert [event["name"] for event in written(tmp_path, INLINE) if event["ph"] == "b"] == ["read"]
    assert [event for event in written(tmp_path, CANCELLED) if event["ph"] == "X"] == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="absent"):
        trace.write({"version": "1", "seconds": 1.0, "engines": []}, tmp_path / "absent" / "x")
