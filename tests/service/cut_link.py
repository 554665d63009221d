"""A network link to a daemon that can be cut: it forwards tcp, and holds everything back while it is cut.

What was sent meanwhile, and before, arrives when the link is whole again, as after the repair of a real one: neither
end hears of the cut by an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_BYTES = 65536


def insist(work: Callable[[], Any]) -> None:
    """Do it again while it is in doubt: on a busy machine a daemon may be silent for a while that is not frozen."""

    def done() -> bool:
        try:
            work()
        except OSError as error:
            if error.errno not in {errno.EIO, errno.ECANCELED}:
                raise
            return False
        return True

    wait_until(done, "it is done without a doubt")


class CutLink:
    """Forwards the ports of 127.0.0.1 from an address of its own."""

    def __init__(self) -> None:
        number = os.getpid() & 0xFFFF
        self.host = f"127.{128 + (number >> 8) // 2}.{number & 0xFF}.{1 + id(self) // 64 % 250}"
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        self._closed = False

    def forward(self, port: int) -> None:
        """Forward connections to `port`."""
        server = socket.create_server((self.host, port))
        self._sockets.append(server)
        self._start(self._accept, server, port)

    def cut(self) -> None:
        """Hold back what comes from now on, in both directions."""
        self._whole.clear()

    def heal(self) -> None:
        """Deliver it, and forward again."""
        self._whole.set()

    def close(self) -> None:
        """End all connections."""
        self._closed = True
        self._whole.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    @staticmethod
    def _start(work: object, *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self, server: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = server.accept()
                self._whole.wait()
                far = socket.create_connection(("127.0.0.1", port))
                self._sockets += [near, far]
                self._start(self._copy, near, far)
                self._start(self._copy, far, near)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._whole.wait()
                target.sendall(data)
        self._whole.wait()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
