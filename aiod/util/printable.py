"""Escapes text that a client chose (names, paths) before it reaches a terminal or a log."""

from __future__ import annotations

from typing import Any


def printable(text: str) -> str:
    r"""`text` with every unprintable character escaped as in a Python literal: ESC as "\x1b", a newline as "\n"."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_body(value: Any) -> Any:
    """A copy of a JSON-like `value` in which each string, keys included, is printable()."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_body(key): printable_body(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable_body(item) for item in value]
    return value


def printable_lines(text: str) -> str:
    """Like printable(), but keeps line feeds: for messages of several lines."""
    return "\n".join(printable(line) for line in text.split("\n"))
