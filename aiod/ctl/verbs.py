"""The command line of aiodctl: its verbs and their options. program.py has the exit statuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiod import __version__
from aiod.ctl import status as judgement
from aiod.ctl import tables
from aiod.ctl import top as live
from aiod.ctl import trace as tracing
from aiod.ctl.bench_run import KINDS, run_bench
from aiod.ctl.completion import engine_names, export_names
from aiod.ctl.daemon import Address, ask, ask_until
from aiod.ctl.daemon import drain as drain_daemon
from aiod.ctl.keygen import keygen
from aiod.ctl.options import Given, Options, Seconds, Size, json_option, output_options
from aiod.ctl.output import Output, is_terminal
from aiod.ctl.program import EXIT_REFUSED, Failure, Program
from aiod.ctl.refusals import asking
from aiod.ctl.top_screen import View
from aiod.ctl.vhost import vhost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--endpoint", envvar="AIOD_ENDPOINT", metavar="EP", help="Front endpoint; also AIOD_ENDPOINT.")
@click.option("--key", metavar="FILE", help="Your secret key, for tcp://; also AIOD_KEY.")
@click.option("--server-key", metavar="KEY", help="The daemon's public key; also AIOD_SERVER_KEY.")
@output_options
@click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time to wait for an answer.",
)
@click.version_option(__version__, prog_name="aiodctl")
@click.pass_context
def main(context: click.Context, /, timeout_s: float, **given: Any) -> None:
    """Inspect and control a running aiod.

    Exit status: 0 done, 1 the daemon refused or the output failed, 2 usage, 3 no daemon reached, 130 interrupted, 141
    the reader of the output has gone.
    """
    output = Given.taken(given)
    context.obj = Options(Address(**given), Output(output.form or "table", output.headers), timeout_s)


def _verb(name: str, summary: str, show: Callable[[dict[str, Any]], Iterator[Any]]) -> None:
    """Add a verb without arguments."""

    @click.pass_obj
    def callback(options: Options, /, **given: Any) -> None:
        options.answer(Given.taken(given), show, lambda: ask(options.address, name, options.timeout_s))

    main.command(name, help=summary)(output_options(callback))


@main.command()
@click.option(
    "--wait",
    "wait_s",
    type=Seconds(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Retry for this time while no daemon answers.",
)
@json_option
@click.pass_obj
def ping(options: Options, /, wait_s: float, **given: Any) -> None:
    """Check whether the daemon answers."""
    options.answer(
        Given.taken(given), tables.ping, lambda: ask_until(options.address, "ping", wait_s, options.timeout_s)
    )


@main.command()
@click.option("--check", is_flag=True, help="Exit with 1 if there is a problem.")
@json_option
@click.pass_obj
def status(options: Options, /, *, check: bool, **given: Any) -> None:
    """Show the daemon's state in ten lines: what is right, what is not, and what to do."""
    body = options.answer(
        Given.taken(given),
        judgement.show,
        lambda: judgement.gather(lambda verb: ask(options.address, verb, options.timeout_s)),
    )
    if check and body["problems"]:
        raise Failure(f"{len(body['problems'])} problems", EXIT_REFUSED)


