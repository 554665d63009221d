"""What the shell's completion asks the running daemon for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiod.ctl.daemon import Address, ask

if TYPE_CHECKING:
    import click

_TIMEOUT_S: Final = 0.5
"""Somebody has pressed a key, and waits."""


def engine_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The engines of the daemon that the command line names so far; none when it does not answer."""
    # The one verb that names every engine and needs no answer from any of them.
    return _names(context, "threads", "engines", incomplete)


def export_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Its exports, alike."""
    return _names(context, "exports", "exports", incomplete)


def _names(context: click.Context, verb: str, of: str, incomplete: str) -> list[str]:
    given = context.find_root().params
    try:
        body = ask(Address(given.get("endpoint"), given.get("key"), given.get("server_key")), verb, _TIMEOUT_S)
    except OSError:
        return []
    return [each["name"] for each in body[of] if each["name"].startswith(incomplete)]
