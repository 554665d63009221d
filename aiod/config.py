"""TOML to a frozen, validated Config; the only home of defaults.

Every field's description says what is allowed: errors quote it, and `conf/aiod.toml` is held equal to it by a test.
"""

from __future__ import annotations

import os
import stat
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from aiod.engine_api.settings import (
    RING_DIR,
    EngineSettings,
    ExportSettings,
    KeyOwner,
    RateLimits,
    TcpSettings,
    UserLimits,
)
from aiod.user_database import gid_of, groups_of_user, may_become_others, owner_of, uid_of
from aiod_client.endpoint import FRONT_NAME, default_runtime_dir, front_endpoint
from aiod_client.errors import AiodError
from aiod_client.keys import PUBLIC_KEY_CHARS, is_public_key, load_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

UNIX_PATH_BYTES_MAX: Final = 107
"""Longest path of a unix socket (sun_path without its end)."""

KIB: Final = 1024
MIB: Final = 1024 * 1024
BYTES_LIMIT: Final = 1024 * 1024 * MIB
"""No amount of memory is larger (1 TiB): a number beyond it is a slip of the pen."""

THREADS_MAX: Final = 4096
"""Most workers of one pool (AIOD_THREADS_MAX in core/pool/pool.h)."""

_KERNEL_DIRS: Final = ("/proc", "/sys")
_CPUS_ONLINE: Final = Path("/sys/devices/system/cpu/online")
_CPU_LIMIT: Final = 8192
"""Linux knows no CPU number from here on; a range is checked before it is counted out."""

_EACH_OTHER: Final = "*"


def _known(find: Callable[[str], object]) -> AfterValidator:
    """What `find` does not raise ValueError for."""

    def check(name: str) -> str:
        find(name)
        return name

    return AfterValidator(check)


User = Annotated[str, _known(uid_of)]
Group = Annotated[str, _known(gid_of)]
Owner = Annotated[str, _known(owner_of)]


def _no_directory_link(name: str) -> str:
    if name in {".", ".."}:
        raise ValueError(f'"{name}" cannot be a name: names become parts of paths')
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$"), AfterValidator(_no_directory_link)]


class ConfigError(Exception):
    """The configuration is wrong: one line per error, each with file, key, what is wrong and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class IoctlConfig(_Section):
    """One of an export's `ioctls`."""

    number: int = Field(ge=0, le=2**32 - 1, description="integer from 0 to 4294967295: the request's number")
    bytes: int = Field(ge=0, le=16 * KIB - 1, description="integer from 0 to 16383: size of its argument (bytes)")

    @model_validator(mode="after")
    def _room_for_its_argument(self) -> Self:
        """Most numbers say how large the argument is (asm-generic/ioctl.h), and the kernel heeds no other size."""
        direction, size = self.number >> 30, self.number >> 16 & 0x3FFF
        if direction and self.bytes < size:
            raise ValueError(f"bytes is {self.bytes}, but the argument of {self.number:#x} has {size}")
        return self


