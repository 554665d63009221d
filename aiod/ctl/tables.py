"""The daemon's answers as tables. The headers have the units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

_KIB: Final = 1024.0
_LATENCIES: Final = ("p50", "p99", "p999", "max")
_SECONDS_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


def size(count: float) -> str:
    """Bytes in a readable unit: "1.5 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds in a readable unit: "2.5 h"."""
    for length, unit in _SECONDS_UNITS:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def ping(body: dict[str, Any]) -> Iterator[Any]:
    """Version, pid and uptime of the daemon."""
    yield f"aiod {body['version']} (pid {body['pid']}) is up for {duration(body['uptime_s'])}"


def version(body: dict[str, Any]) -> Iterator[Any]:
    """Versions of the daemon and the protocol."""
    yield f"aiod {body['version']}, protocol version {', '.join(map(str, body['protocol_versions']))}"


def stats(body: dict[str, Any]) -> Iterator[Any]:
    """The engines, their pools, and their operations."""
    yield f"aiod {body['version']} (pid {body['pid']}), up for {duration(body['uptime_s'])}"
    pools = _table(
        "engines", "name", "pid", "state", "threads", "idle", "min", "max", "stuck", "created", "failed", "queued",
        "in flight", "slow", "clients", "files", "rings", "their memory", "RSS",
    )  # fmt: skip
    for engine in body["engines"]:
        pool = engine["pool"]
        pools.add_row(
            engine["name"],
            str(engine["pid"]),
            engine["state"],
            *(str(pool[key]) for key in ("cur_threads", "idle_threads", "min_threads", "max_threads", "stuck_threads")),
            *(str(pool[key]) for key in ("threads_created", "spawn_failures", "queued")),
            *(str(engine.get(key, "")) for key in ("inflight", "slow_requests", "sessions", "files", "rings")),
            size(engine.get("ring_bytes", 0)),
            size(engine.get("rss_bytes", 0)),
        )
    yield pools
    spawners = _table(
        "spawners", "engine", "for bursts", "for min_threads", "on retry", "failed", "longest chain", "threads peak",
        *(f"spawn latency {quantile} (µs)" for quantile in ("p50", "p99", "max")),
    )  # fmt: skip
    for engine in body["engines"]:
        if "created_for" in engine["pool"]:
            spawners.add_row(engine["name"], *_spawner(engine["pool"]))
    yield spawners
    for engine in body["engines"]:
        yield _operations(f"operations of {engine['name']} (µs)", engine["ops"])


def _spawner(pool: dict[str, Any]) -> Iterator[str]:
    for cause in ("burst", "min", "retry"):
        yield f"{pool['created_for'][cause]:,}"
    for key in ("spawn_failures", "longest_chain", "threads_peak"):
        yield f"{pool[key]:,}"
    for quantile in ("p50", "p99", "max"):
        yield f"{pool['spawn_latency_us'][quantile]:,.1f}"


def pool(body: dict[str, Any]) -> Iterator[Any]:
    """The new limits of a pool."""
    figures = body["pool"]
    yield (
        f"engine {body['engine']}: min_threads {figures['min_threads']}, max_threads {figures['max_threads']}, "
        f"{figures['cur_threads']} threads now"
    )


def _operations(title: str, ops: dict[str, Any]) -> Table:
    parts = [f"{part} {quantile}" for part in ("latency", "queue", "service") for quantile in ("p50", "p99")]
    table = _table(title, "operation", "count", "bytes", "errors", *parts, "p99.9", "max")
    for name, op in ops.items():
        if not op["count"]:
            continue
        figures = [op[f"{part}_us"][q] for part in ("latency", "queue", "service") for q in ("p50", "p99")]
        figures += [op["latency_us"]["p999"], op["latency_us"]["max"]]
        table.add_row(
            name, f"{op['count']:,}", size(op["bytes"]), f"{op['errors']:,}", *(f"{figure:,.1f}" for figure in figures)
        )
    return table


def threads(body: dict[str, Any]) -> Iterator[Any]:
    """Every thread of every process."""
    table = _table("threads", "process", "pid", "tid", "name", "role", "CPUs", "state", "audit")
    supervisor = body["supervisor"] | {"name": "supervisor"}
    for process in [supervisor, *body["engines"]]:
        for thread in process["threads"]:
            table.add_row(
                process["name"],
                str(process["pid"]),
                str(thread["tid"]),
                thread["name"],
                thread["role"],
                ranges(thread["cpus"]),
                thread["state"],
                "not its main thread's CPUs" if thread["astray"] else "",
            )
    yield table


