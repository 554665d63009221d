"""The configuration: TOML to an immutable, validated Config. All defaults are here, and there is a module per section.

Every field's description has the allowed values: errors quote it, and a test compares `conf/aiod.toml` with it.
"""

from aiod.config.engines import EngineConfig
from aiod.config.errors import ConfigError
from aiod.config.exports import ExportConfig, IoctlConfig
from aiod.config.faults import FaultConfig
from aiod.config.load import default_config, load_config, make_config
from aiod.config.metrics import MetricsConfig
from aiod.config.root import Config
from aiod.config.sessions import SessionsConfig
from aiod.config.tcp import KeyConfig, TcpConfig
from aiod.config.users import UserConfig
from aiod.config.vhost import VhostConfig

__all__ = [
    "Config",
    "ConfigError",
    "EngineConfig",
    "ExportConfig",
    "FaultConfig",
    "IoctlConfig",
    "KeyConfig",
    "MetricsConfig",
    "SessionsConfig",
    "TcpConfig",
    "UserConfig",
    "VhostConfig",
    "default_config",
    "load_config",
    "make_config",
]