class ExportConfig(_Section):
    """[exports.NAME]: what clients may open as NAME/PATH."""

    path: str = Field(description="absolute path of a directory, a regular file or a block device")
    read_only: bool = Field(default=False, description="true or false")
    engine: Name = Field(default="main", description="name of the engine that serves it: an [engine.NAME] section")
    direct: bool = Field(default=False, description="true or false: open every file with O_DIRECT")
    ioctls: list[IoctlConfig] = Field(default=[], description="a list of { number = N, bytes = SIZE }")
    create: bool = Field(default=True, description="true or false: files and directories may be made in it")
    create_mode: str = Field(
        default="",
        pattern=r"^(0[0-7]{3})?$",
        description='"" for what the client asks for, or four octal digits such as "0660"',
    )
    create_owner: Owner = Field(default="", description='"" for the daemon\'s own, or "USER:GROUP", "USER", ":GROUP"')
    max_file_bytes: int = Field(default=0, ge=0, le=2**63 - 1, description="integer from 0 (no limit) (bytes)")
    symlinks: bool = Field(default=True, description="true or false: symbolic links are followed within it")
    users: list[User] = Field(default=[], description="a list of names or uids of this host's users")
    groups: list[Group] = Field(default=[], description="a list of names or gids of this host's groups")
    keys: list[Name] = Field(default=[], description="a list of NAMEs of [keys.NAME] sections")
    iops_max: int = Field(
        default=0, ge=0, le=10**9, description="integer from 0 (no limit) to 1000000000 (requests a second)"
    )
    bytes_per_second_max: int = Field(
        default=0, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes a second)"
    )
    burst_s: float = Field(default=0.1, ge=0.001, le=60, description="from 0.001 to 60 (seconds)")
    ioprio: str = Field(
        default="",
        pattern=r"^$|^idle$|^best-effort:[0-7]$",
        description='"" for none, "idle", or "best-effort:0" (first) to "best-effort:7"',
    )
    as_client: bool = Field(default=False, description="true or false: files are opened with the client's permissions")

    @field_validator("path")
    @classmethod
    def _path_is_absolute(cls, path: str) -> str:
        if not path.startswith("/") or "\0" in path:
            raise ValueError("not an absolute path")
        return os.path.normpath(path)

    @field_validator("as_client")
    @classmethod
    def _may_be_clients(cls, as_client: bool) -> bool:  # noqa: FBT001 - pydantic's way
        if as_client and not may_become_others():
            raise ValueError(
                "the daemon lacks CAP_SETUID and CAP_SETGID: run it as root, or give its unit AmbientCapabilities="
            )
        return as_client

    @model_validator(mode="after")
    def _owned_by_one(self) -> Self:
        if self.as_client and self.create_owner:
            raise ValueError("create_owner: with as_client = true a new file belongs to who makes it; leave it out")
        return self

    def settings(self) -> ExportSettings:
        """What its engine is told."""
        uid, gid = owner_of(self.create_owner)
        return ExportSettings(
            path=self.path,
            read_only=self.read_only,
            direct=self.direct,
            ioctls=tuple((ioctl.number, ioctl.bytes) for ioctl in self.ioctls),
            create=self.create,
            create_mode=int(self.create_mode, 8) if self.create_mode else -1,
            create_uid=uid,
            create_gid=gid,
            max_file_bytes=self.max_file_bytes,
            symlinks=self.symlinks,
            uids=frozenset(map(uid_of, self.users)),
            gids=frozenset(map(gid_of, self.groups)),
            keys=frozenset(self.keys),
            rate=_rate_of(self),
            ioprio=_ioprio_of(self.ioprio),
            as_client=self.as_client,
        )


