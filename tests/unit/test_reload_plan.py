"""Changes of each key by a reload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aiod.config import (
    Config,
    ConfigError,
    EngineConfig,
    ExportConfig,
    MetricsConfig,
    SessionsConfig,
    TcpConfig,
    UserConfig,
    VhostConfig,
    make_config,
)
from aiod.supervisor.reload import _RESTART, plan

if TYPE_CHECKING:
    from pydantic import BaseModel

SECTIONS: dict[str, type[BaseModel]] = {
    "exports.*": ExportConfig,
    "engine.*": EngineConfig,
    "sessions": SessionsConfig,
    "tcp": TcpConfig,
    "metrics": MetricsConfig,
    "users.*": UserConfig,
    "vhost.*": VhostConfig,
}


def config(**sections: Any) -> Config:
    """A configuration with two exports."""
    exports = {"a": {"path": "/a"}, "b": {"path": "/b"}}
    return make_config({"runtime_dir": "/run/x", "exports": exports} | sections, "file")


def test_every_key_listed_as_needing_a_restart_exists() -> None:
    keys = {*Config.model_fields}
    keys |= {f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields}
    assert keys >= _RESTART


def test_an_equal_configuration_has_no_changes() -> None:
    result = plan(config(), config(), "file")
    assert (result.changed, result.restart) == ([], [])
    assert result.config.exports == config().exports


def test_writing_out_the_implied_engine_changes_nothing() -> None:
    written = config(engine={"main": {"max_threads": 64}})
    assert plan(config(), written, "file").changed == []


def test_moving_an_export_to_another_engine_needs_a_restart() -> None:
    moved = {"a": {"path": "/a", "engine": "other"}, "b": {"path": "/b", "read_only": True}}
    result = plan(config(), config(exports=moved, engine={"other": {}}), "file")
    assert [str(change) for change in result.restart] == ['exports.a.engine: "main" -> "other"']
    assert [str(change) for change in result.changed] == ["engine.other: added", "exports.b.read_only: false -> true"]
    assert result.config.exports["a"].engine == "main"
    assert result.config.exports["b"].read_only


def test_removing_the_engine_of_an_export_that_cannot_move_is_refused() -> None:
    exports = {"a": {"path": "/a", "engine": "one"}}
    running = config(exports=exports, engine={"one": {}})
    wanted = config(exports={"a": {"path": "/a", "engine": "two"}}, engine={"two": {}})
    with pytest.raises(
        ConfigError, match=r"restarted for exports.a.engine\): exports.a.engine: there is no engine 'one'"
    ):
        plan(running, wanted, "file")
