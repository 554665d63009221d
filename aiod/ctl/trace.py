"""aiodctl trace: requests as a trace in Chrome's JSON format, for https://ui.perfetto.dev and chrome://tracing.

Each request has an async track with its phases: queue, service, completion. Each thread has a track with what it
carried out. Pure functions, but for write().
"""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any, Final

from aiod.ctl.figures import count
from aiod.ctl.program import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_US: Final = 1000


def write(body: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write the trace into the file `path`; a summary. Raises Failure."""
    events = [event for engine in body["engines"] for event in _engine_events(engine)]
    document = json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"version": body["version"]}})
    try:
        path.write_text(document)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", number=error.errno) from error
    engines = [
        {"name": engine["name"], "requests": len(engine["requests"]), "dropped": engine["dropped"]}
        for engine in body["engines"]
    ]
    return {"file": str(path), "seconds": body["seconds"], "engines": engines}


def show(body: dict[str, Any]) -> Iterator[Any]:
    """The summary."""
    for engine in body["engines"]:
        dropped = f", {count(engine['dropped'])} without room" if engine["dropped"] else ""
        yield f"engine {engine['name']}: {count(engine['requests'])} requests in {body['seconds']:g} s{dropped}"
    yield f"{body['file']}: open it at https://ui.perfetto.dev or chrome://tracing"


def _engine_events(engine: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pid = engine["pid"]
    yield _named(pid, 0, "process_name", f"engine {engine['name']}")
    threads = {request[key] for request in engine["requests"] for key in ("worker_tid", "reporter_tid")}
    for tid in sorted(threads - {0}):
        yield _named(pid, tid, "thread_name", "main loop" if tid == pid else f"worker {tid}")
    for number, request in enumerate(engine["requests"]):
        yield from _request_events(pid, number, request)


def _named(pid: int, tid: int, what: str, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": name}}


def _request_events(pid: int, number: int, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    failed = errno.errorcode.get(request["error"], str(request["error"])) if request["error"] else ""
    arguments = {key: request[key] for key in ("client", "cookie", "bytes")} | {"errno": failed}
    started_ns = request["started_ns"] or request["done_ns"]
    tid = request["worker_tid"]
    if tid and request["started_ns"]:
        yield {
            "ph": "X", "cat": "service", "pid": pid, "tid": tid, "name": request["op"], "ts": started_ns / _US,
            "dur": (request["done_ns"] - started_ns) / _US, "args": arguments,
        }  # fmt: skip
    phases = [(request["op"], request["submitted_ns"], request["reported_ns"])]
    if not request["inlined"]:
        phases += [
            ("queue", request["submitted_ns"], started_ns),
            ("service", started_ns, request["done_ns"]),
            ("completion", request["done_ns"], request["reported_ns"]),
        ]
    for name, begin_ns, end_ns in phases:
        common = {"cat": "request", "pid": pid, "tid": tid or pid, "id": number, "name": name}
        yield common | {"ph": "b", "ts": begin_ns / _US, "args": arguments}
        yield common | {"ph": "e", "ts": end_ns / _US}
