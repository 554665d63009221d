"""The front endpoint: HELLO, LOCATE (which engine serves an export), and CONTROL (aiodctl's verbs). Stateless."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING, Any, Final

from aiod import __version__
from aiod.net.router import Router
from aiod.supervisor.control_verbs import RefusedError
from aiod.util.process_limits import resident_bytes, trim_memory
from aiod_protocol import wire
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Mapping

    import zmq

    from aiod.config import Config
    from aiod.net.curve import Curve
    from aiod.net.peer import Peer
    from aiod.supervisor.control_verbs import ControlVerbs
    from aiod.supervisor.engine import Engine
    from aiod.supervisor.front_tcp import FrontTcp

log = logging.getLogger(__name__)

_VERBS_AT_ONCE_MAX: Final = 256
_FOR_EVERYONE: Final = frozenset({"ping", "version"})
_MEMORY_PERIOD_S: Final = 0.1
_MEMORY_MAX: Final = 256 * 1024 * 1024
_MEMORY_GROWTH_MAX: Final = 64 * 1024 * 1024


class FrontEndpoint:
    """The front endpoint of one daemon. Main loop thread only."""

    def __init__(
        self,
        config: Config,
        engines: Mapping[str, Engine],
        context: zmq.Context[zmq.Socket[bytes]],
        listener: socket.socket,
        tcp: FrontTcp | None,
        verbs: ControlVerbs,
    ) -> None:
        """Serve `listener`, at the front endpoint, and that of `tcp`; the caller closes both."""
        self._config = config
        self._engines = engines
        self._verbs = verbs
        self._tasks: set[asyncio.Task[None]] = set()
        self._memory_timer: asyncio.TimerHandle | None = None
        self._memory_max = _MEMORY_MAX
        self._context = context
        self._routers = [self._make_router("front", config.front_endpoint, listener, None)]
        if tcp is not None:
            self._routers.append(self._make_router("front tcp", tcp.endpoint, tcp.listener, tcp.curve))

    def _make_router(self, name: str, endpoint: str, listener: socket.socket, curve: Curve | None) -> Router:
        return Router(
            self._context,
            endpoint,
            self._receive,
            message_bytes_max=wire.HEADER_BYTES_MAX,
            name=name,
            listener=listener,
            curve=curve,
        )

    def start(self) -> None:
        """Begin to serve."""
        for router in self._routers:
            router.start()
        self._watch_memory()

    def apply(self, config: Config) -> None:
        """Use `config` from now on; the keys of clients have been changed before."""
        self._config = config
        self._verbs.apply(config)
        for router in self._routers:
            router.shut_down_unknown_keys()

    def close(self, linger_ms: int) -> None:
        """Stop serving."""
        if self._memory_timer is not None:
            self._memory_timer.cancel()
        for task in self._tasks:
            task.cancel()
        for router in self._routers:
            router.close(linger_ms)

    def _watch_memory(self) -> None:
        """Drop all connections when libzmq buffers too much: it does so for messages without an end, unseen."""
        if resident_bytes() > self._memory_max:
            trim_memory()
            resident = resident_bytes()
            if resident > self._memory_max:
                log.error(
                    "%d bytes resident, more than %d: dropping all connections and buffered messages",
                    resident,
                    self._memory_max,
                )
                for router in self._routers:
                    router.rebind(router.endpoint)
                # Memory that is still used after it would not be freed by doing it again.
                self._memory_max = max(_MEMORY_MAX, resident + _MEMORY_GROWTH_MAX)
        self._memory_timer = asyncio.get_running_loop().call_later(_MEMORY_PERIOD_S, self._watch_memory)

    # ---- messages

    def _receive(self, peer: Peer, frames: list[zmq.Frame]) -> None:
        try:
            message = wire.unpack(frames[0].buffer)
            self._handle(peer, message, len(frames))
        except wire.WireError as error:
            log.warning("refused a message of %s: %s", peer, error)
            self._send(peer, wire.refusal(errno.EPROTO, str(error), Reason.MALFORMED))

    def _handle(self, peer: Peer, message: list[Any], frame_count: int) -> None:
        match message:
            case _ if frame_count > 1:
                raise wire.WireError("the front endpoint accepts no payload frames")
            case [MessageType.HELLO, dict() as offer, *_]:
                self._hello(peer, offer)
            case [MessageType.LOCATE, int() as cookie, str() as export, *_] if 0 <= cookie < 1 << 64:
                self._locate(peer, cookie, export)
            case [MessageType.CONTROL, int() as cookie, str() as verb, *more] if 0 <= cookie < 1 << 64:
                self._control(peer, cookie, verb, more[0] if more and isinstance(more[0], dict) else {})
            case _:
                raise wire.WireError(f"message of type {message[0]}: not for the front endpoint, or malformed")

    def _send(self, peer: Peer, elements: list[Any]) -> None:
        if peer.transport is None or not peer.transport.send(peer, [wire.pack(*elements)]):
            log.info("%s has gone, or does not read its replies", peer)

    def _reply(self, peer: Peer, cookie: int, body: Any) -> None:
        self._send(peer, wire.reply(cookie, 0, None, body))

    def _deny(self, peer: Peer, cookie: int, number: int, text: str, reason: int) -> None:
        self._send(peer, wire.reply(cookie, -number, text, None, reason))

    def _hello(self, peer: Peer, offer: dict[Any, Any]) -> None:
        version = wire.negotiate(offer.get("versions"))
        if version is None:
            text = f"no common protocol version: this daemon speaks {list(wire.VERSIONS)}; use a matching client"
            self._send(peer, wire.refusal(errno.EPROTONOSUPPORT, text, Reason.NO_VERSION))
            return
        welcome = {"version": version, "features": [], "software": f"aiod {__version__}", "pid": os.getpid()}
        self._send(peer, [MessageType.WELCOME, welcome])

    def _locate(self, peer: Peer, cookie: int, export: str) -> None:
        settings = self._config.exports.get(export)
        if settings is None:
            known = ", ".join(sorted(self._config.exports))
            text = f"there is no export {export[:64]!r}; the exports are: {known} (ENOENT)"
            self._deny(peer, cookie, errno.ENOENT, text, Reason.NO_EXPORT)
            return
        engine = self._engines[settings.engine]
        if engine.endpoint is None:
            self._deny(peer, cookie, errno.EIO, f"{engine.why_unavailable()} (EIO)", Reason.NOT_SERVING)
            return
        # A remote client has reached one of this machine's addresses: it uses that one with the engine's port.
        endpoint = engine.endpoint if peer.is_local else f"tcp://*:{engine.tcp_port}"
        self._reply(peer, cookie, {"engine": engine.name, "endpoint": endpoint})

    def _control(self, peer: Peer, cookie: int, verb: str, arguments: dict[Any, Any]) -> None:
        if len(self._tasks) >= _VERBS_AT_ONCE_MAX:
            text = "the daemon is busy with other commands; try again later (EAGAIN)"
            self._deny(peer, cookie, errno.EAGAIN, text, Reason.LIMIT)
        elif verb not in self._verbs.queries and verb not in self._verbs.privileged:
            known = ", ".join([*self._verbs.queries, *self._verbs.privileged])
            text = f"unknown verb {verb[:64]!r}; the verbs are: {known} (EINVAL)"
            self._deny(peer, cookie, errno.EINVAL, text, Reason.BAD_ENTRY)
        elif not self._is_permitted(peer, verb):
            log.warning("refused %s to %s", verb, peer)
            text = f"{verb}: {self._permitted_users()} may do this (EPERM)"
            self._deny(peer, cookie, errno.EPERM, text, Reason.NOT_ALLOWED)
        elif verb in self._verbs.queries:
            self._begin(peer, cookie, self._verbs.queries[verb]())
        else:
            self._begin(peer, cookie, self._verbs.privileged[verb](arguments))

    def _is_permitted(self, peer: Peer, verb: str) -> bool:
        """Whether `peer` may use `verb`."""
        if verb in _FOR_EVERYONE or (verb in self._verbs.queries and self._config.stats_for == "everyone"):
            return True
        if peer.uid in {0, os.getuid()}:
            return True
        control = self._config.control_gids
        return bool(control) and not control.isdisjoint(peer.groups())

    def _permitted_users(self) -> str:
        own = f"the daemon's own user (uid {os.getuid()})"
        groups = ", ".join(self._config.control_groups)
        return f"only root, {own} and members of {groups}" if groups else f"only root and {own}"

    def _begin(self, peer: Peer, cookie: int, carry_out: Awaitable[Any]) -> None:
        task = asyncio.create_task(self._answer(peer, cookie, carry_out))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, peer: Peer, cookie: int, carry_out: Awaitable[Any]) -> None:
        try:
            body = await carry_out
        except RefusedError as error:
            self._deny(peer, cookie, error.number, error.text, error.reason)
        except Exception as error:
            log.exception("internal error in control command")
            text = f"the daemon could not answer ({error!r}): see its log (EIO)"
            self._deny(peer, cookie, errno.EIO, text, Reason.BY_KERNEL)
        else:
            self._reply(peer, cookie, body)
