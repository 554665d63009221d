"""One engine process: its entry, and the only place that wires the stages together.

A request's way: frontend (message) -> sessions (whose) -> dispatch (core: admission, pool, workers) -> completion
(reap) -> frontend (reply). Opens and closes go by admission and handles instead of dispatch, names by admission and
names.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gc
import logging
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop
import zmq

from aiod import _core
from aiod.engine.active_requests import in_words
from aiod.engine.admission import Admission
from aiod.engine.completion import Completion
from aiod.engine.directory_operations import Names
from aiod.engine.dispatch import Dispatch
from aiod.engine.export_rate_limits import ExportRates
from aiod.engine.fd_store_client import Inherited, Keeping, receive_all
from aiod.engine.grace import GRACE_S, Grace
from aiod.engine.handles import Handles
from aiod.engine.message_router import Frontend
from aiod.engine.pool_maintenance import Spawning
from aiod.engine.rings import Rings
from aiod.engine.sessions import Sessions
from aiod.engine.slow_requests import Watch
from aiod.engine_api.control_channel import Channel
from aiod.engine_api.settings import EngineSettings
from aiod.net.router import Router
from aiod.net.tcp_listener import endpoint_of, listen_tcp, port_of
from aiod.util import logs
from aiod.util.process_limits import descriptors_max, raise_descriptors, resident_bytes, trim_memory
from aiod_client import wire
from aiod_client.wire import MessageType
from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from aiod.engine.file_requests import Reopening
    from aiod.engine.session import Session
    from aiod.net.curve import Curve
    from aiod.net.peer import Peer

log = logging.getLogger(__name__)

EXIT_LOCKED: Final = 3
"""Exit status when another process still holds this engine's lock."""
EXIT_MEMORY: Final = 4
"""Exit status when memory stayed above twice memory_max."""

_MEMORY_PERIOD_S: Final = 0.1
_ROOM_S: Final = 2.0
"""How long after ending a session, or all, the memory may take to be free."""
_MEMORY_FACTOR_MAX: Final = 4
"""Times memory_max that nothing is tried any more."""
_LINGER_MS: Final = 1000
_STOP_TIMEOUT_MS: Final = 1000
_FLUSHED_MAX: Final = wire.HEADER_BYTES_MAX // 8
"""Handles that a last word names."""
_LEFT_BEHIND_MAX: Final = 20
"""Requests that a stop names; the others it counts."""


