"""Authentication on tcp: CURVE, and a ZAP handler with the keys of the clients (ZeroMQ RFCs 26 and 27).

For every handshake, libzmq's I/O thread asks at "inproc://zeromq.zap.01" of the same context. Without an answer there
is no connection, so an error here locks clients out, but never lets one in.
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
        """`secret_key` is the daemon's (Z85), `owners` has the clients by their public keys (Z85)."""
        self._secret_key = secret_key.encode()
        self.owners = owners
        self._authenticator = AsyncioAuthenticator(context)
        self._authenticator.configure_curve_callback(_DOMAIN, self)

    def start(self) -> None:
        """Begin to answer, on the running loop. Call it before a socket is bound."""
        self._authenticator.start()

    def stop(self) -> None:
        """Stop answering, so that no client connects any more. Call it before the context's end."""
        self._authenticator.stop()

    def protect(self, router: zmq.Socket[bytes]) -> None:
        """Require a known key on `router`, which is not bound yet."""
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, self._secret_key)
        router.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def callback(self, _: str, key: bytes) -> bool:
        """Whether a client that has proved to hold `key` may connect; the authenticator calls this."""
        known = key.decode() in self.owners
        if not known:
            log.warning("refused a tcp connection: its key %s is not in the configuration", key.decode())
        return known
