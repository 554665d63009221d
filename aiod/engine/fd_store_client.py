"""The engine's end of the descriptor store: inherited descriptors, and those that it stores for the next engine.

An open is answered when its descriptor is in the supervisor's socket, where it survives the death of the engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from aiod.engine_api import fd_store_messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod._core import Core, Rate
    from aiod.engine_api.fd_store_messages import StoredDescriptor

log = logging.getLogger(__name__)


class Inherited(NamedTuple):
    """State of the previous engine, from the descriptor store."""

    descriptors: list[StoredDescriptor]
    """In the order of opening."""
    poisoned: set[tuple[int, int]]
    """Device and inode of the files whose flush has failed."""


def receive_all(end: socket.socket) -> Inherited:
    """Receive the inherited state from the supervisor. Blocks."""
    found = Inherited([], set())
    while (received := fd_store_messages.receive(end)) is not None and received[0][0] != "all":
        message, fd = received
        if message[0] == "poisoned":
            found.poisoned.add((message[1], message[2]))
        elif fd >= 0:
            found.descriptors.append(fd_store_messages.unpack(message, fd))
    return found


class _Message(NamedTuple):
    """A message to the supervisor; `fd` (-1: none) goes with it, and is closed afterwards as one of `export`."""

    packed: bytes
    fd: int = -1
    export: str = ""
    then: Callable[[], None] | None = None


class FdStoreClient:
    """Stores descriptors with the supervisor, and hands out the inherited ones. Main loop thread only."""

    def __init__(self, core: Core, end: socket.socket, inherited: Inherited, rate_of: Callable[[str], Rate]) -> None:
        """`end` is the socket to the supervisor, `inherited` the result of receive_all().

        `rate_of(export)` is the rate of an export.
        """
        self._rate_of = rate_of
        self._core = core
        self._end = end
        end.settimeout(0)
        core.poison_notice_fd = end.fileno()
        self._inherited: dict[bytes, dict[int, StoredDescriptor]] = {}  # by token and handle
        self._by_file: dict[tuple[int, int], list[StoredDescriptor]] = {}  # the same, by device and inode
        self._open_order: dict[tuple[bytes, int], int] = {}  # by token and handle
        for number, stored in enumerate(inherited.descriptors):
            self._open_order[stored.token, stored.handle] = number
            self._inherited.setdefault(stored.token, {})[stored.handle] = stored
            self._by_file.setdefault((stored.dev, stored.ino), []).append(stored)
        self._poisoned = inherited.poisoned
        self._unsent: deque[_Message] = deque()
        self._unclaimed_timer: asyncio.TimerHandle | None = None

    def start(self, claim_timeout_s: float) -> None:
        """Close what no session has reopened after `claim_timeout_s`."""
        self._unclaimed_timer = asyncio.get_running_loop().call_later(claim_timeout_s, self._close_unclaimed)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._unclaimed_timer is not None:
            self._unclaimed_timer.cancel()

    @property
    def clients(self) -> dict[bytes, int]:
        """Sessions that had files open with the previous engine: token to pid of the client."""
        return {token: next(iter(files.values())).pid for token, files in self._inherited.items()}

    def has_session(self, token: bytes, principal: str) -> bool:
        """Whether the session `token` of `principal` had files open with the previous engine."""
        return any(stored.principal == principal for stored in self._inherited.get(token, {}).values())

    def handles_of(self, token: bytes) -> list[int]:
        """The handles of the session whose inherited descriptors nobody has taken."""
        return [*self._inherited.get(token, {})]

    def take(self, token: bytes, handle: int) -> StoredDescriptor | None:
        """Take out the inherited descriptor of the session's `handle`; the caller owns it."""
        files = self._inherited.get(token, {})
        stored = files.pop(handle, None)
        if stored is None:
            return None
        if not files:
            del self._inherited[token]
        file = stored.dev, stored.ino
        self._by_file[file].remove(stored)
        if not self._by_file[file]:
            del self._by_file[file]
        return stored

    def earlier_descriptor(self, token: bytes, handle: int, dev: int, ino: int) -> int:
        """A duplicate of the file's first inherited descriptor; -1 if the handle was opened before it.

        The caller owns the duplicate. A handle that was not inherited counts as opened after all inherited ones.
        """
        same_file = self._by_file.get((dev, ino))
        if not same_file:
            return -1
        first = same_file[0]
        own = self._open_order.get((token, handle), len(self._open_order))
        return os.dup(first.fd) if self._open_order[first.token, first.handle] < own else -1

    def is_poisoned(self, dev: int, ino: int) -> bool:
        """Whether a flush of that file failed in a previous engine."""
        return (dev, ino) in self._poisoned

    def _close_unclaimed(self) -> None:
        unclaimed = [(token, handle) for token, files in self._inherited.items() for handle in files]
        if unclaimed:
            log.info("closing %d unclaimed inherited files", len(unclaimed))
        for token, handle in unclaimed:
            self.drop(token, handle)
            self._close_inherited(token, handle)

    def store(self, stored: StoredDescriptor, then: Callable[[], None] | None = None) -> None:
        """Store the descriptor with the supervisor and close it here; call `then`, if given, when it is sent."""
        # The client may never have heard of an inherited file with this number: the open was not answered.
        self._close_inherited(stored.token, stored.handle)
        self._send(_Message(fd_store_messages.pack(stored), stored.fd, stored.export, then))

    def poisoned(self, dev: int, ino: int) -> None:
        """Note that a flush of a stored file had failed before it was stored; workers report later failures."""
        self._send(_Message(fd_store_messages.packed("poisoned", dev, ino)))

    def drop(self, token: bytes, handle: int) -> None:
        """Have the supervisor close the stored descriptor of a file that was closed."""
        self._send(_Message(fd_store_messages.packed("drop", token, handle)))

    def end_session(self, token: bytes) -> None:
        """Have the supervisor close all stored descriptors of a session that has ended."""
        self._send(_Message(fd_store_messages.packed("end", token)))

    def _close_inherited(self, token: bytes, handle: int) -> None:
        stored = self.take(token, handle)
        if stored is not None:
            self._core.close_fd(0, self._rate_of(stored.export), stored.fd)

    def _send(self, message: _Message) -> None:
        self._unsent.append(message)
        if len(self._unsent) == 1 and not self._flush():
            asyncio.get_running_loop().add_writer(self._end.fileno(), self._writable)

    def _writable(self) -> None:
        if self._flush():
            asyncio.get_running_loop().remove_writer(self._end.fileno())

    def _flush(self) -> bool:
        """Send the queued messages; False: the socket is full."""
        while self._unsent:
            message = self._unsent[0]
            try:
                socket.send_fds(self._end, [message.packed], [message.fd] if message.fd >= 0 else [])
            except BlockingIOError:
                return False
            except OSError as error:  # the supervisor is gone, so this engine is about to stop
                log.debug("cannot store a descriptor: %s", error.strerror)
            self._unsent.popleft()
            if message.fd >= 0:
                self._core.close_fd(0, self._rate_of(message.export), message.fd)
            if message.then is not None:
                message.then()
        return True
