"""The settings of one engine process. Standard library only: the engine never imports pydantic.

All defaults are in `aiod.config`; nothing here has one, so that there is one place for them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Self

RING_DIR: Final = "ring"
_SETS: Final = ("uids", "gids", "keys")


class RateLimits(NamedTuple):
    """Limits of a rate; 0: no limit."""

    per_second: int
    """Requests per second."""
    bytes_per_second: int
    burst_ms: int
    """Unused allowance that may accumulate, as time at the full rate."""


class ExportSettings(NamedTuple):
    """Settings of one export."""

    path: str
    """Absolute path of a directory, a regular file or a block device."""
    read_only: bool
    direct: bool
    """Open every file with O_DIRECT."""
    ioctls: tuple[tuple[int, int], ...]
    """The ioctls that clients may send: number, and size of the argument (bytes)."""
    create: bool
    """Whether files and directories may be created in it."""
    create_mode: int
    """Permission bits of new files; -1: those of the request, without the umask's."""
    create_uid: int
    """Owner of new files; -1: the daemon's user."""
    create_gid: int
    max_file_bytes: int
    """0: no limit."""
    symlinks: bool
    """Whether symbolic links are followed, within the export."""
    links: bool
    """Whether clients may make symbolic and hard links."""
    attributes: bool
    """Whether clients may change permission bits and extended attributes."""
    locks: bool
    """Whether clients may lock files."""
    uids: frozenset[int]
    """Users that may use it. If `gids` and `keys` are empty as well, everyone may."""
    gids: frozenset[int]
    keys: frozenset[str]
    """Names of the CURVE keys that may use it."""
    rate: RateLimits
    ioprio: int
    """I/O priority, in the form of ioprio_set(2); 0: none."""
    io: str
    """How reads and writes with O_DIRECT are carried out: auto, threads or uring."""
    faults: tuple[tuple[int, int, int, int, int], ...]
    """What is to go wrong, for tests: (bits 1 << Op, every Nth, delay in ms, errno or 0, bytes written before it)."""
    shared: str
    """Name of the file system, which daemons of several hosts export; "": it is this host's."""
    as_client: bool
    """Whether the kernel checks the client's permissions at opens and directory operations."""

    def admits(self, uid: int, gids: frozenset[int], key: str) -> bool:
        """Whether a client with this uid, these groups and this key may use it. Root is no exception."""
        everyone = not (self.uids or self.gids or self.keys)
        return everyone or uid in self.uids or key in self.keys or not self.gids.isdisjoint(gids)

    def to_message(self) -> dict[str, Any]:
        """For the control channel; see `from_message`."""
        return self._asdict() | {name: sorted(getattr(self, name)) for name in _SETS}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """The settings in a message of `to_message`."""
        ioctls = tuple((number, size) for number, size in message["ioctls"])
        faults = tuple((ops, every, delay, error, after) for ops, every, delay, error, after in message["faults"])
        sets = {name: frozenset(message[name]) for name in _SETS}
        return cls(**message | {"ioctls": ioctls, "faults": faults, "rate": RateLimits(*message["rate"])} | sets)


class KeyOwner(NamedTuple):
    """The owner of a CURVE key."""

    public_key: str
    """Z85."""
    name: str
    uid: int
    """The user of this host that the key stands for; -1: none."""
    gid: int
    gids: frozenset[int]
    """Groups of that user."""


class TcpSettings(NamedTuple):
    """How to serve clients of other hosts."""

    host: str
    port: int
    """0: any free port."""
    secret_key: str
    """The daemon's secret key (Z85); "": there are no keys, and anyone may connect."""
    owners: dict[str, KeyOwner]
    """The clients, by public key."""

    def to_message(self) -> list[Any]:
        """For the control channel; see `from_message`."""
        return [
            self.host,
            self.port,
            self.secret_key,
            [[*owner[:4], sorted(owner.gids)] for owner in self.owners.values()],
        ]

    @classmethod
    def from_message(cls, message: list[Any]) -> Self:
        """The settings in a message of `to_message`."""
        host, port, secret_key, owners = message
        known = [KeyOwner(key, name, uid, gid, frozenset(gids)) for key, name, uid, gid, gids in owners]
        return cls(host, port, secret_key, {owner.public_key: owner for owner in known})

    def __repr__(self) -> str:
        """A text without the secret key."""
        return f"TcpSettings({self.host}:{self.port}, {len(self.owners)} keys)"


OTHER_USERS: Final = -1
"""In statistics of users, instead of a uid: all users that the configuration does not name."""


class VhostSettings(NamedTuple):
    """Settings of a disk for a guest."""

    name: str
    socket: str
    """Absolute path of the socket, on which the supervisor listens."""
    export: str
    path: str
    """Path of the file in the export."""
    read_only: bool
    queues: int
    """Most virtqueues."""
    serial: str
    """What the guest sees; at most 20 ASCII characters."""
    block_bytes: int
    """Size of a logical block."""

    @property
    def file(self) -> str:
        """The file as users name it: EXPORT/PATH."""
        return f"{self.export}/{self.path}" if self.path else self.export


