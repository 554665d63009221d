"""Keeps the witnesses of one engine's open files over its death. Main loop thread only.

Closing a file may block for as long as its disk hangs: a thread of its own does that.
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
    from aiod.engine_api.fd_store_messages import Witness

log = logging.getLogger(__name__)

_HAND_OVER_TIMEOUT_S: Final = 10.0
_MESSAGES_PER_TURN: Final = 256
_closer: Final = ThreadPoolExecutor(1, "aiod-closer")


class Keeper:
    """What one engine has open, in the order in which it was opened."""

    def __init__(self, count_max: int) -> None:
        """`count_max`: what is opened beyond so many is not kept, and is opened again by its name."""
        self.count = 0
        """Of witnesses."""
        self._count_max = count_max
        self._told = False
        self._kept: dict[bytes, dict[int, Witness]] = {}  # by token and handle
        self._poisoned: set[tuple[int, int]] = set()  # files of these by device and inode, a flush of which has failed
        self._end: socket.socket | None = None

    async def serve(self, end: socket.socket) -> None:
        """Give the engine at the other end all there is, and take what it has kept, until `let_go`."""
        end.settimeout(_HAND_OVER_TIMEOUT_S)
        ordered = [witness for session in self._kept.values() for witness in session.values()]
        with contextlib.suppress(OSError):  # it has died, which others notice
            await asyncio.to_thread(_hand_over, end, ordered, [*self._poisoned])
        end.settimeout(0)
        self._end = end
        asyncio.get_running_loop().add_reader(end.fileno(), self._drain)

    def let_go(self) -> None:
        """The engine has died: take what it has said still, and no more."""
        end = self._end
        if end is not None:
            asyncio.get_running_loop().remove_reader(end.fileno())
            while self._drain():
                pass
            end.close()
            self._end = None

    def forget(self) -> None:
        """Nobody needs them any more."""
        for token in [*self._kept]:
            self._forget_session(token)

    def _drain(self) -> bool:
        """Take what has come; whether there may be more."""
        assert self._end is not None, "serve() comes first"  # noqa: S101 - a mistake of ours
        for _ in range(_MESSAGES_PER_TURN):
            try:
                received = fd_store_messages.receive(self._end)
            except BlockingIOError:
                return False
            except OSError as error:
                log.warning("an open file of an engine cannot be kept: %s", error.strerror)
                return False
            if received is None:
                asyncio.get_running_loop().remove_reader(self._end.fileno())
                return False
            self._take(*received)
        return True

    def _take(self, message: list[Any], fd: int) -> None:
        match message:
            case ["keep", token, handle, _]:
                self._close(self._kept.setdefault(token, {}).pop(handle, None))
                if fd >= 0 and self.count < self._count_max:
                    self._kept[token][handle] = fd_store_messages.unpack(message, fd)
                    self.count += 1
                elif fd >= 0:
                    _closer.submit(os.close, fd)
                    self._tell_full()
            case ["drop", token, handle] if token in self._kept:
                self._close(self._kept[token].pop(handle, None))
                if not self._kept[token]:
                    del self._kept[token]
            case ["end", token]:
                self._forget_session(token)
            case ["poisoned", dev, ino] if self._has(dev, ino):
                self._poisoned.add((dev, ino))

    def _has(self, dev: int, ino: int) -> bool:
        kept = (witness for session in self._kept.values() for witness in session.values())
        return any((witness.dev, witness.ino) == (dev, ino) for witness in kept)

    def _tell_full(self) -> None:
        if not self._told:
            self._told = True
            log.warning("more than %d open files of an engine: they are kept no more over its death", self._count_max)

    def _forget_session(self, token: bytes) -> None:
        for witness in self._kept.pop(token, {}).values():
            self._close(witness)

    def _close(self, witness: Witness | None) -> None:
        if witness is not None:
            self.count -= 1
            file = witness.dev, witness.ino
            if file in self._poisoned and not self._has(*file):
                self._poisoned.discard(file)
            _closer.submit(os.close, witness.fd)


def _hand_over(end: socket.socket, kept: list[Witness], poisoned: list[tuple[int, int]]) -> None:
    for witness in kept:
        socket.send_fds(end, [fd_store_messages.pack(witness)], [witness.fd])
    for dev, ino in poisoned:
        end.send(fd_store_messages.packed("poisoned", dev, ino))
    end.send(fd_store_messages.packed("all"))
