"""The daemon's answers as sentences and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiod.ctl.figures import bar, count, duration, latency, ranges, size
from aiod.ctl.report import Column, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_QUANTILES: Final = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "max": "max"}
_PARTS: Final = {"latency": "total", "queue": "queue", "service": "service"}
_BAR_WIDTH: Final = 14  # two characters a decade


def _text(key: str, head: str = "") -> Column:
    return Column(key, head or key, left=True)


def _number(key: str, head: str = "", show: Callable[[Any], str] = str) -> Column:
    return Column(key, head or key, show)


def _latencies(prefix: str = "") -> list[Column]:
    return [Column(f"{prefix}{name}_us", head, latency) for name, head in _QUANTILES.items()]


def _quantiles(figures: dict[str, float]) -> list[float | None]:
    return [figures.get(name) for name in _QUANTILES]


def ping(body: dict[str, Any]) -> Iterator[Any]:
    """Version, pid and uptime of the daemon."""
    yield f"aiod {body['version']} (pid {body['pid']}) is up for {duration(body['uptime_s'])}"


def version(body: dict[str, Any]) -> Iterator[Any]:
    """Versions of the daemon and the protocol."""
    yield f"aiod {body['version']}, protocol version {', '.join(map(str, body['protocol_versions']))}"


# ---- stats


def stats(body: dict[str, Any]) -> Iterator[Any]:
    """The engines, their pools, and their operations."""
    yield f"aiod {body['version']} (pid {body['pid']}), up for {duration(body['uptime_s'])}"
    yield _engines(body["engines"])
    yield _pools(body["engines"])
    yield _spawners(body["engines"])
    yield _operations(body["engines"])
    for engine in body["engines"]:
        if any(op["count"] for op in engine["ops"].values()):
            yield _operation_times(engine)


def _engines(engines: list[dict[str, Any]]) -> Table:
    columns = [
        _text("engine"), _number("pid"), _text("state"), _number("restarts"), _number("clients"), _number("files"),
        _number("inflight"), _number("slow"), _number("rings"), _number("ring_bytes", "ring mem", size),
        _number("rss_bytes", "RSS", size),
    ]  # fmt: skip
    table = Table("engines", columns)
    keys = ("sessions", "files", "inflight", "slow_requests", "rings", "ring_bytes", "rss_bytes")
    for engine in engines:
        table.add(
            engine["name"],
            engine["pid"],
            engine["state"],
            engine.get("restarts"),
            *(engine.get(key) for key in keys),
        )
    return table


def _pools(engines: list[dict[str, Any]]) -> Table:
    keys = {
        "cur_threads": "threads", "idle_threads": "idle", "min_threads": "min", "max_threads": "max",
        "stuck_threads": "stuck", "queued": "queued", "threads_created": "created", "spawn_failures": "failed",
        "threads_peak": "peak",
    }  # fmt: skip
    table = Table("pools", [_text("engine"), *(_number(key, head, count) for key, head in keys.items())])
    for engine in engines:
        table.add(engine["name"], *(engine["pool"].get(key) for key in keys))
    return table


def _spawners(engines: list[dict[str, Any]]) -> Table:
    columns = [
        _text("engine"), _number("burst", "for bursts", count), _number("min", "for min", count),
        _number("retry", "on retry", count), _number("longest_chain", "chain", count), *_latencies("spawn_latency_"),
    ]  # fmt: skip
    table = Table("spawners: creations, and the time until a thread runs", columns)
    for engine in engines:
        pool = engine["pool"]
        if "created_for" in pool:
            causes = (pool["created_for"][cause] for cause in ("burst", "min", "retry"))
            table.add(engine["name"], *causes, pool["longest_chain"], *_quantiles(pool["spawn_latency_us"]))
    return table


def _operations(engines: list[dict[str, Any]]) -> Table:
    columns = [
        _text("engine"), _text("operation"), _number("count", "", count), _number("bytes", "", size),
        _number("errors", "", count), _number("inline", "", count),
    ]  # fmt: skip
    table = Table("operations", columns)
    for engine in engines:
        for name, op in engine["ops"].items():
            if op["count"]:
                table.add(engine["name"], name, op["count"], op["bytes"], op["errors"], op["inline"])
    return table


def _operation_times(engine: dict[str, Any]) -> Table:
    columns = [
        Column("engine", "engine", only="csv"), _text("operation"), _text("of"), *_latencies(),
        Column("bar", "p50█p90▓p99▒max", lambda figures: bar(figures, _BAR_WIDTH), left=True, only="text"),
    ]  # fmt: skip
    table = Table(
        f"times of {engine['name']}; the bar goes from 1 µs to 10 s, 2 characters for a factor of 10", columns
    )
    for name, op in engine["ops"].items():
        if op["count"]:
            for part, shown in _PARTS.items():
                figures = op[f"{part}_us"]
                table.add(engine["name"], name, shown, *_quantiles(figures), figures)
    return table


def pool(body: dict[str, Any]) -> Iterator[Any]:
    """The new limits of a pool."""
    figures = body["pool"]
    yield (
        f"engine {body['engine']}: min_threads {figures['min_threads']}, max_threads {figures['max_threads']}, "
        f"{figures['cur_threads']} threads now"
    )


# ---- lists


def threads(body: dict[str, Any]) -> Iterator[Any]:
    """Every thread of every process."""
    columns = [
        _text("process"), _number("pid"), _number("tid"), _text("name"), _text("role"), _number("cpus", "CPUs", ranges),
        _text("state"), _text("audit"),
    ]  # fmt: skip
    table = Table("threads", columns)
    supervisor = body["supervisor"] | {"name": "supervisor"}
    for process in [supervisor, *body["engines"]]:
        for thread in process["threads"]:
            named = (thread[key] for key in ("tid", "name", "role", "cpus", "state"))
            audit = "not its main thread's CPUs" if thread["astray"] else None
            table.add(process["name"], process["pid"], *named, audit)
    yield table


def exports(body: dict[str, Any]) -> Iterator[Any]:
    """The exports and their engines."""
    table = Table("exports", [_text(key) for key in ("name", "path", "fs", "access", "io", "engine", "state")])
    for export in body["exports"]:
        access = ("read-only" if export["read_only"] else "read, write") + (", direct" if export["direct"] else "")
        table.add(
            *(export[key] for key in ("name", "path")),
            export.get("fs", ""),  # an older daemon does not say
            access,
            *(export[key] for key in ("io_in_use", "engine", "state")),
        )
    yield table
    for engine, reason in sorted(
        {(each["engine"], each["io_reason"]) for each in body["exports"] if each["io_reason"]}
    ):
        yield f"engine {engine}: {reason}"


def vhost(body: dict[str, Any]) -> Iterator[Any]:
    """The disks of virtual machines."""
    columns = [
        _text("name"), _text("file"), _number("bytes", "size", size), _text("access"), _text("engine"), _text("state"),
        _number("vmm_pid", "VMM pid"), _text("queues"), _number("inflight"), _number("resubmitted"), _text("origin"),
        _text("socket"),
    ]  # fmt: skip
    table = Table("disks of virtual machines", columns)
    for disk in body["disks"]:
        table.add(
            *(disk.get(key) for key in ("name", "file", "bytes")),
            {True: "read-only", False: "read, write"}.get(disk.get("read_only", "")),
            *(disk.get(key) for key in ("engine", "state")),
            disk.get("vmm_pid") or None,
            f"{disk['queues_running']} of {disk['queues']}" if "queues" in disk else None,
            *(disk.get(key) for key in ("inflight", "resubmitted", "origin", "socket")),
        )
    yield table
    for disk in body["disks"]:
        if disk.get("complaint"):
            yield f"disk {disk['name']}: {disk['complaint']}"
        if disk.get("queues_broken"):
            broken = disk["queues_broken"]
            yield f"disk {disk['name']}: the guest broke {broken} queues, which wait for a reset by its driver"


def vhost_added(body: dict[str, Any]) -> Iterator[Any]:
    """The disk that was added."""
    disk = body["disk"]
    yield f"added the disk {disk['name']}: {disk['file']}, for a VMM at {disk['socket']}"


def vhost_removed(body: dict[str, Any]) -> Iterator[Any]:
    """The disk that was removed."""
    yield f"removed the disk {body['name']}" + ("" if body["ended"] else "; its engine still completes requests")


def clients(body: dict[str, Any]) -> Iterator[Any]:
    """The connected clients, and statistics of each."""
    columns = [
        _text("id"), _text("engine"), _number("pid"), _number("uid"), _text("software"), _text("by"), _number("files"),
        _number("inflight"), _number("age_s", "age", duration), _number("idle_s", "idle", duration),
        _number("operations", "ops", count), _number("bytes", "", size), _number("errors", "", count),
        _number("p50_us", "p50", latency), _number("p99_us", "p99", latency), _number("max_us", "max", latency),
    ]  # fmt: skip
    table = Table("clients (p50, p99, max: of the most frequent operation)", columns)
    for client in body["clients"]:
        ops = client["ops"].values()
        busiest = max(ops, key=lambda op: op["count"])
        table.add(
            *(client[key] for key in ("id", "engine", "pid", "uid", "software")),
            _connection(client),
            *(client[key] for key in ("handles", "inflight", "age_s", "idle_s")),
            *(sum(op[key] for op in ops) for key in ("count", "bytes", "errors")),
            *(busiest["latency_us"][quantile] for quantile in ("p50", "p99", "max")),
        )
    yield table


def _connection(client: dict[str, Any]) -> str:
    """How a client is connected; for tcp with its key or address."""
    if client["ring"]:
        return "ring"
    if client["key"] or client["uid"] < 0:
        return f"tcp, {client['key'] or client['address']}"
    return "ZeroMQ"


def handles(body: dict[str, Any]) -> Iterator[Any]:
    """Open files, by client."""
    columns = [
        _text("client"), _text("engine"), _number("pid"), _number("handle"), _text("file"), _text("mode"),
        _number("inflight"), _text("state"),
    ]  # fmt: skip
    table = Table("handles", columns)
    for handle in body["handles"]:
        state = [name for name in ("poisoned", "closing") if handle[name]] + _lock_states(handle.get("locks", []))
        named = (handle[key] for key in ("client", "engine", "pid", "handle", "file"))
        table.add(*named, _mode(handle), handle["inflight"], ", ".join(state))
    yield table


def _lock_states(locks: list[dict[str, Any]]) -> list[str]:
    """Which locks an open file has: "exclusive lock", "shared lock", "lost lock"."""
    kinds = ["lost" if lock["lost"] else "exclusive" if lock["exclusive"] else "shared" for lock in locks]
    return [f"{kind} lock" for kind in dict.fromkeys(kinds)]


def _mode(handle: dict[str, Any]) -> str:
    """Mode of an open file: "read, write, direct"."""
    written = "append" if handle["append"] else "write"
    named = {"read": handle["readable"], written: handle["writable"], "direct": handle["direct"]}
    return ", ".join(name for name, present in named.items() if present)


def requests(body: dict[str, Any]) -> Iterator[Any]:
    """The active requests, and the number of queued ones."""
    columns = [
        _text("client"), _text("engine"), _number("age_s", "age", duration), _text("operation"), _text("file"),
        _number("offset"), _number("bytes"), _number("worker"),
    ]  # fmt: skip
    table = Table("active requests", columns)
    for request in body["requests"]:
        named = (request[key] for key in ("client", "engine", "age_s", "op", "file", "offset", "bytes"))
        table.add(*named, request["tid"] or request["state"])
    yield table
    for engine in body["engines"]:
        yield f"engine {engine['name']}: {engine['queued']} queued, {engine['stuck_threads']} workers stuck"


# ---- results of commands


def bench(body: dict[str, Any]) -> Iterator[Any]:
    """The results of a benchmark."""
    cpu = body["cpu_us_per_operation"]
    what = f"{body['rw']} in {body['export']}: {size(body['block_bytes'])}, depth {body['depth']}"
    yield f"{what}, {body['seconds']:.1f} s"
    columns = [
        _number("iops", "IOPS", lambda figure: f"{figure:,.0f}"),
        _number("mib_per_second", "MiB/s", lambda figure: f"{figure:,.1f}"),
        _number("client_cpu_us", "client CPU/op", latency),
        _number("engines_cpu_us", "engines CPU/op", latency),
    ]
    table = Table("", columns)
    table.add(body["iops"], body["mib_per_second"], cpu["client"], cpu["engines"])
    yield table
    times = Table(
        "times (client: with its wait for a place among the requests in flight)", [_text("of"), *_latencies()]
    )
    for op, figures in (body["daemon_latency_us"] or {}).items():
        times.add(f"daemon, {op}", *_quantiles(figures))
    times.add("client", *_quantiles(body["latency_us"]))
    yield times


def metrics(body: dict[str, Any]) -> Iterator[Any]:
    """The metrics, line by line; the text has no other control characters."""
    yield from body["lines"]


def drain(body: dict[str, Any]) -> Iterator[Any]:
    """The end of a drain."""
    yield f"aiod (pid {body['pid']}) has drained and stopped"


def kick(body: dict[str, Any]) -> Iterator[Any]:
    """The session that was ended."""
    yield f"ended the session of client {body['client']} (engine {', '.join(body['engines'])})"


def reload(body: dict[str, Any]) -> Iterator[Any]:
    """The changes of a reload: those applied, and those that need a restart."""
    for change in body["changed"]:
        yield change
    for change in body["restart"]:
        yield f"{change}: needs a restart"
    for engine in body["late"]:
        yield f"engine {engine} does not answer: it will get the changes later"
    if not body["changed"] and not body["restart"]:
        yield "nothing to change"
