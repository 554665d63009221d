"""conf/aiod.toml shows every key of aiod.config with its default, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticUndefined

from aiod.config import (
    Config,
    EngineConfig,
    ExportConfig,
    KeyConfig,
    MetricsConfig,
    SessionsConfig,
    TcpConfig,
    UserConfig,
    VhostConfig,
    load_config,
)
from aiod_protocol.key_files import is_public_key

if TYPE_CHECKING:
    from pydantic import BaseModel

CONF = Path(__file__).parents[2] / "conf" / "aiod.toml"

SECTIONS: dict[str, type[BaseModel]] = {
    "exports": ExportConfig,
    "engine": EngineConfig,
    "sessions": SessionsConfig,
    "tcp": TcpConfig,
    "metrics": MetricsConfig,
    "keys": KeyConfig,
    "users": UserConfig,
    "vhost": VhostConfig,
}


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a section's plain keys."""
    fields = model.model_fields.items()
    return {name: field.default for name, field in fields if field.default is not PydanticUndefined}


def test_conf_file_is_valid() -> None:
    config = load_config(CONF)
    assert config.runtime_dir == "/run/aiod"
    assert config.exports["scratch"].path == "/srv/scratch"


def test_conf_file_shows_every_default() -> None:
    document = tomllib.loads(re.sub(r"^#(?=[a-z_]+ = |\[)", "", CONF.read_text(), flags=re.MULTILINE))
    top = {key: value for key, value in document.items() if key not in SECTIONS}
    assert top == {"runtime_dir": "/run/aiod", **defaults(Config)}
    assert document["exports"]["scratch"] == {"path": "/srv/scratch", **defaults(ExportConfig)}
    assert document["engine"]["main"] == defaults(EngineConfig)
    assert document["sessions"] == defaults(SessionsConfig)
    assert document["tcp"] == defaults(TcpConfig)
    assert document["metrics"] == defaults(MetricsConfig)
    public_key = document["keys"]["backup"].pop("public_key")
    assert is_public_key(public_key)
    assert document["keys"]["backup"] == defaults(KeyConfig)
    assert document["users"]["*"] == defaults(UserConfig)
    assert document["vhost"]["vm1"] == {"export": "scratch", **defaults(VhostConfig), "path": "vm1.img"}
