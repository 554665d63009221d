"""Who is at the other end of a connection: by the kernel's word on this host, by a CURVE key from another one."""

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
        """Queue a message for `peer`. False: the peer has gone, or has let its queue fill up."""

    def shut_down(self, peer: Peer) -> None:
        """End the connection of `peer`, and with it what is queued for it."""


class Peer(NamedTuple):
    """Who sent a message. On this host by SO_PEERCRED at connection time; -1 where that is unknown."""

    routing_id: bytes
    fd: int
    """Of its connection, for Transport.shut_down()."""
    address: str
    uid: int
    gid: int
    pid: int
    owner: KeyOwner | None = None
    """Whose key it has proved to hold; its uid and gid are this one's."""
    transport: Transport | None = None
    """None: the peer is reached by its ring's socket."""

    @property
    def connection(self) -> Connection:
        """The connection that the peer has sent its message by."""
        return self.transport, self.routing_id

    @property
    def is_local(self) -> bool:
        """Whether it is a process of this host."""
        return self.uid >= 0 and self.owner is None

    @property
    def principal(self) -> str:
        """Whom it counts as: a user, a key without one, or anybody (tcp without keys)."""
        if self.uid >= 0:
            return f"uid {self.uid}"
        return f"key {self.owner.name}" if self.owner is not None else "a client without a key"

    def groups(self) -> frozenset[int]:
        """The gids of its groups. Any thread."""
        if self.owner is not None:
            return self.owner.gids
        return groups_at(self.fd, self.pid, self.uid, self.gid) if self.is_local else frozenset()

    def __str__(self) -> str:
        """For log lines."""
        if self.owner is not None:
            return f"key {self.owner.name} at {self.address}, {self.principal}"
        return f"pid {self.pid}, uid {self.uid}" if self.is_local else f"{self.principal} at {self.address}"
