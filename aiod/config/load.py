"""Makes a Config from a TOML file, from a document, or the embedded default."""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from aiod.config.errors import ConfigError, error_lines
from aiod.config.root import Config
from aiod_protocol.locations import FRONT_NAME, default_runtime_dir

if TYPE_CHECKING:
    from pathlib import Path


def load_config(path: Path) -> Config:
    """The configuration in the file `path`. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            document = tomllib.loads(file.read().decode("utf-8-sig"))  # some editors put a byte order mark in front
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    return make_config(document, str(path))


def make_config(document: dict[str, Any], source: str) -> Config:
    """The configuration in `document`; `source` names it in errors. Raises ConfigError."""
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        lines = [line for detail in error.errors(include_url=False) for line in error_lines(source, detail)]
        raise ConfigError("\n".join(lines)) from error


def default_config() -> Config:
    """The embedded default: one engine and one export, `scratch`, private to the user. Raises ConfigError."""
    named = os.environ.get("AIOD_ENDPOINT", "")
    runtime_dir = default_runtime_dir()
    if named.startswith("ipc://") and named.endswith(f"/{FRONT_NAME}"):
        runtime_dir = named.removeprefix("ipc://").removesuffix(f"/{FRONT_NAME}")
    elif named:
        raise ConfigError(
            f"AIOD_ENDPOINT={named}: without a config file the daemon serves ipc://DIRECTORY/{FRONT_NAME}; "
            "set it so, or unset it"
        )
    from aiod.config.scratch import scratch_path  # noqa: PLC0415 - looks at file systems; only the embedded default needs it

    document = {"runtime_dir": runtime_dir, "exports": {"scratch": {"path": str(scratch_path())}}}
    return make_config(document, "the embedded default (no --config, no AIOD_CONFIG)")
