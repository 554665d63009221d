"""The outer handler of aiodctl: each way to end has one message and one exit status, and none is a traceback.

Messages go to stderr, as one line of text, or as one JSON document when the output is JSON.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import signal
import sys
from typing import Any, Final

import click

from aiod.ctl.output import OutputError
from aiod.util.printable import printable_lines

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
EXIT_BROKEN_PIPE: Final = 128 + signal.SIGPIPE


class Failure(Exception):  # noqa: N818 - not every one is an error of this program
    """The end of the program with a message."""

    def __init__(
        self, message: str, status: int = EXIT_REFUSED, *, number: int | None = None, reason: str = ""
    ) -> None:
        """`number`: the errno; `reason`: the name of the protocol's reason ("": none)."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.number = number
        self.reason = reason


class Program(click.Group):
    """The group of all verbs. Its main() exits with the documented status, whatever happens."""

    def main(self, args: Any = None, *positional: Any, standalone_mode: bool = True, **options: Any) -> Any:
        """As click.Group.main."""
        if not standalone_mode:
            return super().main(args, *positional, standalone_mode=False, **options)  # type: ignore[call-overload]
        words = [*sys.argv[1:]] if args is None else [*args]
        as_json = "--json" in words or "--format=json" in words or ("--format", "json") in itertools.pairwise(words)
        status = self._run(args, *positional, as_json=as_json, **options)
        sys.exit(status if _flushed() or status else EXIT_REFUSED)

    def _run(self, *positional: Any, as_json: bool, **options: Any) -> int:
        try:
            status: Any = super().main(*positional, standalone_mode=False, **options)  # type: ignore[call-overload]
        except click.Abort:
            return EXIT_INTERRUPTED
        except Exception as error:  # noqa: BLE001 - the user of a command cannot use a traceback
            return _ended_by(error, as_json)
        return status if isinstance(status, int) else 0


def _ended_by(error: Exception, as_json: bool) -> int:  # noqa: FBT001
    """Print the message of `error`; the exit status."""
    match error:
        case Failure():
            _report(as_json, error.message, error.status, error.number, error.reason)
            return error.status
        case OutputError():
            return _output_failed(as_json, error.cause)
        case OSError():  # of the help, which click prints
            return _output_failed(as_json, error)
        case click.UsageError() if not as_json:
            with contextlib.suppress(OSError, ValueError):
                error.show()
            return EXIT_USAGE
        case click.ClickException():
            _report(as_json, error.format_message(), EXIT_USAGE)
            return EXIT_USAGE
    _report(as_json, f"internal error: {type(error).__name__}: {error}; please report it", EXIT_REFUSED)
    return EXIT_REFUSED


def _report(as_json: bool, message: str, status: int, number: int | None = None, reason: str = "") -> None:  # noqa: FBT001
    """Print the message; stderr may be closed or full, which leaves the exit status alone."""
    text = f"aiodctl: {printable_lines(message)}"
    if as_json:
        name = errno.errorcode.get(number) if number is not None else None
        error = {"message": message, "errno": name, "reason": reason or None, "exit_status": status}
        text = json.dumps({"error": error}, indent=2)
    with contextlib.suppress(OSError, ValueError):
        click.echo(text, err=True)


def _output_failed(as_json: bool, error: OSError) -> int:  # noqa: FBT001
    """A reader that has gone has read what it wanted; every other failure is reported."""
    _abandon_stdout()
    if error.errno == errno.EPIPE:
        return EXIT_BROKEN_PIPE
    _report(as_json, f"cannot write the output: {error.strerror or error}", EXIT_REFUSED, error.errno)
    return EXIT_REFUSED


def _flushed() -> bool:
    """Whether all output is written. Otherwise the interpreter would complain at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        _abandon_stdout()
        return False
    return True


def _abandon_stdout() -> None:
    """Let the interpreter flush to /dev/null what could not be written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