class EngineConfig(_Section):
    """[engine.NAME]: one engine process and its pool."""

    max_threads: int = Field(default=64, ge=1, le=THREADS_MAX, description="integer from 1 to 4096 (worker threads)")
    min_threads: int = Field(
        default=0, ge=0, le=THREADS_MAX, description="integer from 0 to max_threads (worker threads)"
    )
    idle_timeout_s: float = Field(default=10.0, gt=0, le=86400, description="above 0, at most 86400 (seconds)")
    cpus: str = Field(default="", description='"" to inherit, or CPU numbers of this machine such as "2-5,7"')
    affinity: Literal["inherit", "follow"] = Field(default="inherit", description='"inherit" or "follow"')
    spawn_retry_ms: int = Field(default=1000, ge=1, le=600_000, description="integer from 1 to 600000 (milliseconds)")
    reserve_threads: int = Field(default=4, ge=0, le=THREADS_MAX, description="integer from 0 to 4096 (worker threads)")
    slow_request_ms: int = Field(
        default=10_000, ge=0, le=86_400_000, description="integer from 0 (never) to 86400000 (milliseconds)"
    )
    stuck_threads_max: int = Field(
        default=16, ge=0, le=THREADS_MAX, description="integer from 0 to 4096 (worker threads)"
    )
    open_timeout_s: float = Field(default=30.0, ge=0, le=86400, description="from 0 (none) to 86400 (seconds)")
    tcp_port: int = Field(default=0, ge=0, le=65535, description="integer from 0 (any that is free) to 65535")
    inline_read_max: int = Field(default=64 * KIB, ge=0, le=MIB, description="integer from 0 to 1048576 (bytes)")
    buffer_cache_max: int = Field(
        default=64 * MIB, ge=0, le=BYTES_LIMIT, description="integer from 0 to 1099511627776 (bytes)"
    )
    bytes_inflight_max: int = Field(
        default=256 * MIB, ge=MIB, le=BYTES_LIMIT, description="integer from 1048576 to 1099511627776 (bytes)"
    )
    memory_max: int = Field(
        default=1024 * MIB, ge=64 * MIB, le=BYTES_LIMIT, description="integer from 67108864 to 1099511627776 (bytes)"
    )

    rings_max: int = Field(
        default=64, ge=0, le=4096, description="integer from 0 to 4096 (shared-memory rings; 0: clients use ZeroMQ)"
    )
    ring_bytes_max: int = Field(
        default=1024 * MIB, ge=MIB, le=BYTES_LIMIT, description="integer from 1048576 to 1099511627776 (bytes)"
    )
    ring_poll_max_us: int = Field(
        default=200, ge=0, le=1_000_000, description="integer from 0 to 1000000 (microseconds; 0: never spin)"
    )

    @field_validator("cpus")
    @classmethod
    def _cpus_exist(cls, cpus: str) -> str:
        missing = set(parse_cpus(cpus)) - set(online_cpus())
        if missing:
            raise ValueError(f"this machine has no CPU {min(missing)}")
        forbidden = forbidden_cpus(parse_cpus(cpus))
        if forbidden:
            raise ValueError(
                f"this process may not use CPU {min(forbidden)}: outside its cpuset (systemd: AllowedCPUs=)"
            )
        return cpus

    @model_validator(mode="after")
    def _min_at_most_max(self) -> Self:
        check_threads(self.max_threads, self.min_threads)
        return self


