"""The front endpoint for clients of other hosts: its listening socket, and the keys of the clients."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from aiod.net.curve import Curve
from aiod.net.tcp_listener import endpoint_of, listen_tcp

if TYPE_CHECKING:
    import socket

    import zmq

    from aiod.config import Config

log = logging.getLogger(__name__)


class FrontTcp:
    """Main loop thread only."""

    def __init__(self, listener: socket.socket, curve: Curve | None) -> None:
        """`curve` None: there are no keys, and anyone may connect."""
        self.listener = listener
        self.curve = curve
        self.endpoint = endpoint_of(listener)

    @classmethod
    def of(cls, config: Config, context: zmq.Context[zmq.Socket[bytes]]) -> Self | None:
        """Listen as `config` says; None: only clients of this host are served. Raises OSError with a message."""
        if not config.tcp.listen:
            return None
        host, port = config.tcp.address
        settings = config.tcp_settings(port)
        assert settings is not None  # noqa: S101 - it listens
        made = cls(
            listen_tcp(host, port),
            Curve(context, settings.secret_key, settings.owners) if settings.secret_key else None,
        )
        if made.curve is not None:
            made.curve.start()
            log.info("serving %s as well, for %d keys", made.endpoint, len(settings.owners))
        else:
            log.critical(
                "INSECURE (insecure_tcp = true): anyone who reaches %s may use every export that names no users, "
                "groups or keys, and anyone on the network path can read and change the data",
                made.endpoint,
            )
        return made

    def apply(self, config: Config) -> None:
        """Accept the keys of `config` from now on."""
        settings = config.tcp_settings(0)
        if self.curve is not None and settings is not None:
            self.curve.owners = settings.owners

    def close(self) -> None:
        """Stop listening."""
        self.listener.close()
        if self.curve is not None:
            self.curve.stop()
