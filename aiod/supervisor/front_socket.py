"""The listening socket of the front endpoint, which survives a restart in systemd's descriptor store.

The unit enables that by FileDescriptorStoreMax=. Clients that connect during the restart wait in the socket's queue,
and are not refused.
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
        """Listen at `endpoint`. Raises OSError with a message when that fails."""
        self._endpoint = endpoint
        path = path_of(endpoint)
        stored = notifier.take(_NAME)
        if stored is not None and stored.getsockname() == path and _is_socket(path):
            log.debug("using the front socket from before the restart")
            self.listener: socket.socket = stored
        else:
            if stored is not None:
                stored.close()
                notifier.remove(_NAME)
            self.listener = listen(endpoint)
            notifier.store(_NAME, self.listener)
        # In any other directory, its name would remain after the last stop.
        directories = os.environ.get("RUNTIME_DIRECTORY", "").split(":")
        self._stays = notifier.active and str(Path(path).parent) in directories

    def close(self) -> None:
        """Close the socket; its name stays if systemd may have stored the socket."""
        if self._stays:
            self.listener.close()
        else:
            stop_listening(self.listener, self._endpoint)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False