@main.command()
@click.option("--once", is_flag=True, help="Print one interval as text, and exit.")
@click.option("--json-lines", is_flag=True, help="Print each interval as one line of JSON.")
@click.option("--count", type=click.IntRange(min=0), default=0, metavar="N", help="With --json-lines: N intervals.")
@click.option("--clients", is_flag=True, help="With --once: show clients instead of operations.")
@click.option("--exports", is_flag=True, help="With --once: show exports instead of operations.")
@click.option(
    "--interval",
    "interval_s",
    type=Seconds(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Length of an interval.",
)
@click.pass_obj
def top(options: Options, /, interval_s: float, count: int, **chosen: bool) -> None:
    """Show rates, latencies and workers live, of each interval alone.

    Keys: q quits, p pauses, s sorts by rate, MiB/s or p99, e chooses an engine; o shows operations, x exports, c
    clients. x and c once more choose an export or a client, and show its operations.
    """
    view = View("clients" if chosen["clients"] else "exports" if chosen["exports"] else "operations")
    sampler = live.Sampler(options.address, options.timeout_s)
    with asking(options.address):
        if chosen["once"]:
            live.print_once(sampler, interval_s, view)
        elif chosen["json_lines"]:
            live.print_json_lines(sampler, interval_s, count)
        elif not (is_terminal() and sys.stdin is not None and sys.stdin.isatty()):
            raise click.UsageError("no terminal: give --once or --json-lines")
        else:
            ask(options.address, "ping", options.timeout_s)
            live.Screen(sampler, interval_s).run()


_verb("stats", "Show the engines, their pools, and latencies per operation.", tables.stats)
_verb("exports", "Show the exports, and the file system and the engine of each.", tables.exports)
_verb("clients", "Show the connected clients, and statistics of each.", tables.clients)
_verb("handles", "Show open files: client, mode, failed flushes. Requires control privileges.", tables.handles)
_verb("reload", "Read the configuration again, and show the changes. Requires control privileges.", tables.reload)
_verb("version", "Show the versions of the daemon and the protocol.", tables.version)


@main.command()
@click.option("--check", is_flag=True, help="Exit with 1 if the CPUs of a worker differ from its main thread's.")
@output_options
@click.pass_obj
def threads(options: Options, /, *, check: bool, **given: Any) -> None:
    """Show every thread, its role and its CPUs.

    Workers whose CPUs differ from those of their engine's main thread are marked: they were created before the main
    thread was moved (with affinity = "inherit" they stay until they exit), or they were moved by other means.
    """
    body = options.answer(
        Given.taken(given), tables.threads, lambda: ask(options.address, "threads", options.timeout_s)
    )
    astray = sum(thread["astray"] for engine in body["engines"] for thread in engine["threads"])
    if check and astray:
        raise Failure(f"{astray} workers have other CPUs than their main thread", EXIT_REFUSED)


@main.command()
@click.argument("engine", shell_complete=engine_names)
@click.option("--min", "min_threads", type=int, metavar="N", help="Number of workers that stay when idle.")
@click.option("--max", "max_threads", type=int, metavar="N", help="Most workers.")
@json_option
@click.pass_obj
def pool(options: Options, /, engine: str, min_threads: int | None, max_threads: int | None, **given: Any) -> None:
    """Change the limits of ENGINE's worker pool while it runs.

    The limits last until the daemon is restarted; engine.NAME.max_threads in aiod.toml is permanent. Surplus workers
    exit when their request is done. Requires control privileges: see control_groups.
    """
    limits = {"min_threads": min_threads, "max_threads": max_threads}
    wanted = {name: value for name, value in limits.items() if value is not None}
    if not wanted:
        raise click.UsageError("give --min N, --max N, or both")
    options.answer(
        Given.taken(given),
        tables.pool,
        lambda: ask(options.address, "pool", options.timeout_s, engine=engine, **wanted),
    )


@main.command()
@click.argument("engine", required=False, shell_complete=engine_names)
@output_options
@click.pass_obj
def requests(options: Options, /, engine: str | None, **given: Any) -> None:
    """Show the active requests of ENGINE, or of all engines: the oldest first, at most 1000.

    Requests that hang are at the top, each with its worker. Queued requests are only counted. Requires control
    privileges.
    """
    wanted = {"engine": engine} if engine is not None else {}
    options.answer(
        Given.taken(given), tables.requests, lambda: ask(options.address, "requests", options.timeout_s, **wanted)
    )


@main.command()
@json_option
@click.pass_obj
def drain(options: Options, /, **given: Any) -> None:
    """Drain and stop the daemon, as SIGTERM does; return when it has stopped.

    Accepted requests are completed, and answered, for at most drain_timeout_s. Requires control privileges: root, the
    daemon's own user and members of control_groups have them.
    """
    options.answer(Given.taken(given), tables.drain, lambda: drain_daemon(options.address, options.timeout_s))


@main.command()
@click.argument("client")
@json_option
@click.pass_obj
def kick(options: Options, /, client: str, **given: Any) -> None:
    """End the session of CLIENT, named as `aiodctl clients` shows it.

    Its active requests complete without an answer, and its files are closed. The client may connect again. Requires
    control privileges: root, the daemon's own user and members of control_groups have them.
    """
    options.answer(
        Given.taken(given), tables.kick, lambda: ask(options.address, "kick", options.timeout_s, client=client)
    )


@main.command()
@json_option
@click.pass_obj
def metrics(options: Options, /, **given: Any) -> None:
    """Print the metrics in Prometheus's text form, as a scrape gets them.

    Into a file for the textfile collector of node_exporter, where no port is to be open.
    """
    options.answer(Given.taken(given), tables.metrics, lambda: ask(options.address, "metrics", options.timeout_s))


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--seconds", type=Seconds(0, 60, min_open=True), default=2.0, show_default=True, metavar="S", help="Duration."
)
@json_option
@click.pass_obj
def trace(options: Options, /, file: Path, seconds: float, **given: Any) -> None:
    """Record the requests of some seconds into FILE: how long each was queued, in service, and by which thread.

    FILE has Chrome's JSON format, for https://ui.perfetto.dev or chrome://tracing. Each engine records up to 65536
    requests. Requires control privileges.
    """
    options.answer(
        Given.taken(given),
        tracing.show,
        lambda: tracing.write(ask(options.address, "trace", options.timeout_s + seconds, seconds=seconds), file),
    )


main.add_command(keygen)
main.add_command(vhost)


@main.command()
@click.argument("export", required=False, shell_complete=export_names)
@click.option("--rw", "kind", type=click.Choice(KINDS), default="randread", show_default=True, help="Kind of requests.")
@click.option(
    "--bs", "block_bytes", type=Size(), default="4k", show_default=True, metavar="SIZE", help="Size of each request."
)
@click.option(
    "--size", "file_bytes", type=Size(), default="64M", show_default=True, metavar="SIZE", help="Size of the file."
)
@click.option(
    "--depth", type=click.IntRange(1, 4096), default=32, show_default=True, metavar="N", help="Requests in flight."
)
@click.option(
    "--seconds", type=Seconds(0, 3600, min_open=True), default=5.0, show_default=True, metavar="S", help="Duration."
)
@click.option("--direct", is_flag=True, help="Bypass the page cache (O_DIRECT).")
@click.option(
    "--transport",
    type=click.Choice(["auto", "ring", "zmq"]),
    default="auto",
    show_default=True,
    help="Shared-memory ring or ZeroMQ.",
)
@output_options
@click.pass_obj
def bench(options: Options, /, export: str | None, seconds: float, **work: Any) -> None:
    """Measure the running daemon with a temporary file in EXPORT.

    EXPORT is a writable directory; by default the first one. The file is removed at the end. Requests of other clients
    influence the result, and this command slows those down.
    """
    output = Given.taken(work)
    options.answer(output, tables.bench, lambda: run_bench(options.address, export, seconds, options.timeout_s, **work))