class Engine:
    """The stages, wired; and what the supervisor asks of them. Main loop thread only."""

    def __init__(self, settings: EngineSettings, channel: Channel, keeper: socket.socket, inherited: Inherited) -> None:
        """Bind the endpoint and make the pool. Raises OSError when either cannot be.

        `keeper` leads to who keeps the witnesses of open files; those of the engine before are `inherited`.
        """
        self._settings = settings
        self._channel = channel
        self._keeper = keeper
        self._inherited = inherited
        self._started_s = time.monotonic()
        self._rebinds = 0
        self._rebound = False  # and the memory is still used up
        self._room_made_s = -math.inf  # when something was last done about it
        self._drained = False  # what was accepted is done
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._stopped = asyncio.Event()
        self._memory_timer: asyncio.TimerHandle | None = None
        self._abandon_timer: asyncio.TimerHandle | None = None  # of what nobody comes back for
        self._verbs: dict[str, Callable[..., Awaitable[Any]]] = {
            "ping": self._ping,
            "stats": self._stats,
            "clients": self._clients,
            "handles": self._describe_handles,
            "requests": self._requests,
            "resize": self._resize,
            "reload": self._reload,
            "kick": self._kick,
            "drain": self._drain,
            "stop": self._stop,
        }
        self._wire_stages()

    def _wire_stages(self) -> None:
        settings = self._settings
        self._core = core = _core.Core(
            settings.name,
            max_threads=settings.max_threads,
            min_threads=settings.min_threads,
            idle_timeout_ms=settings.idle_timeout_ms,
            spawn_retry_ms=settings.spawn_retry_ms,
            inline_read_max=settings.inline_read_max,
            buffer_cache_max=settings.buffer_cache_max,
            rings_max=max(1, settings.rings_max),
            ring_poll_max_us=settings.ring_poll_max_us,
        )
        self._share_workers()
        self._frontend = Frontend(self, settings.depth_max * 2)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._curve = _curve_of(self._context, settings)
        if self._curve is not None:
            self._curve.start()  # who connects before it answers is turned away
        self._routers = [self._make_router("", settings.endpoint(), None, None)]
        self._tcp_listener = _listener_of(settings)
        if self._tcp_listener is not None:
            endpoint = endpoint_of(self._tcp_listener)
            self._routers.append(self._make_router(" tcp", endpoint, self._tcp_listener, self._curve))
        self._rates = ExportRates(core)
        self._rates.apply(settings)
        self._keeping = Keeping(core, self._keeper, self._inherited, self._rates.of)
        self._grace = Grace(core, self._keeping.clients, self._grace_over, unclean=settings.unclean)
        self._sessions = Sessions(settings, core, self._is_deaf, self._session_ended)
        self._admission = Admission(settings, descriptors_max() // 2)
        self._handles = Handles(settings, core, self._admission.admit_open, self._reply, self._keeping, self._rates.of)
        _check_ioprio(settings)
        self._rings = Rings(settings, core, self._sessions, self.open, self.close)
        self._names = Names(settings, core, self._admission.admit_name, self._frontend.reply, self._rates.of)
        describe = {"open": self._handles.describe, "close": self._handles.describe, "name": self._names.describe}
        self._watch = Watch(settings, core, describe, self._give_up)
        self._spawning = Spawning(settings, core)
        self._completion = Completion(
            core,
            self._frontend.send_to,
            self._handles.finished,
            self._names.finished,
            self._sessions.end,
            self._rings.finished,
            self._reaped,
        )
        self._dispatch = Dispatch(
            core,
            settings,
            self._completion.send,
            self._spawning.pool_changed,
            self._pause,
        )

    def _make_router(self, suffix: str, endpoint: str, listener: socket.socket | None, curve: Curve | None) -> Router:
        settings = self._settings
        return Router(
            self._context,
            endpoint,
            self._frontend.receive,
            message_bytes_max=max(settings.request_bytes_max, wire.SHARED_FRAME_MAX) + wire.HEADER_BYTES_MAX,
            name=f"engine {settings.name}{suffix}",
            listener=listener,
            curve=curve,
        )

    def _share_workers(self) -> None:
        settings = self._settings
        self._core.share(
            reserve_threads=settings.reserve_threads,
            active_max=settings.active_max,
            active_bytes_max=settings.active_bytes_max,
        )

    # ---- what the frontend hands to the stages (its Handlers)

    def find_session(self, token: bytes, peer: Peer) -> Session | None:
        """See Sessions.find."""
        return self._sessions.find(token, peer)

    def end_session(self, session: Session, reason: str) -> None:
        """See Sessions.end."""
        self._sessions.end(session, reason)

    def hello(self, peer: Peer, version: int, software: str, resume: bytes) -> list[Any] | None:
        """See Sessions.hello. Who is new waits for the end of the grace period."""
        if not resume:
            if self._grace.active:
                self._grace.hold(lambda: self._greet_late(peer, version, software))
                return None
            return self._sessions.hello(peer, version, software, b"", grace=False)
        self._sessions.end_earlier(resume, peer)
        known = self._keeping.is_whose(resume, peer.who)
        grace = self._grace.active and (known or self._settings.unclean)
        return self._sessions.hello(peer, version, software, resume if known else b"", grace=grace)

    def _greet_late(self, peer: Peer, version: int, software: str) -> None:
        self._frontend.send(peer, self._sessions.hello(peer, version, software, b"", grace=False))

    def reopen(self, session: Session, cookie: int, handle: int, opened: Reopening) -> None:
        """See Handles.reopen."""
        self._handles.reopen(session, cookie, handle, opened)
        self._spawning.pool_changed()

    def repeated(self, session: Session) -> None:
        """What it has sent again is done: it need not be waited for, and may go on when nobody need."""
        if self._grace.active:
            self._grace.done(session.token)
        if not self._grace.active and session.resumed:
            self._let_go_on(session)

    def _let_go_on(self, session: Session) -> None:
        session.resumed = False
        self._frontend.send_to(session, [MessageType.GO])

    def _grace_over(self) -> None:
        for session in self._sessions:
            if session.resumed:
                self._let_go_on(session)

    def _session_ended(self, token: bytes) -> None:
        self._keeping.end(token)
        self._grace.done(token)

    def open(self, session: Session, cookie: int, export: str, path: str, flags: int, mode: int) -> None:
        """See Handles.open."""
        self._handles.open(session, cookie, export, path, flags, mode)
        self._spawning.pool_changed()

    def close(self, session: Session, cookie: int, handle: int) -> None:
        """See Handles.close."""
        self._handles.close(session, cookie, handle)

    def name(self, session: Session, cookie: int, verb: str, export: str, path: str, arguments: dict[str, Any]) -> None:
        """See Names.request."""
        self._names.request(session, cookie, verb, export, path, arguments)
        self._spawning.pool_changed()

    def submit(self, session: Session, received: int, records: bytes, payloads: Sequence[zmq.Frame]) -> None:
        """See Dispatch.submit."""
        self._dispatch.submit(session, received, records, payloads)

    def cancel(self, session: Session, cookies: list[int]) -> int:
        """See Dispatch.cancel."""
        return self._dispatch.cancel(session, cookies)

    def _reply(
        self,
        session: Session,
        cookie: int,
        result: int,
        sentence: str | None = None,
        body: Any = None,
        reason: int = Reason.BY_KERNEL,
    ) -> None:
        """Answer an open or a close where it was asked for."""
        if session.by_socket:
            if session.ring is not None:
                file = body["file"] if result >= 0 and body else None
                session.ring.reply(cookie, result, sentence, reason=reason, file=file)
        else:
            self._frontend.reply(session, cookie, result, sentence, body, reason)

    def _give_up(self, older_than_s: float) -> None:
        """Answer the opens and names that hang since then."""
        self._handles.give_up(older_than_s)
        self._names.give_up(older_than_s)

    def _is_deaf(self) -> bool:
        """Whether messages are left unread on purpose."""
        return self._routers[0].paused

    def _pause(self) -> None:
        for router in self._routers:
            router.pause()

    def _reaped(self) -> None:
        """After each reap: the bounds that completions loosen."""
        if self._is_deaf() and self._core.message_bytes_inflight <= self._settings.bytes_inflight_max // 2:
            for router in self._routers:
                router.resume()
        if not self._idle.is_set() and self._core.inflight == 0:  # which asks every ring
            self._idle.set()

    # ---- life

    async def run(self) -> None:
        """Serve until the supervisor says stop, or is gone."""
        self._completion.start()
        self._spawning.start()
        self._sessions.start()
        self._watch.start()
        for router in self._routers:
            router.start()
        self._rings.start()
        self._grace.start()
        patience_s = GRACE_S + self._settings.session_timeout_ms / 1000
        self._abandon_timer = asyncio.get_running_loop().call_later(patience_s, self._keeping.abandon)
        self._watch_memory()
        await self._tell_serving()
        async for message in self._channel:
            task = asyncio.create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if message.get("verb") == "stop":
                break
        else:
            log.warning("the supervisor is gone: stopping")
            await self._stop()
        await self._stopped.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._channel.close()

    async def _tell_serving(self) -> None:
        port = port_of(self._tcp_listener) if self._tcp_listener is not None else None
        await self._channel.send({"event": "serving", "endpoint": self._routers[0].endpoint, "tcp_port": port})

    async def _answer(self, message: dict[str, Any]) -> None:
        """Carry out one verb of the supervisor."""
        answer: dict[str, Any] = {"id": message.get("id"), "ok": True, "body": None, "error": None}
        verb = self._verbs.get(str(message.get("verb")))
        if verb is None:
            answer |= {"ok": False, "error": f"unknown verb {message.get('verb')!r}"}
        else:
            try:
                answer["body"] = await verb(**message.get("arguments", {}))
            except Exception as error:
                log.exception("control verb %s failed", message.get("verb"))
                answer |= {"ok": False, "error": f"{message.get('verb')} failed: {type(error).__name__}: {error}"}
        await self._send_answer(answer, str(message.get("verb")))

    async def _send_answer(self, answer: dict[str, Any], verb: str) -> None:
        try:
            await self._channel.send(answer)
        except ConnectionError as error:
            log.warning("no answer to the supervisor's %s: %s", verb, error)
        except (OSError, TypeError, ValueError) as error:  # too long, or not to be packed
            log.exception("the answer to %s cannot be sent", verb)
            await self._channel.send(answer | {"ok": False, "body": None, "error": f"the answer to {verb}: {error}"})

    # ---- the supervisor's verbs

    async def _ping(self) -> dict[str, Any]:
        return {"uptime_s": time.monotonic() - self._started_s}

    async def _stats(self) -> dict[str, Any]:
        return {
            "pool": self._core.pool_stats(),
            "ops": self._core.stats(),
            "sessions": len(self._sessions),
            "inflight": self._core.inflight,
            "slow_requests": self._watch.slow_requests,
            "bytes_inflight": self._core.bytes_inflight,
            "files": self._core.files,
            "descriptors": self._core.descriptors,
            "rings": self._core.rings,
            "ring_bytes": self._core.ring_bytes,
            "rss_bytes": resident_bytes(),
            "uptime_s": time.monotonic() - self._started_s,
            "loop": self._frontend.stats() | self._connection_stats() | {"rebinds": self._rebinds},
        }

    def _connection_stats(self) -> dict[str, int]:
        """Of all transports together."""
        each = [router.stats() for router in self._routers]
        return {name: sum(stats[name] for stats in each) for name in each[0]}

    async def _clients(self) -> list[dict[str, Any]]:
        return self._sessions.clients()

    async def _describe_handles(self) -> list[dict[str, Any]]:
        return self._sessions.handles()

    async def _requests(self) -> dict[str, Any]:
        return self._watch.requests()

    async def _resize(self, max_threads: int, min_threads: int) -> dict[str, Any]:
        """Change the pool's limits, which the supervisor has checked; its figures then."""
        self._core.resize(max_threads, min_threads)
        self._spawning.pool_changed()
        return self._core.pool_stats()

    async def _reload(self, settings: dict[str, Any]) -> None:
        """Serve by other settings from now on. What is open, in flight or promised to a session stays as it is.

        Whatever a stage raises, all of them serve by the settings of before again.
        """
        before = self._settings
        wanted = EngineSettings.from_message(settings)
        try:
            self._apply(wanted)
        except Exception:
            self._apply(before)
            raise

    def _apply(self, settings_now: EngineSettings) -> None:
        self._settings = settings_now
        logs.set_level(settings_now.log_level)
        self._core.resize(settings_now.max_threads, settings_now.min_threads)
        self._share_workers()
        self._rates.apply(settings_now)
        if self._curve is not None and settings_now.tcp is not None:
            self._curve.owners = settings_now.tcp.owners
        self._sessions.apply(settings_now)
        for router in self._routers:
            router.shut_down_strangers()
        self._admission.apply(settings_now)
        self._dispatch.apply(settings_now)
        self._rings.apply(settings_now)
        self._handles.apply(settings_now)
        self._names.apply(settings_now)
        self._watch.apply(settings_now)
        self._spawning.pool_changed()
        _check_ioprio(settings_now)

    async def _kick(self, client: str, why: str) -> int:
        """End the session that is shown as `client`; how many there were of that name."""
        sessions = self._sessions.named(client)
        for session in sessions:
            if not session.by_socket:
                self._frontend.send(session.peer, wire.refusal(errno.ESHUTDOWN, why, Reason.KICKED, final=True))
            self._sessions.end(session, why)
        return len(sessions)

    async def _drain(self) -> None:
        """Refuse new work; return when what was in flight is done and answered, and what was written is on disk.

        So nobody who goes on with the next daemon has to doubt what this one has acknowledged.
        """
        self._admission.drain()
        self._core.drain()
        self._sessions.refuse_new("the daemon is stopping")
        await self._wait_idle()
        self._drained = True
        await asyncio.gather(*map(self._flush, self._sessions))

    async def _flush(self, session: Session) -> None:
        session.flushed = await self._handles.flush(session)

    async def _wait_idle(self) -> None:
        while self._core.inflight:
            self._idle.clear()
            await self._idle.wait()

    async def _stop(self) -> None:
        """End the sessions with a last word, let their files be closed, and stop the pool."""
        self._core.drain()
        self._sessions.refuse_new("the daemon is stopping")
        for session in self._sessions:
            self._say_farewell(session)
        self._sessions.end_all("the daemon is stopping")
        try:
            await asyncio.wait_for(self._wait_idle(), _STOP_TIMEOUT_MS / 1000)
        except TimeoutError:
            self._tell_left_behind()
        self._close_stages()
        self._stopped.set()

    def _say_farewell(self, session: Session) -> None:
        """What it may build upon when it goes on with the next daemon."""
        if self._drained:
            self._core.announce_drained(session.core, flushed=len(session.flushed) == len(session.names))
        if not session.by_socket:
            text = "the daemon is stopping; connect again later"
            flushed = session.flushed[:_FLUSHED_MAX]
            notice = wire.refusal(errno.ESHUTDOWN, text, Reason.STOPPING, drained=self._drained, flushed=flushed)
            self._frontend.send(session.peer, notice)

    def _tell_left_behind(self) -> None:
        requests = self._watch.requests()["requests"]
        for request in requests[:_LEFT_BEHIND_MAX]:
            log.error("left behind: %s", in_words(request), extra=logs.about(client=request["client"] or None))
        log.error("stopping with %d requests still at work", len(requests))

    def _close_stages(self) -> None:
        if self._memory_timer is not None:
            self._memory_timer.cancel()
        if self._abandon_timer is not None:
            self._abandon_timer.cancel()
        self._grace.stop()
        self._rings.stop()
        self._sessions.stop()
        self._spawning.stop()
        self._watch.stop()
        self._completion.stop()
        if not self._core.stop(_STOP_TIMEOUT_MS):
            log.error("%d workers are still inside a system call", self._core.pool_stats()["active_threads"])
        for router in self._routers:
            router.close(_LINGER_MS)
        if self._tcp_listener is not None:
            self._tcp_listener.close()
        if self._curve is not None:
            self._curve.stop()
        self._context.term()

    # ---- memory

    def _watch_memory(self) -> None:
        """Messages that libzmq holds and we have not seen are bounded by nothing else."""
        if self._resident_bytes() > self._settings.memory_max:
            trim_memory()
        resident = self._resident_bytes()
        if resident > self._settings.memory_max:
            self._make_room(resident)
        else:
            self._rebound, self._room_made_s = False, -math.inf
        self._memory_timer = asyncio.get_running_loop().call_later(_MEMORY_PERIOD_S, self._watch_memory)

    def _resident_bytes(self) -> int:
        """Without the rings, which have a limit of their own."""
        return resident_bytes() - self._core.ring_bytes

    def _make_room(self, resident: int) -> None:
        """From the least to the most: end the session that has the most; all of them; the process."""
        limit = self._settings.memory_max
        greedy = self._sessions.greediest()
        waited = time.monotonic() > self._room_made_s + _ROOM_S
        if resident > _MEMORY_FACTOR_MAX * limit or (waited and self._rebound):
            log.critical("%d bytes resident, memory_max is %d: exiting to be restarted", resident, limit)
            os._exit(EXIT_MEMORY)
        if greedy is not None and greedy.core.unacknowledged_bytes > limit // 16:
            log.error("%d bytes resident, more than memory_max (%d)", resident, limit)
            self._sessions.end(greedy, "it does not read its replies, and the engine's memory is used up")
            if greedy.peer.transport is not None:
                greedy.peer.transport.shut_down(greedy.peer)
            self._room_made_s = time.monotonic()
        elif waited:
            self._rebind(resident)

    def _rebind(self, resident: int) -> None:
        log.error(
            "%d bytes resident, more than memory_max (%d): ending %d sessions and all that was received for them",
            resident,
            self._settings.memory_max,
            len(self._sessions),
        )
        self._sessions.end_all("the engine's memory is used up")
        self._rebinds += 1
        self._rebound, self._room_made_s = True, time.monotonic()
        try:
            local, *others = self._routers
            local.rebind(self._settings.endpoint(self._rebinds))
            for router in others:
                router.rebind(router.endpoint)
        except (OSError, zmq.ZMQError) as error:
            log.critical("cannot serve any more (%s): exiting to be restarted", error)
            os._exit(EXIT_MEMORY)
        task = asyncio.create_task(self._tell_serving())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_ioprio(settings: EngineSettings) -> None:
    """Say it when the workers cannot have the I/O priority that the configuration wants."""
    wanted = [name for name, export in settings.exports.items() if export.ioprio]
    if wanted and not _core.may_set_ioprio():
        log.warning("ioprio of %s has no effect: a unit needs SystemCallFilter=ioprio_set", ", ".join(wanted))


def _curve_of(context: zmq.Context[zmq.Socket[bytes]], settings: EngineSettings) -> Curve | None:
    """What protects its tcp endpoint; None: nothing does, or there is none."""
    if settings.tcp is None or not settings.tcp.secret_key:
        return None
    from aiod.net.curve import Curve  # noqa: PLC0415 - most engines serve this host alone

    return Curve(context, settings.tcp.secret_key, settings.tcp.owners)


def _listener_of(settings: EngineSettings) -> socket.socket | None:
    return listen_tcp(settings.tcp.host, settings.tcp.port) if settings.tcp is not None else None


def _take_lock(settings: EngineSettings) -> None:
    """The engine's lock, never given back: the kernel does that when the last worker has left its last system call.

    Neither the end of main() nor SIGKILL is the end of a pwrite that is under way.
    """
    fd = os.open(settings.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.critical("another engine %s still holds %s", settings.name, settings.lock_path)
        sys.exit(EXIT_LOCKED)
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())


async def _serve(settings: EngineSettings, control: socket.socket, keeper: socket.socket, inherited: Inherited) -> None:
    channel = await Channel.open(control)
    engine = Engine(settings, channel, keeper, inherited)
    # What was imported lives as long as the process: no collection need look at it again.
    gc.freeze()
    await engine.run()


def main(settings: EngineSettings, control: socket.socket, keeper: socket.socket) -> None:
    """The engine process. `control` is its end of the control channel; its end of file means stop.

    `keeper` is its end of the socket where open files are kept (aiod/engine_api/fd_store_messages.py).

    Signals of the terminal or the control group are the supervisor's business, and ignored here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path("/proc/self/comm").write_text(f"aiod/{settings.name}"[:15])
    logs.configure(settings.log_level, ENGINE=settings.name)
    raise_descriptors()
    _take_lock(settings)
    _core.keep_large_blocks()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, control, keeper, receive_all(keeper)))
