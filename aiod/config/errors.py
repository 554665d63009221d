"""ConfigError, and the texts of pydantic's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiod.config.engines import EngineConfig
from aiod.config.exports import ExportConfig
from aiod.config.metrics import MetricsConfig
from aiod.config.root import Config
from aiod.config.sessions import SessionsConfig
from aiod.config.tcp import KeyConfig, TcpConfig
from aiod.config.users import UserConfig
from aiod.config.vhost import VhostConfig

if TYPE_CHECKING:
    from pydantic import BaseModel


class ConfigError(Exception):
    """The configuration is wrong: one line per error, each with file, key, problem and allowed values."""


def error_lines(source: str, detail: Any) -> list[str]:
    """The lines of one error of pydantic's: file, key, problem, allowed values."""
    if not detail["loc"]:
        return [f"{source}: {problem}" for problem in detail["msg"].removeprefix("Value error, ").splitlines()]
    return [_error_line(source, detail)]


def _error_line(source: str, detail: Any) -> str:
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    key = ".".join(location)
    parent, field = _find(location)
    wrong = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"{source}: {key}: unknown key; allowed here: {', '.join(sorted(parent.model_fields))}"
    if detail["type"] in {"model_type", "dict_type"}:
        return f"{source}: {key}: a value instead of a section; allowed: keys under a line [{key}]"
    if detail["type"] == "missing":
        wrong = "missing"
    elif isinstance(detail["input"], str | int | float | bool):
        wrong = f"{wrong[0].lower()}{wrong[1:]} (it is {detail['input']!r})"
    allowed = field.description if field is not None else ""
    if "[key]" in detail["loc"]:
        allowed = "a name of letters, digits, '.', '_' and '-', at most 64 characters"
    return ": ".join(filter(None, (source, key, wrong))) + (f"; allowed: {allowed}" if allowed else "")


def _find(location: list[str]) -> tuple[type[BaseModel], Any]:
    """The section and the field of a validation error; no field for a whole section."""
    tables: dict[str, type[BaseModel]] = {
        "exports": ExportConfig,
        "engine": EngineConfig,
        "users": UserConfig,
        "keys": KeyConfig,
        "vhost": VhostConfig,
    }
    sections: dict[str, type[BaseModel]] = {"sessions": SessionsConfig, "tcp": TcpConfig, "metrics": MetricsConfig}
    section: type[BaseModel] = Config
    rest = location
    if rest and rest[0] in tables and len(rest) > 1:
        section, rest = tables[rest[0]], rest[2:]
    elif rest and rest[0] in sections:
        section, rest = sections[rest[0]], rest[1:]
    return section, section.model_fields.get(rest[0]) if rest else None
