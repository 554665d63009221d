"""The forms of a log record: a line of text with key=value fields, or a JSON document. One line each.

Records contain names that clients chose: control characters are escaped in both forms.
"""

from __future__ import annotations

import errno
import json
import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aiod.util.printable import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS: Final = ("ENGINE", "CLIENT", "EXPORT", "ERRNO")
"""Attributes of a record that name its subject (logs.about); the journal's fields have the same names."""

_HEAD: Final = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"
_PLAIN: Final = re.compile(r"[^\s\"'=]+")


class PrintableFormatter(logging.Formatter):
    """The message alone, for the journal, which has the fields. Lines after the first one are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of `record`. Thread-safe."""
        return printable_lines(super().format(record)).replace("\n", "\n    ")


class TextFormatter(logging.Formatter):
    """A line: time, level, process, the sentence, then the subject as key=value.

    A traceback, which only an internal error has, follows in indented lines; nothing else makes a second line.
    """

    def __init__(self, fields: Mapping[str, str], head: str = _HEAD) -> None:
        """`fields`: of every record of this process."""
        super().__init__(head)
        self._fields = fields

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging calls it
        """The line without a traceback."""
        subject = (f"{key}={_quoted(value)}" for key, value in subject_of(record, self._fields).items())
        return printable(" ".join([super().formatMessage(record), *subject]))

    def format(self, record: logging.LogRecord) -> str:
        """The text of `record`. Thread-safe."""
        return printable_lines(super().format(record)).replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """A JSON document in one line, in ASCII."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        """`fields`: of every record of this process."""
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """The document of `record`. Thread-safe."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
            **subject_of(record, self._fields),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document)


def subject_of(record: logging.LogRecord, fields: Mapping[str, str]) -> dict[str, str]:
    """The subject of a record: engine, client, export, errno by its name."""
    subject: dict[str, str] = {}
    for name in FIELDS:
        value: Any = getattr(record, name, fields.get(name))
        if isinstance(value, int):
            value = errno.errorcode.get(value, str(value))
        if value is not None:
            subject[name.lower()] = str(value)
    return subject


def _quoted(value: str) -> str:
    """`value`, quoted where it could be taken for two words."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