class UserLimits(NamedTuple):
    """Limits of one user over all its sessions in an engine; 0: no limit."""

    sessions_max: int
    handles_max: int
    requests_max: int
    """Requests in flight, as granted to the sessions as credit."""
    bytes_max: int
    rings_max: int
    ring_bytes_max: int
    messages_per_second_max: int
    rate: RateLimits
    """Rate limits of its requests."""

    @classmethod
    def from_message(cls, message: list[Any]) -> Self:
        """The limits in a message."""
        *limits, rate = message
        return cls._make([*limits, RateLimits(*rate)])


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Everything an engine needs to know. Immutable, picklable, safe from any thread."""

    name: str
    runtime_dir: str
    """Absolute path of the directory with the sockets and lock files."""
    incarnation: int
    """Unique for each start of an engine process; part of its endpoint's name."""
    log_level: str
    """debug, info, warning or error."""
    exports: dict[str, ExportSettings]
    """The exports that this engine serves, by name."""

    max_threads: int
    min_threads: int
    idle_timeout_ms: int
    cpus: tuple[int, ...]
    """CPUs that the main thread is pinned to; empty: it inherits the supervisor's."""
    affinity: str
    """"inherit" (affects new workers only) or "follow" (living workers are moved too)."""
    spawn_retry_ms: int
    reserve_threads: int
    """Workers reserved for sessions without an active request."""
    slow_request_ms: int
    """A request that is active for longer is slow, and its worker stuck; 0: never."""
    stuck_threads_max: int
    """Most extra workers, beyond max_threads, that replace stuck ones."""
    open_timeout_ms: int
    """Timeout of an open or directory operation; 0: none."""
    active_max: int
    """Most active requests of one session; 0: no limit."""
    active_bytes_max: int
    inline_read_max: int
    """Largest read (bytes) tried inline with RWF_NOWAIT."""
    buffer_cache_max: int
    """Most bytes of free buffers that are kept for reuse."""
    bytes_inflight_max: int
    """Above this number of bytes in flight, the engine stops reading its sockets until requests complete."""
    memory_max: int
    """Above this number of resident bytes, the engine ends sessions (engine/memory_guard.py)."""

    rings_max: int
    """Most shared-memory rings; 0: none are allowed."""
    ring_bytes_max: int
    """Most bytes of their memory."""
    ring_poll_max_us: int
    """Longest time that the leader polls the rings before it sleeps."""

    depth_max: int
    bytes_max: int
    """Credit of one session: bytes of unanswered reads and writes."""
    request_bytes_max: int
    batch_max: int
    handles_max: int
    """Most handles of one session."""
    sessions_max: int
    """Most sessions of the engine."""
    heartbeat_ms: int
    session_timeout_ms: int
    users: dict[int, UserLimits]
    """Limits of users, by uid."""
    other_users: UserLimits
    """Limits of each other user, and of each key without a user."""
    unclean: bool
    """The previous daemon did not stop in order, so unknown sessions may resume."""
    tcp: TcpSettings | None
    """None: only clients of this host are served."""
    vhost: VhostSettings | None
    """The disk that the engine serves to a guest; None: it serves clients."""

    def to_message(self) -> dict[str, Any]:
        """For the control channel; see `from_message`."""
        exports = {name: export.to_message() for name, export in self.exports.items()}
        users = [[uid, *limits] for uid, limits in self.users.items()]
        tcp = self.tcp.to_message() if self.tcp is not None else None
        vhost = list(self.vhost) if self.vhost is not None else None
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"exports": exports, "users": users, "tcp": tcp, "vhost": vhost}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """The settings in a message of `to_message`; msgpack's lists become tuples again."""
        exports = {name: ExportSettings.from_message(export) for name, export in message["exports"].items()}
        users = {uid: UserLimits.from_message(limits) for uid, *limits in message["users"]}
        other_users = UserLimits.from_message(message["other_users"])
        tcp = TcpSettings.from_message(message["tcp"]) if message["tcp"] is not None else None
        vhost = VhostSettings(*message["vhost"]) if message["vhost"] is not None else None
        made = {
            "exports": exports,
            "users": users,
            "other_users": other_users,
            "cpus": tuple(message["cpus"]),
            "tcp": tcp,
            "vhost": vhost,
        }
        return cls(**message | made)

    def limits_of(self, uid: int) -> UserLimits:
        """Limits of the user `uid`."""
        return self.users.get(uid, self.other_users)

    @property
    def lock_path(self) -> str:
        """The file that the engine holds an flock on as long as it lives; no child inherits it."""
        return f"{self.runtime_dir}/engine-{self.name}.lock"

    @property
    def lock_claims_path(self) -> str:
        """The file with the number of locks that clients had when the engine stopped in order."""
        return f"{self.runtime_dir}/engine-{self.name}.claims"

    @property
    def ring_path(self) -> str:
        """The ring socket: RUNTIME_DIR/engine-NAME-INCARNATION.ring."""
        return f"{self.runtime_dir}/engine-{self.name}-{self.incarnation}.ring"

    @property
    def ring_dir(self) -> str:
        """The directory with a symbolic link for each export, to the ring socket of the engine that serves it."""
        return f"{self.runtime_dir}/{RING_DIR}"

    def endpoint(self, rebinds: int = 0) -> str:
        """The engine's endpoint after `rebinds`: ipc://RUNTIME_DIR/engine-NAME-INCARNATION[.REBINDS].sock."""
        suffix = f".{rebinds}" if rebinds else ""
        return f"ipc://{self.runtime_dir}/engine-{self.name}-{self.incarnation}{suffix}.sock"


def new_incarnation() -> int:
    """A number that no earlier engine process of this machine had: milliseconds since 1970 (13 digits until 2286)."""
    return time.time_ns() // 1_000_000
