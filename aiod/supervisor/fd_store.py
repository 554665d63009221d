"""The descriptor store of one engine: descriptors of its open files, which the next engine inherits.

Main loop thread only, but for closing: that may block for as long as a disk hangs, so a thread of its own does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from aiod.engine_api import fd_store_messages

if TYPE_CHECKING:
    from aiod.engine_api.fd_store_messages import StoredDescriptor

log = logging.getLogger(__name__)

_HAND_OVER_TIMEOUT_S: Final = 10.0
_MESSAGES_PER_TURN: Final = 256
_closer: Final = ThreadPoolExecutor(1, "aiod-closer")


class FdStore:
    """Descriptors of one engine's open files, in the order of opening."""

    def __init__(self, count_max: int) -> None:
        """`count_max`: files beyond this number are not stored; their clients reopen them by name."""
        self.count = 0
        """Number of stored descriptors."""
        self._count_max = count_max
        self._warned_full = False
        self._stored: dict[bytes, dict[int, StoredDescriptor]] = {}  # by token and handle
        self._poisoned: set[tuple[int, int]] = set()  # device and inode of stored files whose flush has failed
        self._end: socket.socket | None = None

    @property
    def poisoned(self) -> int:
        """Number of stored files whose flush has failed."""
        return len(self._poisoned)

    async def serve(self, end: socket.socket) -> None:
        """Hand all descriptors over to the engine at the other end, then store what it sends until `disconnect`."""
        end.settimeout(_HAND_OVER_TIMEOUT_S)
        ordered = [stored for session in self._stored.values() for stored in session.values()]
        with contextlib.suppress(OSError):  # the engine has died, which Engine notices
            await asyncio.to_thread(_hand_over, end, ordered, [*self._poisoned])
        end.settimeout(0)
        self._end = end
        asyncio.get_running_loop().add_reader(end.fileno(), self._drain)

    def disconnect(self) -> None:
        """Read the messages that a dead engine has left in the socket, and close it."""
        end = self._end
        if end is not None:
            asyncio.get_running_loop().remove_reader(end.fileno())
            while self._drain():
                pass
            end.close()
            self._end = None

    def clear(self) -> None:
        """Close all stored descriptors."""
        for token in [*self._stored]:
            self._close_session(token)

    def _drain(self) -> bool:
        """Handle a bounded number of messages; whether there may be more."""
        assert self._end is not None, "serve() comes first"  # noqa: S101 - an internal error
        for _ in range(_MESSAGES_PER_TURN):
            try:
                received = fd_store_messages.receive(self._end)
            except BlockingIOError:
                return False
            except OSError as error:
                log.warning("cannot receive a descriptor from an engine: %s", error.strerror)
                return False
            if received is None:
                asyncio.get_running_loop().remove_reader(self._end.fileno())
                return False
            self._handle(*received)
        return True

    def _handle(self, message: list[Any], fd: int) -> None:
        match message:
            case ["keep", token, handle, _]:
                self._close(self._stored.setdefault(token, {}).pop(handle, None))
                if fd >= 0 and self.count < self._count_max:
                    self._stored[token][handle] = fd_store_messages.unpack(message, fd)
                    self.count += 1
                elif fd >= 0:
                    _closer.submit(os.close, fd)
                    self._warn_full()
            case ["drop", token, handle] if token in self._stored:
                self._close(self._stored[token].pop(handle, None))
                if not self._stored[token]:
                    del self._stored[token]
            case ["end", token]:
                self._close_session(token)
            case ["poisoned", dev, ino] if self._has(dev, ino):
                self._poisoned.add((dev, ino))

    def _has(self, dev: int, ino: int) -> bool:
        each = (stored for session in self._stored.values() for stored in session.values())
        return any((stored.dev, stored.ino) == (dev, ino) for stored in each)

    def _warn_full(self) -> None:
        if not self._warned_full:
            self._warned_full = True
            log.warning(
                "descriptor limit reached: new files will not survive a crash of the engine (%d files are stored)",
                self._count_max,
            )

    def _close_session(self, token: bytes) -> None:
        for stored in self._stored.pop(token, {}).values():
            self._close(stored)

    def _close(self, stored: StoredDescriptor | None) -> None:
        if stored is not None:
            self.count -= 1
            file = stored.dev, stored.ino
            if file in self._poisoned and not self._has(*file):
                self._poisoned.discard(file)
            _closer.submit(os.close, stored.fd)


def _hand_over(end: socket.socket, descriptors: list[StoredDescriptor], poisoned: list[tuple[int, int]]) -> None:
    for stored in descriptors:
        socket.send_fds(end, [fd_store_messages.pack(stored)], [stored.fd])
    for dev, ino in poisoned:
        end.send(fd_store_messages.packed("poisoned", dev, ino))
    end.send(fd_store_messages.packed("all"))
