"""QEMU's monitor: which thread runs which vcpu, and the start of a machine that waits."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_PATIENCE_S: Final = 60.0
_NOT_YET: Final = (errno.ENOENT, errno.ECONNREFUSED)


class Monitor:
    """A connection to QEMU's -qmp socket."""

    def __init__(self, path: Path) -> None:
        """Wait for the socket, and negotiate. OSError if QEMU does not answer."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_PATIENCE_S)
        end_s = time.monotonic() + _PATIENCE_S
        while (error := self._socket.connect_ex(str(path))) in _NOT_YET and time.monotonic() < end_s:
            time.sleep(0.01)
        if error:
            raise OSError(error, os.strerror(error))
        self._lines = self._socket.makefile()
        self._lines.readline()  # the greeting
        self.ask("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, command: str) -> Any:
        """The result of a command. Events that come between are dropped. RuntimeError if QEMU refuses it."""
        self._socket.sendall(json.dumps({"execute": command}).encode())
        while line := self._lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise ConnectionError("QEMU has ended")

    def vcpu_threads(self) -> list[int]:
        """The thread of each vcpu."""
        return [int(cpu["thread-id"]) for cpu in self.ask("query-cpus-fast")]
