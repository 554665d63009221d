"""Attaching a ring to a session, and what to do if that fails. Blocks; any thread may call it."""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING, Final, Literal

from aiod_client.endpoint import DefaultEndpoint, beside, check_server
from aiod_client.errors import AiodError, SpoiltSessionError
from aiod_client.ring import native
from aiod_client.session.handshake import software
from aiod_protocol import ring_wire

if TYPE_CHECKING:
    from aiod_client._ring import Ring
    from aiod_client.session.handshake import Welcome

log = logging.getLogger("aiod_client")

Transport = Literal["auto", "zmq", "ring"]

ENTRIES: Final = 256
AREA_BYTES: Final = 8 * 1024 * 1024


_REFUSALS: Final = frozenset(
    {
        errno.EACCES,
        errno.EAGAIN,
        errno.ECONNREFUSED,
        errno.ENOBUFS,
        errno.ENOENT,
        errno.EOPNOTSUPP,
        errno.EPROTONOSUPPORT,
    }
)
"""Errnos after which the session is as before: the engine was not asked, or has refused."""


def attach(welcome: Welcome, transport: Transport, endpoint: str) -> Ring | None:
    """The session's ring; None: it uses none. Raises AiodError if `transport` is "ring" and there is none.

    `endpoint` is the engine's: if it is a DefaultEndpoint, the owner of the ring's socket is checked
    (endpoint.check_server()).

    Raises SpoiltSessionError if the engine may have attached a ring that the client has not: the end of its socket ends
    the session, which must not be used. The caller begins the session again, without a ring.
    """
    try:
        return None if transport == "zmq" else _attach(welcome, endpoint)
    except OSError as error:
        if transport == "ring":
            raise AiodError(error.errno or errno.EIO, f"transport ring: {error.strerror}") from error
        if native.ring is None and welcome.ring is not None:
            native.warn_that_it_is_lacking()
        log.debug("engine %s: no ring (%s): continuing by ZeroMQ", welcome.engine, error.strerror)
        if error.errno not in _REFUSALS:
            raise SpoiltSessionError(error.errno or errno.EIO, str(error.strerror)) from error
        return None


def _attach(welcome: Welcome, endpoint: str) -> Ring:
    offer = welcome.ring
    if offer is None:
        raise OSError(
            errno.EOPNOTSUPP, f"the engine {welcome.engine} offers no ring (rings_max is 0, or it is on another host)"
        )
    if offer.version != ring_wire.VERSION:
        message = f"the engine's rings are of version {offer.version}, this client's of {ring_wire.VERSION}"
        raise OSError(errno.EPROTONOSUPPORT, message)
    if native.ring is None:
        raise OSError(errno.EOPNOTSUPP, native.lacking)
    path = beside(endpoint, offer.path)
    if isinstance(endpoint, DefaultEndpoint):
        check_server(path, socket.SOCK_SEQPACKET)
    entries = min(ENTRIES, 1 << (welcome.depth_max.bit_length() - 1))
    ring: Ring = native.ring.attach(path, offer.ticket, software=software(), entries=entries, area_bytes=AREA_BYTES)
    return ring
