"""The sockets that clients send messages to: a ROUTER for this host, and with [tcp] one for other hosts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import zmq

from aiod.net.router import Router
from aiod.net.tcp_listener import endpoint_of, listen_tcp, port_of
from aiod_protocol import wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from aiod.engine_api.settings import EngineSettings
    from aiod.net.curve import Curve
    from aiod.net.peer import Peer

_LINGER_MS = 1000
_IO_THREADS_MAX: Final = 4


class Transports:
    """The routers of one engine, and their ZeroMQ context. Main loop thread only."""

    def __init__(self, settings: EngineSettings, receive: Callable[[Peer, list[zmq.Frame]], None]) -> None:
        """Bind the endpoints; `receive` gets every message. Raises OSError when one cannot be bound."""
        self._settings = settings
        self._receive = receive
        self.rebinds = 0
        """Number of times that the local endpoint got a new name."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads_of(settings))
        self._curve = _curve_of(self._context, settings)
        if self._curve is not None:
            self._curve.start()  # a client that connects before it answers is rejected
        self._routers = [self._make_router("", settings.endpoint(), None, None)]
        self._tcp_listener = listen_tcp(settings.tcp.host, settings.tcp.port) if settings.tcp is not None else None
        if self._tcp_listener is not None:
            endpoint = endpoint_of(self._tcp_listener)
            self._routers.append(self._make_router(" tcp", endpoint, self._tcp_listener, self._curve))

    def _make_router(self, suffix: str, endpoint: str, listener: socket.socket | None, curve: Curve | None) -> Router:
        settings = self._settings
        return Router(
            self._context,
            endpoint,
            self._receive,
            message_bytes_max=max(settings.request_bytes_max, wire.SHARED_FRAME_MAX) + wire.HEADER_BYTES_MAX,
            name=f"engine {settings.name}{suffix}",
            listener=listener,
            curve=curve,
        )

    @property
    def endpoint(self) -> str:
        """Endpoint for clients of this host."""
        return self._routers[0].endpoint

    @property
    def tcp_port(self) -> int | None:
        """Port for clients of other hosts; None: there is none."""
        return port_of(self._tcp_listener) if self._tcp_listener is not None else None

    def start(self) -> None:
        """Begin to receive messages."""
        for router in self._routers:
            router.start()

    def apply(self, settings: EngineSettings) -> None:
        """Accept the keys of `settings` from now on, and end the connections of all others."""
        self._settings = settings
        if self._curve is not None and settings.tcp is not None:
            self._curve.owners = settings.tcp.owners
        for router in self._routers:
            router.shut_down_unknown_keys()

    @property
    def paused(self) -> bool:
        """Whether messages are left unread on purpose."""
        return self._routers[0].paused

    def pause(self) -> None:
        """Read no more messages until `resume`."""
        for router in self._routers:
            router.pause()

    def resume(self) -> None:
        """Read messages again."""
        for router in self._routers:
            router.resume()

    def rebind(self) -> None:
        """Drop all connections and all buffered messages; the local endpoint gets a new name.

        Raises OSError or zmq.ZMQError when an endpoint cannot be bound again.
        """
        self.rebinds += 1
        local, *others = self._routers
        local.rebind(self._settings.endpoint(self.rebinds))
        for router in others:
            router.rebind(router.endpoint)

    def stats(self) -> dict[str, int]:
        """Connection counters, summed over the routers."""
        each = [router.stats() for router in self._routers]
        return {name: sum(stats[name] for stats in each) for name in each[0]} | {"rebinds": self.rebinds}

    def close(self) -> None:
        """Close the sockets; messages already sent have a second to leave."""
        for router in self._routers:
            router.close(_LINGER_MS)
        if self._tcp_listener is not None:
            self._tcp_listener.close()
        if self._curve is not None:
            self._curve.stop()
        self._context.term()


def io_threads_of(settings: EngineSettings) -> int:
    """The number of libzmq's threads that carry bytes.

    A connection stays with one of them, and CURVE takes 0.8 ms of its time for a MiB: so clients of other hosts share
    several, half as many as the engine has CPUs. Clients of this host have the ring.
    """
    if settings.tcp is None:
        return 1
    return max(1, min(_IO_THREADS_MAX, len(os.sched_getaffinity(0)) // 2))


def _curve_of(context: zmq.Context[zmq.Socket[bytes]], settings: EngineSettings) -> Curve | None:
    """The keys of the tcp endpoint; None: there is no such endpoint, or it has no keys."""
    if settings.tcp is None or not settings.tcp.secret_key:
        return None
    from aiod.net.curve import Curve  # noqa: PLC0415 - most engines serve this host only

    return Curve(context, settings.tcp.secret_key, settings.tcp.owners)
