"""Shell completion of names, which the running daemon is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiod.ctl.daemon import Address, ask

if TYPE_CHECKING:
    import click

_TIMEOUT_S: Final = 0.5
"""Short, since the user has pressed a key and waits."""


def engine_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of the engines; none if the daemon does not answer."""
    # The verb that returns the name of every engine and needs no answer from any of them.
    return _names(context, "threads", "engines", incomplete)


def export_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of the exports; none if the daemon does not answer."""
    return _names(context, "exports", "exports", incomplete)


def disk_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of the disks of virtual machines; none if the daemon does not answer."""
    return _names(context, "vhost", "disks", incomplete)


def _names(context: click.Context, verb: str, of: str, incomplete: str) -> list[str]:
    given = context.find_root().params
    try:
        body = ask(Address(given.get("endpoint"), given.get("key"), given.get("server_key")), verb, _TIMEOUT_S)
    except OSError:
        return []
    return [each["name"] for each in body[of] if each["name"].startswith(incomplete)]
