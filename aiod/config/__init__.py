"""TOML to a frozen, validated Config; the only home of defaults. A module a section.

Every field's description says what is allowed: errors quote it, and `conf/aiod.toml` is held equal to it by a test.
"""

from aiod.config.engines import EngineConfig
from aiod.config.errors import ConfigError
from aiod.config.exports import ExportConfig, IoctlConfig
from aiod.config.load import default_config, load_config, make_config
from aiod.config.root import Config
from aiod.config.sessions import SessionsConfig
from aiod.config.tcp import KeyConfig, TcpConfig
from aiod.config.users import UserConfig

__all__ = [
    "Config",
    "ConfigError",
    "EngineConfig",
    "ExportConfig",
    "IoctlConfig",
    "KeyConfig",
    "SessionsConfig",
    "TcpConfig",
    "UserConfig",
    "default_config",
    "load_config",
    "make_config",
]
