"""The command line of aiodctl.

Exit status: 0 done, 1 the daemon refused, 2 usage, 3 no daemon reached.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from aiod import __version__
from aiod.ctl import tables
from aiod.ctl.bench_run import KINDS, run_bench
from aiod.ctl.completion import engine_names, export_names
from aiod.ctl.daemon import Address, ask, ask_until
from aiod.ctl.daemon import drain as drain_daemon
from aiod.ctl.keygen import keygen
from aiod.util.printable import printable_body, printable_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT_REFUSED: Final = 1
EXIT_UNREACHABLE: Final = 3

_TABLE_COLUMNS_MIN: Final = 200
"""Width when the output is not a terminal, so that tables are not cut to 80 columns."""


@dataclass
class Options:
    """Options before the verb."""

    address: Address
    as_json: bool
    timeout_s: float


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--endpoint", envvar="AIOD_ENDPOINT", metavar="EP", help="Front endpoint; also AIOD_ENDPOINT.")
@click.option("--key", metavar="FILE", help="Your secret key, for tcp://; also AIOD_KEY.")
@click.option("--server-key", metavar="KEY", help="The daemon's public key; also AIOD_SERVER_KEY.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time to wait for an answer.",
)
@click.version_option(__version__, prog_name="aiodctl")
@click.pass_context
def main(context: click.Context, /, timeout_s: float, *, as_json: bool, **address: str | None) -> None:
    """Inspect and control a running aiod.

    Exit status: 0 done, 1 the daemon refused, 2 usage, 3 no daemon reached.
    """
    context.obj = Options(Address(**address), as_json, timeout_s)


def _verb(name: str, summary: str, show: Callable[[dict[str, Any]], Iterator[Any]]) -> None:
    """Add a verb without arguments."""

    @click.pass_obj
    def callback(options: Options, *, as_json: bool) -> None:
        _answer(options, as_json or options.as_json, show, lambda: ask(options.address, name, options.timeout_s))

    params: list[click.Parameter] = [_json_option()]
    main.add_command(click.Command(name, callback=callback, help=summary, params=params))


def _json_option() -> click.Option:
    return click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document instead of a table.")


@main.command()
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Retry for this time while no daemon answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def ping(options: Options, wait_s: float, *, as_json: bool) -> None:
    """Check whether the daemon answers."""
    _answer(
        options,
        as_json or options.as_json,
        tables.ping,
        lambda: ask_until(options.address, "ping", wait_s, options.timeout_s),
    )


_verb("stats", "Show the engines, their pools, and latencies per operation.", tables.stats)
_verb("exports", "Show the exports, and the engine of each.", tables.exports)
_verb("clients", "Show the connected clients, and statistics of each.", tables.clients)
_verb("handles", "Show open files: client, mode, failed flushes. Requires control privileges.", tables.handles)
_verb("reload", "Read the configuration again, and show the changes. Requires control privileges.", tables.reload)
_verb("version", "Show the versions of the daemon and the protocol.", tables.version)


@main.command()
@click.option("--check", is_flag=True, help="Exit with 1 if the CPUs of a worker differ from its main thread's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.pass_obj
def threads(options: Options, *, check: bool, as_json: bool) -> None:
    """Show every thread, its role and its CPUs.

    Workers whose CPUs differ from those of their engine's main thread are marked: they were created before the main
    thread was moved (with affinity = "inherit" they stay until they exit), or they were moved by other means.
    """
    body = _answer(
        options, as_json or options.as_json, tables.threads, lambda: ask(options.address, "threads", options.timeout_s)
    )
    astray = sum(thread["astray"] for engine in body["engines"] for thread in engine["threads"])
    if check and astray:
        click.echo(f"aiodctl: {astray} workers have other CPUs than their main thread", err=True)
        sys.exit(EXIT_REFUSED)


@main.command()
@click.argument("engine", shell_complete=engine_names)
@click.option("--min", "min_threads", type=int, metavar="N", help="Number of workers that stay when idle.")
@click.option("--max", "max_threads", type=int, metavar="N", help="Most workers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def pool(options: Options, engine: str, min_threads: int | None, max_threads: int | None, *, as_json: bool) -> None:
    """Change the limits of ENGINE's worker pool while it runs.

    The limits last until the daemon is restarted; engine.NAME.max_threads in aiod.toml is permanent. Surplus workers
    exit when their request is done. Requires control privileges: see control_groups.
    """
    limits = {"min_threads": min_threads, "max_threads": max_threads}
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        raise click.UsageError("give --min N, --max N, or both")
    _answer(
        options,
        as_json or options.as_json,
        tables.pool,
        lambda: ask(options.address, "pool", options.timeout_s, engine=engine, **given),
    )


@main.command()
@click.argument("engine", required=False, shell_complete=engine_names)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.pass_obj
def requests(options: Options, engine: str | None, *, as_json: bool) -> None:
    """Show the active requests of ENGINE, or of all engines: the oldest first, at most 1000.

    Requests that hang are at the top, each with its worker. Queued requests are only counted. Requires control
    privileges.
    """
    given = {"engine": engine} if engine is not None else {}
    _answer(
        options,
        as_json or options.as_json,
        tables.requests,
        lambda: ask(options.address, "requests", options.timeout_s, **given),
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def drain(options: Options, *, as_json: bool) -> None:
    """Drain and stop the daemon, as SIGTERM does; return when it has stopped.

    Accepted requests are completed, and answered, for at most drain_timeout_s. Requires control privileges: root, the
    daemon's own user and members of control_groups have them.
    """
    _answer(
        options,
        as_json or options.as_json,
        tables.drain,
        lambda: drain_daemon(options.address, options.timeout_s),
    )


@main.command()
@click.argument("client")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def kick(options: Options, client: str, *, as_json: bool) -> None:
    """End the session of CLIENT, named as `aiodctl clients` shows it.

    Its active requests complete without an answer, and its files are closed. The client may connect again. Requires
    control privileges: root, the daemon's own user and members of control_groups have them.
    """
    _answer(
        options,
        as_json or options.as_json,
        tables.kick,
        lambda: ask(options.address, "kick", options.timeout_s, client=client),
    )


main.add_command(keygen)


class Size(click.ParamType[int]):
    """Bytes, as "4k", "1M" or "4096"."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, above 0."""
        text = str(value)
        unit = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1:].lower(), 1)
        digits = text[:-1] if unit > 1 else text
        if not digits.isdecimal() or int(digits) == 0:
            self.fail(f"{text!r} is not a size; write 4096, 4k, 1M or 1G", param, ctx)
        return int(digits) * unit


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
    "--seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Duration.",
)
@click.option("--direct", is_flag=True, help="Bypass the page cache (O_DIRECT).")
@click.option(
    "--transport",
    type=click.Choice(["auto", "ring", "zmq"]),
    default="auto",
    show_default=True,
    help="Shared-memory ring or ZeroMQ.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def bench(options: Options, /, export: str | None, seconds: float, *, as_json: bool, **work: Any) -> None:
    """Measure the running daemon with a temporary file in EXPORT.

    EXPORT is a writable directory; by default the first one. The file is removed at the end. Requests of other clients
    influence the result, and this command slows those down.
    """
    silent = as_json or options.as_json
    _answer(
        options,
        silent,
        tables.bench,
        lambda: run_bench(options.address, export, seconds, options.timeout_s, Console(stderr=True), **work),
    )


def _answer(
    options: Options,
    as_json: bool,  # noqa: FBT001 - the user's option
    show: Callable[[dict[str, Any]], Iterator[Any]],
    ask_daemon: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Print the answer of `ask_daemon`, and return it; on an error, print it and exit."""
    try:
        body = ask_daemon()
    except (ConnectionError, TimeoutError) as error:
        where = f" at {options.address.endpoint}" if options.address.endpoint else ""
        click.echo(f"aiodctl: no daemon reached{where}: {error.strerror or error}", err=True)
        sys.exit(EXIT_UNREACHABLE)
    except OSError as error:
        click.echo(f"aiodctl: {printable_lines(str(error.strerror or error))}", err=True)
        sys.exit(EXIT_REFUSED)
    if as_json:
        click.echo(json.dumps(body, indent=2))
        return body
    # Names that clients chose must not be taken as markup.
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=_TABLE_COLUMNS_MIN)
    for part in show(printable_body(body)):
        console.print(part)
    return body


if __name__ == "__main__":
    main(prog_name="aiodctl")
