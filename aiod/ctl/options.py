"""Options that several verbs share, and the types of their values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from aiod.ctl.output import FORMATS, Output
from aiod.ctl.refusals import asking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiod.ctl.daemon import Address


@dataclass(frozen=True)
class Options:
    """Options before the verb."""

    address: Address
    output: Output
    timeout_s: float

    def answer(
        self,
        given: Given,
        show: Callable[[dict[str, Any]], Iterator[Any]],
        ask_daemon: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """Print the answer of `ask_daemon`, and return it. `given`: the options of the verb."""
        with asking(self.address):
            body = ask_daemon()
        self.format(given).answer(body, show)
        return body

    def format(self, given: Given) -> Output:
        """How to print: the options of the verb add to those before it."""
        return Output(given.form or self.output.form, given.headers and self.output.headers)


@dataclass(frozen=True)
class Given:
    """Options for the output, before or after the verb."""

    form: str | None
    headers: bool

    @staticmethod
    def taken(given: dict[str, Any]) -> Given:
        """Take them out of a verb's arguments."""
        form = given.pop("form", None)
        return Given("json" if given.pop("as_json") else form, not given.pop("no_headers", False))


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --format, --json and --no-headers."""
    for add in (
        click.option("--no-headers", is_flag=True, help="Print tables without titles and column heads."),
        click.option("--format", "form", type=click.Choice(FORMATS), help="Form of the output; --json: --format json."),
        json_option,
    ):
        function = add(function)
    return function


class Seconds(click.FloatRange):
    """A finite number of seconds: FloatRange alone accepts nan."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, within the range."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number of seconds", param, ctx)
        return seconds


class Size(click.ParamType[int]):
    """Bytes, as "4k", "1M" or "4096"."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, above 0."""
        text = str(value)
        unit = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1:].lower(), 1)
        digits = text[:-1] if unit > 1 else text
        if not (digits.isascii() and digits.isdecimal()) or int(digits) == 0:
            self.fail(f"{text!r} is not a size; write 4096, 4k, 1M or 1G", param, ctx)
        return int(digits) * unit
