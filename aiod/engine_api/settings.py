"""What one engine process is told at its start. Standard library only: the engine never imports pydantic.

Every number's default lives in `aiod.config`; nothing here has one, so that no second home of defaults can arise.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Self

RING_DIR: Final = "ring"
_SETS: Final = ("uids", "gids", "keys")


class RateLimits(NamedTuple):
    """How much may be done; 0: no limit."""

    per_second: int
    """Requests."""
    bytes_per_second: int
    burst_ms: int
    """What may be saved up of either."""


class ExportSettings(NamedTuple):
    """One export as its engine sees it."""

    path: str
    """Absolute path of a directory, a regular file or a block device."""
    read_only: bool
    direct: bool
    """Every file is opened with O_DIRECT."""
    ioctls: tuple[tuple[int, int], ...]
    """The ioctls that clients may send: number, and bytes of the argument."""
    create: bool
    """Files and directories may be made in it."""
    create_mode: int
    """Permission bits of the files made; -1: what the client asks for, less the umask."""
    create_uid: int
    """Whose they are; -1: the daemon's."""
    create_gid: int
    max_file_bytes: int
    """0: no limit."""
    symlinks: bool
    """Symbolic links are followed, within the export."""
    uids: frozenset[int]
    """Who may use it; with empty `gids` and `keys` as well: everybody."""
    gids: frozenset[int]
    keys: frozenset[str]
    """Names of the CURVE keys that may, too."""
    rate: RateLimits
    ioprio: int
    """As ioprio_set(2) has it; 0: none."""
    as_client: bool
    """Opens, and what is done to names, are the client's in the kernel's eyes."""

    def admits(self, uid: int, gids: frozenset[int], key: str) -> bool:
        """Whether a client of `uid` and these groups, or that holds `key`, may use it. Root is no exception."""
        everybody = not (self.uids or self.gids or self.keys)
        return everybody or uid in self.uids or key in self.keys or not self.gids.isdisjoint(gids)

    def to_message(self) -> dict[str, Any]:
        """For the control channel: what `from_message` takes."""
        return self._asdict() | {name: sorted(getattr(self, name)) for name in _SETS}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """The settings that were sent."""
        ioctls = tuple((number, size) for number, size in message["ioctls"])
        sets = {name: frozenset(message[name]) for name in _SETS}
        return cls(**message | {"ioctls": ioctls, "rate": RateLimits(*message["rate"])} | sets)


class KeyOwner(NamedTuple):
    """Who holds a CURVE key."""

    public_key: str
    """Z85."""
    name: str
    uid: int
    """The user of this host that it stands for; -1: none."""
    gid: int
    gids: frozenset[int]
    """Groups of that user."""


class TcpSettings(NamedTuple):
    """How an engine serves clients of other hosts."""

    host: str
    port: int
    """0: any that is free."""
    secret_key: str
    """The daemon's, Z85; "": no keys, and everybody may connect."""
    owners: dict[str, KeyOwner]
    """Who may connect, by public key."""

    def to_message(self) -> list[Any]:
        """For the control channel: what `from_message` takes."""
        return [
            self.host,
            self.port,
            self.secret_key,
            [[*owner[:4], sorted(owner.gids)] for owner in self.owners.values()],
        ]

    @classmethod
    def from_message(cls, message: list[Any]) -> Self:
        """The settings that were sent."""
        host, port, secret_key, owners = message
        known = [KeyOwner(key, name, uid, gid, frozenset(gids)) for key, name, uid, gid, gids in owners]
        return cls(host, port, secret_key, {owner.public_key: owner for owner in known})

    def __repr__(self) -> str:
        """Without the secret."""
        return f"TcpSettings({self.host}:{self.port}, {len(self.owners)} keys)"


