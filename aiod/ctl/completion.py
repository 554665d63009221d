"""What the shell's completion asks the running daemon for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiod.ctl.daemon import ask

if TYPE_CHECKING:
    import click

_TIMEOUT_S: Final = 0.5
"""Somebody has pressed a key, and waits."""


def engine_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The engines of the daemon that the command line names so far; none when it does not answer."""
    endpoint = context.find_root().params.get("endpoint")
    try:
        # The one verb that names every engine and needs no answer from any of them.
        body = ask(endpoint, "threads", _TIMEOUT_S)
    except OSError:
        return []
    return [engine["name"] for engine in body["engines"] if engine["name"].startswith(incomplete)]
