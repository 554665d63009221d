"""Who may connect by tcp: CURVE, and the ZAP handler that knows the clients' keys (ZeroMQ RFCs 26 and 27).

libzmq's I/O thread asks at "inproc://zeromq.zap.01" of the same context for every handshake. Without an answer there is
no connection: an error here shuts out, and lets nobody in.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import zmq
from zmq.auth.asyncio import AsyncioAuthenticator

if TYPE_CHECKING:
    from aiod.engine_api.settings import KeyOwner

log = logging.getLogger(__name__)

_DOMAIN: Final = "aiod"


class Curve:
    """The keys of one process. Main loop thread only."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], secret_key: str, owners: dict[str, KeyOwner]) -> None:
        """`secret_key` is the daemon's (Z85), `owners` are who may connect, by public key (Z85)."""
        self._secret_key = secret_key.encode()
        self.owners = owners
        self._authenticator = AsyncioAuthenticator(context)
        self._authenticator.configure_curve_callback(_DOMAIN, self)

    def start(self) -> None:
        """Answer, on the running loop; before a socket is bound."""
        self._authenticator.start()

    def stop(self) -> None:
        """Answer no more, so that nobody connects any more. Before the context's end."""
        self._authenticator.stop()

    def protect(self, router: zmq.Socket[bytes]) -> None:
        """Have `router`, not bound yet, let in nobody else."""
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, self._secret_key)
        router.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def callback(self, _: str, key: bytes) -> bool:
        """Whether who has proved to hold `key` may connect: the authenticator's question."""
        known = key.decode() in self.owners
        if not known:
            log.warning("refused a connection by tcp: its key %s is not in the configuration", key.decode())
        return known
