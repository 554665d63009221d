"""The supervisor's witnesses of open files: those of the engine before this one, and its own.

An open is answered when its witness is in the supervisor's socket, where the death of the engine does not touch it.
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
    from aiod.engine_api.fd_store_messages import Witness

log = logging.getLogger(__name__)


class Inherited(NamedTuple):
    """What the engine before this one has left."""

    witnesses: list[Witness]
    """In the order in which they were opened."""
    poisoned: set[tuple[int, int]]
    """Files, by device and inode, of which a flush has failed."""


def receive_all(end: socket.socket) -> Inherited:
    """Take it from the supervisor. Blocks."""
    found = Inherited([], set())
    while (received := fd_store_messages.receive(end)) is not None and received[0][0] != "all":
        message, fd = received
        if message[0] == "poisoned":
            found.poisoned.add((message[1], message[2]))
        elif fd >= 0:
            found.witnesses.append(fd_store_messages.unpack(message, fd))
    return found


class _Message(NamedTuple):
    """One for the supervisor; `fd` (-1: none) goes with it, and is closed then, as one of the export."""

    packed: bytes
    fd: int = -1
    export: str = ""
    then: Callable[[], None] | None = None


class Keeping:
    """Main loop thread only."""

    def __init__(self, core: Core, end: socket.socket, inherited: Inherited, rate_of: Callable[[str], Rate]) -> None:
        """`end` leads to the supervisor, `inherited` is of receive_all(), `rate_of` has the rate of an export."""
        self._core = core
        self._rate_of = rate_of
        self._end = end
        end.settimeout(0)
        core.poison_notice_fd = end.fileno()
        self._inherited: dict[bytes, dict[int, Witness]] = {}  # by token and handle
        self._of_file: dict[tuple[int, int], list[Witness]] = {}  # the same, by device and inode
        self._order: dict[tuple[bytes, int], int] = {}  # in which they were opened, by token and handle
        for number, witness in enumerate(inherited.witnesses):
            self._order[witness.token, witness.handle] = number
            self._inherited.setdefault(witness.token, {})[witness.handle] = witness
            self._of_file.setdefault((witness.dev, witness.ino), []).append(witness)
        self._poisoned = inherited.poisoned
        self._unsent: deque[_Message] = deque()

    @property
    def clients(self) -> dict[bytes, int]:
        """Sessions that had files open with the engine before: token to the client's pid."""
        return {token: next(iter(kept.values())).pid for token, kept in self._inherited.items()}

    def is_whose(self, token: bytes, who: str) -> bool:
        """Whether there is such a session, and it was of `who`."""
        return any(witness.who == who for witness in self._inherited.get(token, {}).values())

    def take(self, token: bytes, handle: int) -> Witness | None:
        """The file that the session had open under that number; its descriptor is the caller's."""
        kept = self._inherited.get(token, {})
        witness = kept.pop(handle, None)
        if witness is None:
            return None
        if not kept:
            del self._inherited[token]
        file = witness.dev, witness.ino
        self._of_file[file].remove(witness)
        if not self._of_file[file]:
            del self._of_file[file]
        return witness

    def earlier_than(self, token: bytes, handle: int, dev: int, ino: int) -> int:
        """A descriptor, the caller's, of the file's first witness still here; -1: the handle was opened before.

        A handle that is not known here was opened after all that are.
        """
        kept = self._of_file.get((dev, ino))
        if not kept:
            return -1
        first = kept[0]
        own = self._order.get((token, handle), len(self._order))
        return os.dup(first.fd) if self._order[first.token, first.handle] < own else -1

    def is_poisoned(self, dev: int, ino: int) -> bool:
        """Whether a flush of that file had failed in an engine before."""
        return (dev, ino) in self._poisoned

    def abandon(self) -> None:
        """What nobody has come back for by now, nobody gets again."""
        left = [(token, handle) for token, kept in self._inherited.items() for handle in kept]
        if left:
            log.info("%d files that nobody has come back for are closed", len(left))
        for token, handle in left:
            self.drop(token, handle)
            self._forget(token, handle)

    def keep(self, witness: Witness, then: Callable[[], None]) -> None:
        """Have it kept, and call `then`; its descriptor is closed."""
        self._forget(witness.token, witness.handle)  # a file of that number whose client never heard that it was open
        self._send(_Message(fd_store_messages.pack(witness), witness.fd, witness.export, then))

    def drop(self, token: bytes, handle: int) -> None:
        """The file has been closed."""
        self._send(_Message(fd_store_messages.packed("drop", token, handle)))

    def end(self, token: bytes) -> None:
        """The session has ended."""
        self._send(_Message(fd_store_messages.packed("end", token)))

    def _forget(self, token: bytes, handle: int) -> None:
        witness = self.take(token, handle)
        if witness is not None:
            self._core.close_fd(0, self._rate_of(witness.export), witness.fd)

    def _send(self, message: _Message) -> None:
        self._unsent.append(message)
        if len(self._unsent) == 1 and not self._flush():
            asyncio.get_running_loop().add_writer(self._end.fileno(), self._writable)

    def _writable(self) -> None:
        if self._flush():
            asyncio.get_running_loop().remove_writer(self._end.fileno())

    def _flush(self) -> bool:
        """Send what there is; False: there is no room."""
        while self._unsent:
            message = self._unsent[0]
            try:
                socket.send_fds(self._end, [message.packed], [message.fd] if message.fd >= 0 else [])
            except BlockingIOError:
                return False
            except OSError as error:  # the supervisor is gone, and this engine will be
                log.debug("a witness is not kept: %s", error.strerror)
            self._unsent.popleft()
            if message.fd >= 0:
                self._core.close_fd(0, self._rate_of(message.export), message.fd)
            if message.then is not None:
                message.then()
        return True
