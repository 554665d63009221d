"""aiodctl status: judges the daemon's figures. Each problem has a sentence and a remedy. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiod.ctl.figures import count, duration, latency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LINES_MAX: Final = 10
_FIGURE_LINES: Final = 4


def gather(ask: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Ask for everything that is judged; requests need control privileges, and are left out without them."""
    try:
        requests = ask("requests")["requests"]
    except PermissionError:
        requests = []
    return judge(ask("stats"), ask("threads"), requests)


def judge(stats: dict[str, Any], threads: dict[str, Any], requests: list[dict[str, Any]]) -> dict[str, Any]:
    """The daemon's state, "ok" or "problems", its main figures, and the problems, the worst first."""
    problems = [problem for engine in stats["engines"] for problem in _problems(engine, requests)]
    problems += [
        _problem(engine["name"], 3, f"{astray} workers have other CPUs than their main thread",
                 'aiodctl threads shows them; affinity = "follow" moves them')
        for engine in threads["engines"]
        if (astray := sum(thread["astray"] for thread in engine["threads"]))
    ]  # fmt: skip
    problems += [_problem("aiod", 3, way["text"], way["remedy"]) for way in stats.get("ways_off", ())]
    problems.sort(key=lambda problem: problem["severity"])
    engines = stats["engines"]
    return {
        "state": "problems" if problems else "ok",
        "version": stats["version"],
        "pid": stats["pid"],
        "uptime_s": stats["uptime_s"],
        "engines": len(engines),
        "engines_serving": sum(engine["state"] == "serving" for engine in engines),
        **{key: sum(engine.get(key, 0) for engine in engines) for key in ("sessions", "files", "rings", "inflight")},
        "queued": sum(engine["pool"]["queued"] for engine in engines),
        "threads": sum(engine["pool"]["cur_threads"] for engine in engines),
        "oldest_request_age_s": max((engine.get("oldest_request_age_s", 0.0) for engine in engines), default=0.0),
        "requests": sum(op["count"] for op in stats["ops"].values()),
        "errors": sum(op["errors"] for op in stats["ops"].values()),
        "p99_us": {name: op["latency_us"]["p99"] for name, op in stats["ops"].items() if op["count"]},
        "problems": problems,
    }


def _problem(engine: str, severity: int, text: str, remedy: str) -> dict[str, Any]:
    return {"engine": engine, "severity": severity, "text": text, "remedy": remedy}


def _problems(engine: dict[str, Any], requests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those of one engine. Severity 1: it does not serve or loses data, 2: requests suffer, 3: worth a look."""
    name, pool, ops = engine["name"], engine["pool"], engine["ops"]
    if engine["state"] != "serving":
        yield _problem(name, 1, f"is {engine['state']}", f"journalctl -u aiod ENGINE={name} says why")
    if poisoned := engine.get("poisoned_files", 0):
        remedy = "aiodctl handles names them; write the data again, then close every handle"
        yield _problem(name, 1, f"{poisoned} files whose flush has failed: data may be lost", remedy)
    if stuck := pool["stuck_threads"]:
        hung = next((each for each in requests if each["engine"] == name), None)
        where = f", the oldest {hung['op']} on {hung['file']}" if hung is not None else ""
        age = duration(engine.get("oldest_request_age_s", 0.0))
        remedy = f"aiodctl requests {name} lists them; check the disk or the server of that file"
        yield _problem(name, 2, f"{stuck} workers hang for up to {age}{where}", remedy)
    if pool["queued"] and pool["cur_threads"] - pool["stuck_threads"] >= pool["max_threads"]:
        text = f"all {pool['max_threads']} workers are in use, and {pool['queued']} requests wait"
        yield _problem(name, 2, text, f"aiodctl pool {name} --max {2 * pool['max_threads']}, if the disk has room")
    if failures := pool["spawn_failures"]:
        remedy = "raise TasksMax= of the unit, or RLIMIT_NPROC"
        yield _problem(name, 2, f"{failures} creations of workers have failed", remedy)
    if failed := ops.get("flush", {}).get("errors", 0):
        yield _problem(name, 2, f"{failed} flushes have failed", f"journalctl -u aiod ENGINE={name} names the files")
    yield from _held_back(engine)
    if restarts := engine["restarts"]:
        yield _problem(name, 3, f"was replaced {restarts} times", f"journalctl -u aiod ENGINE={name} says why")
    if lost := pool.get("lost_wakeups", 0):
        yield _problem(name, 3, f"{lost} lost wake-ups were recovered", "a bug of aiod: please report it")


def _held_back(engine: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Exports and users whose clients ask for more than their rates allow."""
    held = [(f"export {name}", f"exports.{name}", export) for name, export in engine.get("exports", {}).items()]
    held += [(f"user {user['user']}", f"users.{user['user']}", user) for user in engine.get("throttled_users", ())]
    for what, section, figures in held:
        if waiting := figures.get("waiting"):
            since = duration(figures["throttled_s"])
            text = f"{what} is above its rate: {waiting} sessions wait for it (for {since} since the start)"
            remedy = f"raise {section}.iops_max or bytes_per_second_max, or have its clients ask for less"
            yield _problem(engine["name"], 3, text, remedy)


def show(body: dict[str, Any]) -> Iterator[Any]:
    """At most ten lines: figures first, then the problems with their remedies."""
    problems = body["problems"]
    verdict = "ok" if not problems else f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    yield f"aiod {body['version']} (pid {body['pid']}), up for {duration(body['uptime_s'])}: {verdict}"
    yield (
        f"engines: {body['engines_serving']} of {body['engines']} serve, {body['threads']} workers; "
        f"clients: {body['sessions']}, {body['files']} files, {body['rings']} rings"
    )
    yield (
        f"requests: {count(body['requests'])} done, {count(body['errors'])} failed; now {body['inflight']} in flight, "
        f"{body['queued']} queued, oldest {duration(body['oldest_request_age_s'])}"
    )
    slowest = sorted(body["p99_us"].items(), key=lambda op: -op[1])[:3]
    yield "p99 since the start: " + (", ".join(f"{op} {latency(us)}" for op, us in slowest) or "no requests yet")
    room = _LINES_MAX - _FIGURE_LINES
    shown = room // 2 if len(problems) <= room // 2 else room // 2 - 1
    for problem in problems[:shown]:
        yield f"! {problem['engine']}: {problem['text']}"
        yield f"    -> {problem['remedy']}"
    if len(problems) > shown:
        yield f"! and {len(problems) - shown} more: aiodctl status --json lists all"