def ranges(numbers: list[int]) -> str:
    """CPU numbers as the kernel writes them: "0-3,7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def exports(body: dict[str, Any]) -> Iterator[Any]:
    """The exports, and the engine of each."""
    table = _table("exports", "name", "path", "access", "engine", "state")
    for export in body["exports"]:
        access = ("read-only" if export["read_only"] else "read, write") + (", direct" if export["direct"] else "")
        table.add_row(export["name"], export["path"], access, export["engine"], export["state"])
    yield table


def clients(body: dict[str, Any]) -> Iterator[Any]:
    """The connected clients, and statistics of each."""
    table = _table(
        "clients", "id", "engine", "pid", "uid", "software", "by", "files", "in flight", "age", "idle", "operations",
        "bytes", "errors", "latency p50 (µs)", "p99 (µs)",
    )  # fmt: skip
    for client in body["clients"]:
        ops = client["ops"].values()
        busiest = max(ops, key=lambda op: op["count"])
        table.add_row(
            client["id"],
            client["engine"],
            *(str(client[key]) for key in ("pid", "uid", "software")),
            _connection(client),
            *(str(client[key]) for key in ("handles", "inflight")),
            duration(client["age_s"]),
            duration(client["idle_s"]),
            f"{sum(op['count'] for op in ops):,}",
            size(sum(op["bytes"] for op in ops)),
            f"{sum(op['errors'] for op in ops):,}",
            *(f"{busiest['latency_us'][quantile]:,.1f}" for quantile in ("p50", "p99")),
        )
    yield table


def _connection(client: dict[str, Any]) -> str:
    """How a client is connected; for tcp with its key or address."""
    if client["ring"]:
        return "ring"
    if client["key"] or client["uid"] < 0:
        return f"tcp, {client['key'] or client['address']}"
    return "ZeroMQ"


def drain(body: dict[str, Any]) -> Iterator[Any]:
    """The end of a drain."""
    yield f"aiod (pid {body['pid']}) has drained and stopped"


def handles(body: dict[str, Any]) -> Iterator[Any]:
    """Open files, by client."""
    table = _table("handles", "client", "engine", "pid", "handle", "file", "mode", "in flight", "state")
    for handle in body["handles"]:
        state = [name for name in ("poisoned", "closing") if handle[name]]
        table.add_row(
            handle["client"],
            handle["engine"],
            str(handle["pid"]),
            str(handle["handle"]),
            handle["file"],
            _mode(handle),
            str(handle["inflight"]),
            ", ".join(state),
        )
    yield table


def requests(body: dict[str, Any]) -> Iterator[Any]:
    """The active requests, and the number of queued ones."""
    table = _table("active requests", "client", "engine", "age", "operation", "file", "offset", "bytes", "worker")
    for request in body["requests"]:
        table.add_row(
            request["client"],
            request["engine"],
            duration(request["age_s"]),
            request["op"],
            request["file"],
            str(request["offset"]),
            str(request["bytes"]),
            str(request["tid"] or request["state"]),
        )
    yield table
    for engine in body["engines"]:
        yield f"engine {engine['name']}: {engine['queued']} queued, {engine['stuck_threads']} workers stuck"


def bench(body: dict[str, Any]) -> Iterator[Any]:
    """The results of a benchmark."""
    cpu = body["cpu_us_per_operation"]
    what = f"{body['rw']} in {body['export']}: {size(body['block_bytes'])}, depth {body['depth']}"
    table = _table(
        f"{what}, {body['seconds']:.1f} s",
        "IOPS",
        "MiB/s",
        "p50 (µs)",
        "p99 (µs)",
        "p99.9 (µs)",
        "max (µs)",
        "CPU client (µs)",
        "CPU engines (µs)",
    )
    table.add_row(
        f"{body['iops']:,.0f}",
        f"{body['mib_per_second']:,.1f}",
        *(f"{body['latency_us'][quantile]:,.1f}" for quantile in _LATENCIES),
        *("" if cpu[who] is None else f"{cpu[who]:,.1f}" for who in ("client", "engines")),
    )
    yield table


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


def _mode(handle: dict[str, Any]) -> str:
    """Mode of an open file: "read, write, direct"."""
    written = "append" if handle["append"] else "write"
    named = {"read": handle["readable"], written: handle["writable"], "direct": handle["direct"]}
    return ", ".join(name for name, present in named.items() if present)
