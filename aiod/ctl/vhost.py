"""The verb vhost: shows the disks of virtual machines, adds and removes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aiod.ctl import tables
from aiod.ctl.completion import disk_names, export_names
from aiod.ctl.daemon import ask
from aiod.ctl.options import Given, json_option, output_options

if TYPE_CHECKING:
    from aiod.ctl.options import Options

_START_S: Final = 40.0
"""Time that the daemon may take to start an engine and to open the file, beyond --timeout."""


@click.group(invoke_without_command=True)
@output_options
@click.pass_context
def vhost(context: click.Context, /, **given: Any) -> None:
    """Show the disks of virtual machines; or add, remove one while the daemon runs."""
    options: Options = context.obj
    if context.invoked_subcommand is None:
        options.answer(Given.taken(given), tables.vhost, lambda: ask(options.address, "vhost", options.timeout_s))


@vhost.command()
@click.argument("name")
@click.option("--socket", metavar="PATH", help="Socket for the VMM; default: vhost-NAME.sock in runtime_dir.")
@click.option(
    "--export", required=True, metavar="E", shell_complete=export_names, help="Export that the file belongs to."
)
@click.option("--path", metavar="P", help="Path of the file in the export; none if the export is a file itself.")
@click.option("--read-only", is_flag=True, help="The guest cannot write.")
@click.option("--num-queues", type=int, metavar="N", help="Most virtqueues, from 1 to 64; default: 8.")
@json_option
@click.pass_obj
def add(options: Options, /, name: str, read_only: bool, **given: Any) -> None:  # noqa: FBT001 - click's
    """Serve a file as the disk NAME; return when the file is open, and a VMM can connect.

    The disk lives until it is removed, or the daemon stops: a section [vhost.NAME] of the configuration is permanent.
    A reload leaves the disk alone; if the configuration has a section of its name by then, the disk belongs to that,
    and its guest goes on. Requires control privileges.
    """
    output = Given.taken(given)
    section = {key: value for key, value in given.items() if value is not None} | {"read_only": read_only}
    if "socket" in section:
        section["socket"] = str(Path(section["socket"]).absolute())
    options.answer(
        output,
        tables.vhost_added,
        lambda: ask(options.address, "vhost_add", options.timeout_s + _START_S, name=name, **section),
    )


@vhost.command()
@click.argument("name", shell_complete=disk_names)
@click.option("--force", is_flag=True, help="Also if a guest has the disk.")
@json_option
@click.pass_obj
def remove(options: Options, /, name: str, *, force: bool, **given: Any) -> None:
    """Remove the disk NAME, which `aiodctl vhost add` has added.

    A disk that a guest has is not removed without --force, which completes and flushes the requests that were taken;
    later ones wait for an engine. Requires control privileges.
    """
    options.answer(
        Given.taken(given),
        tables.vhost_removed,
        lambda: ask(
            options.address, "vhost_remove", 2 * options.timeout_s, name=name, force=force, wait_s=options.timeout_s
        ),
    )
