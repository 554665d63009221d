"""The peer of a connection: identified by the kernel on this host, by a CURVE key from another host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aiod.net.peer_groups import groups_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiod.engine_api.settings import KeyOwner

Connection = tuple["Transport | None", bytes]
"""Identifies a connection: routing ids are unique within their transport only."""


class Transport(Protocol):
    """The socket that a peer is reached by (net/router.py)."""

    def send(self, peer: Peer, frames: Sequence[Any]) -> bool:
        """Queue a message for `peer`. False: the peer has gone, or its queue is full."""

    def shut_down(self, peer: Peer) -> None:
        """End the connection of `peer`, and drop the messages queued for it."""


class Peer(NamedTuple):
    """The sender of a message. uid, gid and pid are those of the connect() (SO_PEERCRED); -1: unknown."""

    routing_id: bytes
    fd: int
    """Descriptor of its connection, for Transport.shut_down()."""
    address: str
    uid: int
    gid: int
    pid: int
    owner: KeyOwner | None = None
    """Owner of the key that it has proved to hold; uid and gid are the owner's."""
    transport: Transport | None = None
    """None: the peer is reached over its ring's socket."""

    @property
    def connection(self) -> Connection:
        """The connection that its message came by."""
        return self.transport, self.routing_id

    @property
    def is_local(self) -> bool:
        """Whether it is a process of this host."""
        return self.uid >= 0 and self.owner is None

    @property
    def principal(self) -> str:
        """The identity for permissions and quotas: a user, a key without a user, or none (tcp without keys)."""
        if self.uid >= 0:
            return f"uid {self.uid}"
        return f"key {self.owner.name}" if self.owner is not None else "a client without a key"

    @property
    def transport_name(self) -> str:
        """How its messages come, for the statistics."""
        if self.transport is None:
            return "socket"
        return "ipc" if self.is_local else "tcp"

    def groups(self) -> frozenset[int]:
        """The gids of its groups. Any thread."""
        if self.owner is not None:
            return self.owner.gids
        return groups_at(self.fd, self.pid, self.uid, self.gid) if self.is_local else frozenset()

    def __str__(self) -> str:
        """The peer in log lines."""
        if self.owner is not None:
            return f"key {self.owner.name} at {self.address}, {self.principal}"
        return f"pid {self.pid}, uid {self.uid}" if self.is_local else f"{self.principal} at {self.address}"
