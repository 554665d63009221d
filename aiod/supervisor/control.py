"""The front endpoint: HELLO, LOCATE (which engine serves an export), and aiodctl's verbs. Stateless."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final

from aiod import __version__
from aiod.config import ConfigError
from aiod.config.engines import check_threads
from aiod.net.router import Router
from aiod.supervisor import stats
from aiod.supervisor.errors import EngineUnavailableError
from aiod.supervisor.threads import threads_of
from aiod.util.process_limits import resident_bytes, trim_memory
from aiod_protocol import wire
from aiod_protocol.reasons import Reason, reason_of
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping

    import zmq

    from aiod.config import Config
    from aiod.net.curve import Curve
    from aiod.net.peer import Peer
    from aiod.supervisor.engine import Engine
    from aiod.supervisor.front_tcp import FrontTcp

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S: Final = 2.0
_VERBS_AT_ONCE_MAX: Final = 256
_REQUESTS_MAX: Final = 1000
_FOR_EVERYONE: Final = frozenset({"ping", "version"})
_MEMORY_PERIOD_S: Final = 0.1
_MEMORY_MAX: Final = 256 * 1024 * 1024
_MEMORY_GROWTH_MAX: Final = 64 * 1024 * 1024


class RefusedError(Exception):
    """A command that is not carried out; errno, message and reason are for the client."""

    def __init__(self, number: int, text: str, reason: int) -> None:
        super().__init__(text)
        self.number = number
        self.text = text
        self.reason = reason


class Control:
    """The front endpoint of one daemon. Main loop thread only."""

    def __init__(
        self,
        config: Config,
        engines: Mapping[str, Engine],
        context: zmq.Context[zmq.Socket[bytes]],
        listener: socket.socket,
        tcp: FrontTcp | None,
        reload: Callable[[], Awaitable[dict[str, Any]]],
        stop: Callable[[], None],
    ) -> None:
        """Serve `listener`, at the front endpoint, and that of `tcp`; the caller closes both.

        `reload` reads the configuration again, `stop` begins to stop the daemon.
        """
        self._config = config
        self._engines = engines
        self._reload_config = reload
        self._begin_stop = stop
        self._started_s = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._memory_timer: asyncio.TimerHandle | None = None
        self._memory_max = _MEMORY_MAX
        self._queries: dict[str, Callable[[], Awaitable[Any]]] = {
            "ping": self._ping,
            "version": self._version,
            "stats": self._stats,
            "threads": self._threads,
            "exports": self._exports,
            "clients": self._clients,
        }
        self._privileged: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "pool": self._pool,
            "handles": self._open_handles,
            "requests": self._requests,
            "reload": self._reload,
            "kick": self._kick,
            "drain": self._drain,
        }
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
        elif verb not in self._queries and verb not in self._privileged:
            known = ", ".join([*self._queries, *self._privileged])
            text = f"unknown verb {verb[:64]!r}; the verbs are: {known} (EINVAL)"
            self._deny(peer, cookie, errno.EINVAL, text, Reason.BAD_ENTRY)
        elif not self._is_permitted(peer, verb):
            log.warning("refused %s to %s", verb, peer)
            text = f"{verb}: {self._permitted_users()} may do this (EPERM)"
            self._deny(peer, cookie, errno.EPERM, text, Reason.NOT_ALLOWED)
        elif verb in self._queries:
            self._begin(peer, cookie, self._queries[verb]())
        else:
            self._begin(peer, cookie, self._privileged[verb](arguments))

    def _is_permitted(self, peer: Peer, verb: str) -> bool:
        """Whether `peer` may use `verb`."""
        if verb in _FOR_EVERYONE or (verb in self._queries and self._config.stats_for == "everyone"):
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

    # ---- privileged verbs

    async def _pool(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Change `max_threads` and `min_threads` of the pool of `engine`; a limit that is not given stays."""
        engine = self._find_engine(str(arguments.get("engine")))
        max_threads = arguments.get("max_threads", engine.max_threads)
        min_threads = arguments.get("min_threads", engine.min_threads)
        try:
            check_threads(max_threads, min_threads)
            pool = await engine.resize(max_threads, min_threads, _ANSWER_TIMEOUT_S)
        except ValueError as error:
            raise RefusedError(errno.EINVAL, f"engine {engine.name}: {error} (EINVAL)", Reason.BAD_ENTRY) from error
        except EngineUnavailableError as error:
            raise RefusedError(errno.EAGAIN, f"{error} (EAGAIN)", Reason.NOT_SERVING) from error
        return {"engine": engine.name, "pool": stats.show_pool(pool)}

    def _find_engine(self, name: str) -> Engine:
        engine = self._engines.get(name)
        if engine is None:
            known = ", ".join(sorted(self._engines))
            text = f"there is no engine {name[:64]!r}; the engines are: {known} (ENOENT)"
            raise RefusedError(errno.ENOENT, text, Reason.BAD_ENTRY)
        return engine

    async def _reload(self, _: dict[str, Any]) -> dict[str, Any]:
        """Read the configuration again, and apply its changes."""
        try:
            return await self._reload_config()
        except ConfigError as error:
            raise RefusedError(errno.EINVAL, f"nothing was changed: {error}", Reason.BAD_ENTRY) from error
        except OSError as error:
            raise RefusedError(error.errno or errno.EIO, error.strerror or str(error), reason_of(error)) from error

    async def _drain(self, _: dict[str, Any]) -> dict[str, Any]:
        """Finish the requests in flight, and stop, as after SIGTERM; the answer is sent before."""
        asyncio.get_running_loop().call_soon(self._begin_stop)
        return {"pid": os.getpid(), "drain_timeout_s": self._config.drain_timeout_s}

    async def _kick(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """End the session whose id, as the verb clients shows it, is `client`."""
        client = str(arguments.get("client"))[:64]
        why = "an administrator has ended this session (aiodctl kick)"
        ended = await self._ask_all("kick", client=client, why=why)
        if not any(ended.values()):
            text = f"there is no client {client!r}; aiodctl clients lists the clients (ENOENT)"
            raise RefusedError(errno.ENOENT, text, Reason.BAD_ENTRY)
        return {"client": client, "engines": [name for name, count in ended.items() if count]}

    async def _open_handles(self, _: dict[str, Any]) -> dict[str, Any]:
        """List every open file of every client. Privileged, since file names may be confidential."""
        answers = await self._ask_all("handles")
        handles = [{"engine": name} | handle for name, answer in answers.items() for handle in answer or []]
        return {"handles": handles}

    async def _requests(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """List the active requests of `engine`, or of all, the oldest first. Privileged for the same reason."""
        if "engine" in arguments:
            engine = self._find_engine(str(arguments["engine"]))
            answers = {engine.name: await self._ask(engine, "requests")}
        else:
            answers = await self._ask_all("requests")
        there = {name: answer for name, answer in answers.items() if answer is not None}
        requests = [{"engine": name} | request for name, answer in there.items() for request in answer["requests"]]
        requests.sort(key=lambda request: -request["age_s"])
        engines = [
            {"name": name, "queued": answer["queued"], "stuck_threads": answer["stuck_threads"]}
            for name, answer in there.items()
        ]
        return {"engines": engines, "requests": requests[:_REQUESTS_MAX]}

    # ---- queries

    async def _ping(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "version": __version__, "uptime_s": time.monotonic() - self._started_s}

    async def _version(self) -> dict[str, Any]:
        return {"version": __version__, "protocol_versions": list(wire.VERSIONS), "pid": os.getpid()}

    async def _ask_all(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """The answer of every engine by its name; None for an engine that does not answer."""
        engines = dict(self._engines)  # a reload may change them meanwhile
        answers = await asyncio.gather(*(self._ask(engine, verb, **arguments) for engine in engines.values()))
        return dict(zip(engines, answers, strict=True))

    async def _ask(self, engine: Engine, verb: str, **arguments: Any) -> Any:
        try:
            return await engine.ask(verb, _ANSWER_TIMEOUT_S, **arguments)
        except EngineUnavailableError as error:
            log.warning("%s", error)
            return None

    async def _stats(self) -> dict[str, Any]:
        answers = await self._ask_all("stats")
        shown = [self._show_engine(engine, answers[name]) for name, engine in self._engines.items() if name in answers]
        merged = stats.merge_ops(answer["ops"] for answer in answers.values() if answer is not None)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": time.monotonic() - self._started_s,
            "rss_bytes": resident_bytes(),
            "engines": shown,
            "ops": stats.show_ops(merged),
        }

    def _show_engine(self, engine: Engine, answer: dict[str, Any] | None) -> dict[str, Any]:
        known = {
            "name": engine.name,
            "pid": engine.pid,
            "state": engine.state,
            "incarnation": engine.incarnation,
            "restarts": engine.restarts,
        }
        if answer is None:
            pool = stats.NO_POOL | {"max_threads": engine.max_threads, "min_threads": engine.min_threads}
            unresponsive = {"state": "unresponsive"} if engine.state == "serving" else {}
            return known | unresponsive | {"pool": pool, "ops": {}}
        return known | answer | {"pool": stats.show_pool(answer["pool"]), "ops": stats.show_ops(answer["ops"])}

    async def _threads(self) -> dict[str, Any]:
        engines = [
            {"name": engine.name, "pid": engine.pid, "threads": threads_of(engine.pid) if engine.running else []}
            for engine in self._engines.values()
        ]
        return {"supervisor": {"pid": os.getpid(), "threads": threads_of(os.getpid())}, "engines": engines}

    async def _exports(self) -> dict[str, Any]:
        exports = [
            {
                "name": name,
                "path": export.path,
                "read_only": export.read_only,
                "direct": export.direct,
                "ioctls": [ioctl.model_dump() for ioctl in export.ioctls],
                "engine": export.engine,
                "state": self._engines[export.engine].state,
            }
            for name, export in self._config.exports.items()
        ]
        return {"exports": exports}

    async def _clients(self) -> dict[str, Any]:
        answers = await self._ask_all("clients")
        clients = [
            {"engine": name} | client | {"ops": stats.show_ops(client["ops"])}
            for name, answer in answers.items()
            for client in answer or []
        ]
        return {"clients": clients}
