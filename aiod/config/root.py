"""The whole configuration, and the settings of each engine."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from aiod.config.cpus import parse_cpus
from aiod.config.cross_checks import problems_between_sections, problems_of_disks
from aiod.config.engines import EngineConfig
from aiod.config.exports import ExportConfig  # noqa: TC001 - pydantic looks for it here
from aiod.config.fields import Group, Name, Section
from aiod.config.metrics import MetricsConfig
from aiod.config.sessions import SessionsConfig
from aiod.config.tcp import KeyConfig, TcpConfig
from aiod.config.user_database import gid_of, uid_of
from aiod.config.users import UserConfig
from aiod.config.vhost import ENGINE_PREFIX, VhostConfig
from aiod.engine_api.settings import OTHER_USERS, EngineSettings, TcpSettings, VhostSettings
from aiod_protocol.locations import front_endpoint

_EACH_OTHER: Final = "*"


class Config(Section):
    """The whole configuration. Immutable; safe from any thread."""

    runtime_dir: str = Field(description="absolute path of the directory for sockets and locks")
    drain_timeout_s: float = Field(default=10.0, ge=0, le=86400, description="from 0 to 86400 (seconds)")
    watchdog_s: float = Field(default=10.0, ge=0, le=3600, description="from 0 to 3600 (seconds; 0: never)")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description='"debug", "info", "warning" or "error"'
    )
    control_groups: list[Group] = Field(default=[], description="a list of names or gids of this host's groups")
    stats_for: Literal["everyone", "control"] = Field(default="everyone", description='"everyone" or "control"')
    exports: dict[Name, ExportConfig] = Field(min_length=1, description="at least one [exports.NAME] section")
    engine: dict[Name, EngineConfig] = Field(default_factory=dict, description="[engine.NAME] sections")
    sessions: SessionsConfig = Field(default_factory=SessionsConfig, description="the [sessions] section")
    tcp: TcpConfig = Field(default_factory=TcpConfig, description="the [tcp] section")
    metrics: MetricsConfig = Field(default_factory=MetricsConfig, description="the [metrics] section")
    keys: dict[Name, KeyConfig] = Field(default_factory=dict, description="[keys.NAME] sections")
    vhost: dict[Name, VhostConfig] = Field(default_factory=dict, description="[vhost.NAME] sections: disks of guests")
    users: dict[str, UserConfig] = Field(
        default_factory=dict, description='[users.NAME] sections: a user or uid of this host, or "*" for each other'
    )

    @field_validator("runtime_dir")
    @classmethod
    def _runtime_dir_is_absolute(cls, path: str) -> str:
        if not path.startswith("/") or "\0" in path:
            raise ValueError("not an absolute path")
        return os.path.normpath(path)

    @field_validator("users")
    @classmethod
    def _users_exist(cls, users: dict[str, UserConfig]) -> dict[str, UserConfig]:
        for user in users.keys() - {_EACH_OTHER}:
            uid_of(user)
        return users

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        problems = list(problems_between_sections(self.runtime_dir, self.exports, self.engines, self.keys))
        problems += problems_of_disks(self.runtime_dir, self.exports, self.vhost)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def user_names(self) -> dict[int, str]:
        """The NAMEs of [users.NAME] by their uids, "*" by OTHER_USERS. Asks the user database."""
        return {OTHER_USERS if user == _EACH_OTHER else uid_of(user): user for user in (_EACH_OTHER, *self.users)}

    @property
    def engines(self) -> dict[str, EngineConfig]:
        """The engines by name; "main" exists if an export names it, and one for each disk, also without a section.

        A section [engine.vhost-NAME] without its disk makes no engine.
        """
        implied = {"main": EngineConfig()} if any(export.engine == "main" for export in self.exports.values()) else {}
        implied |= {f"{ENGINE_PREFIX}{name}": EngineConfig() for name in self.vhost}
        idle = self.engines_without_disk
        return implied | {name: engine for name, engine in self.engine.items() if name not in idle}

    @cached_property
    def engines_without_disk(self) -> frozenset[str]:
        """The sections [engine.vhost-NAME] that wait for a disk NAME: there is none, and no export names the engine."""
        named = {export.engine for export in self.exports.values()}
        disks = {f"{ENGINE_PREFIX}{name}" for name in self.vhost}
        return frozenset(name for name in self.engine if name.startswith(ENGINE_PREFIX)) - named - disks

    def tcp_settings(self, port: int) -> TcpSettings | None:
        """How to serve clients of other hosts on `port`; None: they are not served."""
        if not self.tcp.listen:
            return None
        owners = {key.public_key: key.owner(name) for name, key in self.keys.items()}
        return TcpSettings(self.tcp.address[0], port, self.tcp.secret, owners)

    @cached_property
    def control_gids(self) -> frozenset[int]:
        """The groups whose members may use privileged commands."""
        return frozenset(map(gid_of, self.control_groups))

    @property
    def front_endpoint(self) -> str:
        """The endpoint that clients and aiodctl connect to first."""
        return front_endpoint(self.runtime_dir)

    def engine_settings(self, name: str, incarnation: int) -> EngineSettings:
        """The settings of the engine `name`."""
        engine, sessions = self.engines[name], self.sessions
        vhost = self.disk_of(name)
        return EngineSettings(
            name=name,
            runtime_dir=self.runtime_dir,
            incarnation=incarnation,
            log_level=self.log_level,
            exports={
                export_name: export.settings()
                for export_name, export in self.exports.items()
                if (export_name == vhost.export if vhost is not None else export.engine == name)
            },
            max_threads=engine.max_threads,
            min_threads=engine.min_threads,
            idle_timeout_ms=max(1, round(engine.idle_timeout_s * 1000)),
            cpus=parse_cpus(engine.cpus),
            affinity=engine.affinity,
            spawn_retry_ms=engine.spawn_retry_ms,
            inline_read_max=engine.inline_read_max,
            buffer_cache_max=engine.buffer_cache_max,
            bytes_inflight_max=engine.bytes_inflight_max,
            memory_max=engine.memory_max,
            rings_max=engine.rings_max if vhost is None else 0,
            ring_bytes_max=engine.ring_bytes_max,
            ring_poll_max_us=engine.ring_poll_max_us,
            reserve_threads=engine.reserve_threads,
            slow_request_ms=engine.slow_request_ms,
            stuck_threads_max=engine.stuck_threads_max,
            open_timeout_ms=round(engine.open_timeout_s * 1000),
            active_max=sessions.active_max,
            active_bytes_max=sessions.active_bytes_max,
            depth_max=sessions.depth_max,
            bytes_max=sessions.bytes_max,
            request_bytes_max=sessions.request_bytes_max,
            batch_max=sessions.batch_max,
            handles_max=sessions.handles_max,
            sessions_max=sessions.sessions_max if vhost is None else 0,
            heartbeat_ms=round(sessions.heartbeat_s * 1000),
            session_timeout_ms=round(sessions.session_timeout_s * 1000),
            users={uid_of(user): limits.settings() for user, limits in self.users.items() if user != _EACH_OTHER},
            other_users=self.users.get(_EACH_OTHER, UserConfig()).settings(),
            unclean=False,
            tcp=self.tcp_settings(engine.tcp_port) if vhost is None else None,
            vhost=vhost,
        )

    def disk_of(self, engine: str) -> VhostSettings | None:
        """The disk that the engine serves; None: it serves clients."""
        name = engine.removeprefix(ENGINE_PREFIX)
        disk = self.vhost.get(name)
        if disk is None or name == engine:
            return None
        return disk.settings(name, self.runtime_dir, self.exports[disk.export])