class SessionsConfig(_Section):
    """[sessions]: what one client may have at once."""

    depth_max: int = Field(default=256, ge=1, le=65536, description="integer from 1 to 65536 (requests)")
    bytes_max: int = Field(
        default=32 * MIB, ge=64 * KIB, le=BYTES_LIMIT, description="integer from 65536 to 1099511627776 (bytes)"
    )
    request_bytes_max: int = Field(
        default=4 * MIB,
        ge=64 * KIB,
        le=256 * MIB,
        description="integer from 65536 to 268435456, at most bytes_max (bytes)",
    )
    batch_max: int = Field(default=256, ge=1, le=256, description="integer from 1 to 256 (requests)")
    active_max: int = Field(default=0, ge=0, le=THREADS_MAX, description="integer from 0 (no limit) to 4096 (requests)")
    active_bytes_max: int = Field(
        default=MIB, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes)"
    )
    handles_max: int = Field(default=4096, ge=1, le=65535, description="integer from 1 to 65535 (open files)")
    sessions_max: int = Field(default=1024, ge=1, le=65536, description="integer from 1 to 65536 (sessions)")
    heartbeat_s: float = Field(default=2.0, ge=0.01, le=3600, description="from 0.01 to 3600 (seconds)")
    session_timeout_s: float = Field(
        default=30.0, gt=0, le=86400, description="at least twice heartbeat_s, at most 86400 (seconds)"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.request_bytes_max > self.bytes_max:
            raise ValueError(f"request_bytes_max ({self.request_bytes_max}) is above bytes_max ({self.bytes_max})")
        if self.session_timeout_s < 2 * self.heartbeat_s:
            raise ValueError(f"session_timeout_s ({self.session_timeout_s}) is below twice heartbeat_s")
        return self


class TcpConfig(_Section):
    """[tcp]: clients of other hosts."""

    listen: str = Field(
        default="",
        pattern=r"^$|^(\[[0-9A-Fa-f:.%A-Za-z]+\]|[^\s:\[\]]+):[0-9]{1,5}$",
        description='"" for none, or "HOST:PORT" such as "10.0.0.1:5570", "[::1]:5570" or "*:5570"',
    )
    secret_key: str = Field(default="", description="absolute path of a file NAME.key_secret of aiodctl keygen")
    insecure_tcp: bool = Field(default=False, description="true or false: serve without keys and in the clear")

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if self.listen and int(self.listen.rpartition(":")[2]) > 65535:  # noqa: PLR2004
            raise ValueError(f"listen: {self.listen}: a port is at most 65535")
        if self.listen and not self.secret_key and not self.insecure_tcp:
            raise ValueError(
                "listen without secret_key: anybody who reaches it could use what is served; make a key with "
                "aiodctl keygen, or say insecure_tcp = true"
            )
        if self.secret_key and self.insecure_tcp:
            raise ValueError("secret_key and insecure_tcp = true exclude each other: leave one out")
        if self.secret_key:
            _ = self.secret
        return self

    @cached_property
    def secret(self) -> str:
        """The daemon's secret key (Z85); "": it has none. Raises ValueError."""
        if not self.secret_key:
            return ""
        if not self.secret_key.startswith("/"):
            raise ValueError(f"secret_key: {self.secret_key} is no absolute path")
        try:
            if Path(self.secret_key).stat().st_mode & stat.S_IRWXO:
                raise ValueError(f"secret_key: everybody may read {self.secret_key}: chmod o-rwx, and make another key")
            return load_pair(self.secret_key)[1].decode()
        except AiodError as error:
            raise ValueError(f"secret_key: {error.strerror}") from error
        except OSError as error:
            raise ValueError(
                f"secret_key: {self.secret_key} cannot be read by uid {os.getuid()}: {error.strerror}"
            ) from error

    @property
    def address(self) -> tuple[str, int]:
        """Host ("*": all of this machine's) and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class KeyConfig(_Section):
    """[keys.NAME]: a client of another host."""

    public_key: str = Field(description=f"a public key of aiodctl keygen: {PUBLIC_KEY_CHARS} characters")
    user: str = Field(default="", description='"" for none, or the user or uid of this host that it stands for')

    @field_validator("public_key")
    @classmethod
    def _is_key(cls, public_key: str) -> str:
        if not is_public_key(public_key):
            raise ValueError("not a public key")
        return public_key

    @field_validator("user")
    @classmethod
    def _user_exists(cls, user: str) -> str:
        if user:
            groups_of_user(user)
        return user

    def owner(self, name: str) -> KeyOwner:
        """What an engine is told."""
        uid, gid, gids = groups_of_user(self.user) if self.user else (-1, -1, frozenset[int]())
        return KeyOwner(self.public_key, name, uid, gid, gids)


class UserConfig(_Section):
    """[users.NAME]: what one user may have in each engine, over all sessions."""

    sessions_max: int = Field(default=0, ge=0, le=65536, description="integer from 0 (no limit) to 65536 (sessions)")
    handles_max: int = Field(
        default=0, ge=0, le=2**31, description="integer from 0 (no limit) to 2147483648 (open files)"
    )
    requests_max: int = Field(
        default=0, ge=0, le=2**31, description="integer from 0 (no limit) to 2147483648 (requests)"
    )
    bytes_max: int = Field(
        default=0, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes)"
    )
    rings_max: int = Field(default=0, ge=0, le=4096, description="integer from 0 (no limit) to 4096 (rings)")
    ring_bytes_max: int = Field(
        default=0, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes)"
    )
    messages_per_second_max: int = Field(
        default=0, ge=0, le=10_000_000, description="integer from 0 (no limit) to 10000000 (messages a second)"
    )

    iops_max: int = Field(
        default=0, ge=0, le=10**9, description="integer from 0 (no limit) to 1000000000 (requests a second)"
    )
    bytes_per_second_max: int = Field(
        default=0, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes a second)"
    )
    burst_s: float = Field(default=0.1, ge=0.001, le=60, description="from 0.001 to 60 (seconds)")

    def settings(self) -> UserLimits:
        """What an engine is told."""
        plain = self.model_dump(exclude={"iops_max", "bytes_per_second_max", "burst_s"})
        return UserLimits(**plain, rate=_rate_of(self))


class Config(_Section):
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
    keys: dict[Name, KeyConfig] = Field(default_factory=dict, description="[keys.NAME] sections")
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
        problems = [
            *self._unknown_engines(),
            *self._overlaps(),
            *self._dangerous_exports(),
            *self._long_socket_paths(),
            *self._wrong_keys(),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _unknown_engines(self) -> Iterator[str]:
        for name, export in self.exports.items():
            if export.engine not in self.engines:
                known = ", ".join(sorted({"main", *self.engines}))
                yield (
                    f"exports.{name}.engine: there is no engine {export.engine!r}; "
                    f"allowed: {known}, or write a section [engine.{export.engine}]"
                )

    def _wrong_keys(self) -> Iterator[str]:
        for name, export in self.exports.items():
            for key in set(export.keys) - set(self.keys):
                yield f"exports.{name}.keys: there is no key {key!r}; write a section [keys.{key}]"
        for (one, a), (other, b) in combinations(sorted(self.keys.items()), 2):
            if a.public_key == b.public_key:
                yield f"keys.{one} and keys.{other} have the same public_key; allowed: a key of its own for each"

    def _overlaps(self) -> Iterator[str]:
        """A file served by two engines would have its flush errors remembered by one of them only."""
        for (one, a), (other, b) in combinations(sorted(self.exports.items()), 2):
            inner, outer = PurePosixPath(os.path.realpath(a.path)), PurePosixPath(os.path.realpath(b.path))
            if a.engine != b.engine and (inner.is_relative_to(outer) or outer.is_relative_to(inner)):
                yield (
                    f"exports.{one}.path ({a.path}) and exports.{other}.path ({b.path}) overlap, with different "
                    "engines; allowed: paths apart from each other, or one engine for both"
                )

    def _dangerous_exports(self) -> Iterator[str]:
        """Places in which a client that may write could take over the daemon, or set up the kernel."""
        runtime_dir = PurePosixPath(os.path.realpath(self.runtime_dir))
        for name, export in self.exports.items():
            path = PurePosixPath(os.path.realpath(export.path))
            if export.read_only:
                continue
            if runtime_dir.is_relative_to(path) or path.is_relative_to(runtime_dir):
                yield (
                    f"exports.{name}.path ({export.path}): the daemon's sockets in runtime_dir ({self.runtime_dir}) "
                    "could be replaced through it; allowed: a path apart from runtime_dir, or read_only = true"
                )
            elif any(path.is_relative_to(kernel) for kernel in _KERNEL_DIRS):
                yield (
                    f"exports.{name}.path ({export.path}): writes there change the kernel's settings; "
                    "allowed: another path, or read_only = true"
                )

    def _long_socket_paths(self) -> Iterator[str]:
        names = [f"engine-{name}-{new_incarnation()}.9999.sock" for name in self.engines]
        names += [f"{RING_DIR}/{name}" for name in self.exports]
        longest = max([FRONT_NAME, *names], key=len)
        length = len(os.fsencode(f"{self.runtime_dir}/{longest}"))
        if length > UNIX_PATH_BYTES_MAX:
            room = UNIX_PATH_BYTES_MAX - len(os.fsencode(longest)) - 1
            yield (
                f"runtime_dir ({self.runtime_dir}) is too long: a socket in it would have a path of {length} bytes, "
                f"and unix sockets allow {UNIX_PATH_BYTES_MAX}; use a directory of at most {room} bytes"
            )

    @property
    def engines(self) -> dict[str, EngineConfig]:
        """The engines by name; "main" is there when an export names it, written down or not."""
        implied = {"main": EngineConfig()} if any(export.engine == "main" for export in self.exports.values()) else {}
        return implied | self.engine

    def tcp_settings(self, port: int) -> TcpSettings | None:
        """How to serve clients of other hosts, on `port`; None: not at all."""
        if not self.tcp.listen:
            return None
        owners = {key.public_key: key.owner(name) for name, key in self.keys.items()}
        return TcpSettings(self.tcp.address[0], port, self.tcp.secret, owners)

    @cached_property
    def control_gids(self) -> frozenset[int]:
        """The groups whose members may give orders."""
        return frozenset(map(gid_of, self.control_groups))

    @property
    def front_endpoint(self) -> str:
        """Where clients and aiodctl ask first."""
        return front_endpoint(self.runtime_dir)

    def engine_settings(self, name: str, incarnation: int) -> EngineSettings:
        """What the engine `name` is told at its start."""
        engine, sessions = self.engines[name], self.sessions
        return EngineSettings(
            name=name,
            runtime_dir=self.runtime_dir,
            incarnation=incarnation,
            log_level=self.log_level,
            exports={
                export_name: export.settings() for export_name, export in self.exports.items() if export.engine == name
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
            rings_max=engine.rings_max,
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
            sessions_max=sessions.sessions_max,
            heartbeat_ms=round(sessions.heartbeat_s * 1000),
            session_timeout_ms=round(sessions.session_timeout_s * 1000),
            users={uid_of(user): limits.settings() for user, limits in self.users.items() if user != _EACH_OTHER},
            other_users=self.users.get(_EACH_OTHER, UserConfig()).settings(),
            unclean=False,
            tcp=self.tcp_settings(engine.tcp_port),
        )


def _rate_of(section: ExportConfig | UserConfig) -> RateLimits:
    return RateLimits(section.iops_max, section.bytes_per_second_max, round(section.burst_s * 1000))


def _ioprio_of(text: str) -> int:
    """As ioprio_set(2) has it: the class in the bits from 13 on, the level below."""
    if not text:
        return 0
    return 3 << 13 if text == "idle" else 2 << 13 | int(text.removeprefix("best-effort:"))


def new_incarnation() -> int:
    """A number that no earlier engine process of this machine had: milliseconds since 1970 (13 digits until 2286)."""
    return time.time_ns() // 1_000_000


def parse_cpus(text: str) -> tuple[int, ...]:
    """CPU numbers of "2-5,7"; () for "". Raises ValueError."""
    numbers: set[int] = set()
    for part in text.split(",") if text.strip() else []:
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{part.strip()!r} is no CPU number or range")
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"{part.strip()!r} is no CPU number or range: write the lower one first")
        if high >= _CPU_LIMIT:
            raise ValueError(f"this machine has no CPU {high}")
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def check_threads(max_threads: Any, min_threads: Any) -> None:
    """Raise ValueError with a sentence unless a pool can have these limits."""
    if type(max_threads) is not int or type(min_threads) is not int:
        raise ValueError("max_threads and min_threads are integers")
    if not 1 <= max_threads <= THREADS_MAX:
        raise ValueError(f"max_threads is {max_threads}; allowed: 1 to {THREADS_MAX} (worker threads)")
    if min_threads < 0:
        raise ValueError(f"min_threads is {min_threads}; allowed: 0 to max_threads (worker threads)")
    if min_threads > max_threads:
        raise ValueError(f"min_threads ({min_threads}) is above max_threads ({max_threads})")


def forbidden_cpus(cpus: Iterable[int]) -> tuple[int, ...]:
    """Those of `cpus` that the kernel does not let this process run on: they are outside its cpuset.

    Asked of the kernel, in a thread that lives for nothing else: affinity is a thread's own.
    """
    with ThreadPoolExecutor(max_workers=1) as asker:
        return tuple(asker.submit(lambda: [cpu for cpu in cpus if not _may_run_on(cpu)]).result())


def _may_run_on(cpu: int) -> bool:
    """Whether the calling thread may; it runs there, and there alone, afterwards."""
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        return False
    return True


def online_cpus() -> tuple[int, ...]:
    """CPU numbers of this machine that can be used; they may have gaps."""
    try:
        return parse_cpus(_CPUS_ONLINE.read_text())
    except OSError:
        return tuple(range(os.cpu_count() or 1))


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
    """The configuration that `document` says; `source` names it in errors. Raises ConfigError."""
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        lines = [line for detail in error.errors(include_url=False) for line in _sentences(source, detail)]
        raise ConfigError("\n".join(lines)) from error


def default_config() -> Config:
    """The embedded default: one engine, one export `scratch`, everything the user's own. Raises ConfigError."""
    named = os.environ.get("AIOD_ENDPOINT", "")
    runtime_dir = default_runtime_dir()
    if named.startswith("ipc://") and named.endswith(f"/{FRONT_NAME}"):
        runtime_dir = named.removeprefix("ipc://").removesuffix(f"/{FRONT_NAME}")
    elif named:
        raise ConfigError(
            f"AIOD_ENDPOINT={named}: without a config file the daemon serves ipc://DIRECTORY/{FRONT_NAME}; "
            "set it so, or unset it"
        )
    from aiod.scratch import scratch_path  # noqa: PLC0415 - looks at file systems; only the embedded default needs it

    document = {"runtime_dir": runtime_dir, "exports": {"scratch": {"path": str(scratch_path())}}}
    return make_config(document, "the embedded default (no --config, no AIOD_CONFIG)")


def _sentences(source: str, detail: Any) -> list[str]:
    """One error for people: file, key, what is wrong, what is allowed. Those of the whole are told together."""
    if not detail["loc"]:
        return [f"{source}: {problem}" for problem in detail["msg"].removeprefix("Value error, ").splitlines()]
    return [_sentence(source, detail)]


def _sentence(source: str, detail: Any) -> str:
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    key = ".".join(location)
    parent, field = _find(location)
    wrong = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"{source}: {key}: unknown key; allowed here: {', '.join(sorted(parent.model_fields))}"
    if detail["type"] in {"model_type", "dict_type"}:
        return f"{source}: {key}: a value where a section is expected; allowed: keys under a line [{key}]"
    if detail["type"] == "missing":
        wrong = "missing"
    elif isinstance(detail["input"], str | int | float | bool):
        wrong = f"{wrong[0].lower()}{wrong[1:]} (it is {detail['input']!r})"
    allowed = field.description if field is not None else ""
    if "[key]" in detail["loc"]:
        allowed = "a name of letters, digits, '.', '_' and '-', at most 64 characters"
    return ": ".join(filter(None, (source, key, wrong))) + (f"; allowed: {allowed}" if allowed else "")


def _find(location: list[str]) -> tuple[type[BaseModel], Any]:
    """The section and the field that a validation error is about; no field for a whole section."""
    tables: dict[str, type[BaseModel]] = {
        "exports": ExportConfig,
        "engine": EngineConfig,
        "users": UserConfig,
        "keys": KeyConfig,
    }
    sections: dict[str, type[BaseModel]] = {"sessions": SessionsConfig, "tcp": TcpConfig}
    section: type[BaseModel] = Config
    rest = location
    if rest and rest[0] in tables and len(rest) > 1:
        section, rest = tables[rest[0]], rest[2:]
    elif rest and rest[0] in sections:
        section, rest = sections[rest[0]], rest[1:]
    return section, section.model_fields.get(rest[0]) if rest else None