class UserLimits(NamedTuple):
    """What one user may have in an engine, over all sessions; 0: no limit."""

    sessions_max: int
    handles_max: int
    requests_max: int
    """In flight, as promised to the sessions by their credit."""
    bytes_max: int
    rings_max: int
    ring_bytes_max: int
    messages_per_second_max: int
    rate: RateLimits
    """Of its requests."""

    @classmethod
    def from_message(cls, message: list[Any]) -> Self:
        """The limits that were sent."""
        *limits, rate = message
        return cls._make([*limits, RateLimits(*rate)])


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Everything an engine needs to know. Immutable, picklable, safe from any thread."""

    name: str
    runtime_dir: str
    """Absolute path of the directory with the sockets and lock files."""
    incarnation: int
    """Unique per start of an engine process; part of its endpoint's name."""
    log_level: str
    """debug, info, warning or error."""
    exports: dict[str, ExportSettings]
    """The exports that this engine serves, by name."""

    max_threads: int
    min_threads: int
    idle_timeout_ms: int
    cpus: tuple[int, ...]
    """CPUs the main thread is pinned to; empty: as inherited from the supervisor."""
    affinity: str
    """"inherit" (newborn workers only) or "follow" (living workers are moved too)."""
    spawn_retry_ms: int
    reserve_threads: int
    """Workers for sessions with nothing in service."""
    slow_request_ms: int
    """A request in service for longer is slow, and its worker stuck; 0: never."""
    stuck_threads_max: int
    """Stuck workers that are replaced, beyond max_threads."""
    open_timeout_ms: int
    """An open or a name that has not ended by then is answered; 0: never."""
    active_max: int
    """Requests of one session in service; 0: no limit."""
    active_bytes_max: int
    inline_read_max: int
    """Largest read (bytes) tried inline with RWF_NOWAIT."""
    buffer_cache_max: int
    """Most bytes of free buffers kept for reuse."""
    bytes_inflight_max: int
    """Above this many bytes in flight the engine stops reading its socket until completions come."""
    memory_max: int
    """Resident bytes above which the engine ends its sessions and rebinds under a new endpoint name."""

    rings_max: int
    """Shared-memory rings at once; 0: none."""
    ring_bytes_max: int
    """Bytes of their memory."""
    ring_poll_max_us: int
    """The longest that the poller looks at the rings before it sleeps."""

    depth_max: int
    bytes_max: int
    """Credit of one session: bytes of the unanswered reads and writes."""
    request_bytes_max: int
    batch_max: int
    handles_max: int
    """Handles per session."""
    sessions_max: int
    """Sessions per engine."""
    heartbeat_ms: int
    session_timeout_ms: int
    users: dict[int, UserLimits]
    """By uid."""
    other_users: UserLimits
    """Each of them, and each key without a user."""
    unclean: bool
    """A daemon before this one has not stopped in order: its clients may come back, whom nobody knows."""
    tcp: TcpSettings | None
    """None: clients come from this host only."""

    def to_message(self) -> dict[str, Any]:
        """For the control channel: what `from_message` takes."""
        exports = {name: export.to_message() for name, export in self.exports.items()}
        users = [[uid, *limits] for uid, limits in self.users.items()]
        tcp = self.tcp.to_message() if self.tcp is not None else None
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"exports": exports, "users": users, "tcp": tcp}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """The settings that were sent; what msgpack made lists of are tuples again."""
        exports = {name: ExportSettings.from_message(export) for name, export in message["exports"].items()}
        users = {uid: UserLimits.from_message(limits) for uid, *limits in message["users"]}
        other_users = UserLimits.from_message(message["other_users"])
        tcp = TcpSettings.from_message(message["tcp"]) if message["tcp"] is not None else None
        made = {
            "exports": exports,
            "users": users,
            "other_users": other_users,
            "cpus": tuple(message["cpus"]),
            "tcp": tcp,
        }
        return cls(**message | made)

    def limits_of(self, uid: int) -> UserLimits:
        """What the user `uid` may have."""
        return self.users.get(uid, self.other_users)

    @property
    def lock_path(self) -> str:
        """The file whose flock the engine holds while it lives, and passes on to nobody."""
        return f"{self.runtime_dir}/engine-{self.name}.lock"

    @property
    def ring_path(self) -> str:
        """The socket where rings are attached: RUNTIME_DIR/engine-NAME-INCARNATION.ring."""
        return f"{self.runtime_dir}/engine-{self.name}-{self.incarnation}.ring"

    @property
    def ring_dir(self) -> str:
        """The directory with a symbolic link for each export, to the ring socket of the engine that serves it."""
        return f"{self.runtime_dir}/{RING_DIR}"

    def endpoint(self, rebinds: int = 0) -> str:
        """The engine's endpoint after so many rebinds: ipc://RUNTIME_DIR/engine-NAME-INCARNATION[.K].sock."""
        suffix = f".{rebinds}" if rebinds else ""
        return f"ipc://{self.runtime_dir}/engine-{self.name}-{self.incarnation}{suffix}.sock"


def new_incarnation() -> int:
    """A number that no earlier engine process of this machine had: milliseconds since 1970 (13 digits until 2286)."""
    return time.time_ns() // 1_000_000
