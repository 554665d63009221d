"""The listening socket of the front endpoint, which outlives a restart where systemd keeps it.

Its unit says so by FileDescriptorStoreMax=. Who connects meanwhile waits in the socket's queue, and is not refused.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiod.net.unix_listener import listen, path_of, stop_listening

if TYPE_CHECKING:
    import socket

    from aiod.supervisor.systemd import Notifier

log = logging.getLogger(__name__)

_NAME: Final = "front"


class FrontSocket:
    """The socket, from systemd or new. Main loop thread only."""

    def __init__(self, endpoint: str, notifier: Notifier) -> None:
        """Have it listen at `endpoint`. Raises OSError with a sentence when it cannot."""
        self._endpoint = endpoint
        path = path_of(endpoint)
        kept = notifier.take(_NAME)
        if kept is not None and kept.getsockname() == path and _is_socket(path):
            log.debug("the front socket is the one from before the restart")
            self.listener: socket.socket = kept
        else:
            if kept is not None:
                kept.close()
                notifier.forget(_NAME)
            self.listener = listen(endpoint)
            notifier.keep(_NAME, self.listener)
        # Elsewhere nobody would remove its name after the last stop.
        directories = os.environ.get("RUNTIME_DIRECTORY", "").split(":")
        self._stays = notifier.active and str(Path(path).parent) in directories

    def close(self) -> None:
        """Listen no more; its name stays if systemd may keep the socket."""
        if self._stays:
            self.listener.close()
        else:
            stop_listening(self.listener, self._endpoint)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False
