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

from aiod import _core, logs
from aiod.channel import Channel
from aiod.engine.admission import Admission
from aiod.engine.completion import Completion
from aiod.engine.dispatch import Dispatch
from aiod.engine.frontend import Frontend
from aiod.engine.handles import Handles
from aiod.engine.names import Names
from aiod.engine.rings import Rings
from aiod.engine.sessions import Sessions
from aiod.engine.spawning import Spawning
from aiod.engine_settings import EngineSettings
from aiod.limits import descriptors_max, raise_descriptors, resident_bytes, trim_memory
from aiod.router import Router
from aiod_client import wire
from aiod_client.wire import MessageType

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from aiod.engine.model import Session
    from aiod.router import Peer

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


class Engine:
    """The stages, wired; and what the supervisor asks of them. Main loop thread only."""

    def __init__(self, settings: EngineSettings, channel: Channel) -> None:
        """Bind the endpoint and make the pool. Raises OSError when either cannot be."""
        self._settings = settings
        self._channel = channel
        self._started_s = time.monotonic()
        self._rebinds = 0
        self._rebound = False  # and the memory is still used up
        self._room_made_s = -math.inf  # when something was last done about it
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._stopped = asyncio.Event()
        self._memory_timer: asyncio.TimerHandle | None = None
        self._verbs: dict[str, Callable[..., Awaitable[Any]]] = {
            "ping": self._ping,
            "stats": self._stats,
            "clients": self._clients,
            "handles": self._describe_handles,
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
        self._router = Router(
            self._context,
            settings.endpoint(),
            self._frontend.receive,
            message_bytes_max=max(settings.request_bytes_max, wire.SHARED_FRAME_MAX) + wire.HEADER_BYTES_MAX,
            name=f"engine {settings.name}",
        )
        self._frontend.attach(self._router)
        self._sessions = Sessions(settings, core, lambda: self._router.paused)
        self._admission = Admission(settings, descriptors_max() // 4)
        self._handles = Handles(core, self._admission.admit_open, self._reply)
        self._rings = Rings(settings, core, self._sessions, self.open, self.close)
        self._names = Names(core, self._admission.admit_name, self._frontend.reply)
        self._spawning = Spawning(settings, core)
        self._completion = Completion(
            core,
            self._frontend.send_to,
            self._handles.finished,
            self._names.finished,
            self._sessions.end,
            self._reaped,
        )
        self._dispatch = Dispatch(
            core,
            settings,
            self._completion.send,
            self._spawning.pool_changed,
            self._router.pause,
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

    def hello(self, peer: Peer, version: int, software: str) -> list[Any]:
        """See Sessions.hello."""
        return self._sessions.hello(peer, version, software)

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

    def _reply(self, session: Session, cookie: int, result: int, sentence: str | None = None, body: Any = None) -> None:
        """Answer an open or a close where it was asked for."""
        if session.by_socket:
            if session.ring is not None:
                session.ring.reply(cookie, result, sentence)
        else:
            self._frontend.reply(session, cookie, result, sentence, body)

    def _reaped(self) -> None:
        """After each reap: the bounds that completions loosen."""
        if self._router.paused and self._core.message_bytes_inflight <= self._settings.bytes_inflight_max // 2:
            self._router.resume()
        if self._core.inflight == 0:
            self._idle.set()

    # ---- life

    async def run(self) -> None:
        """Serve until the supervisor says stop, or is gone."""
        self._completion.start()
        self._spawning.start()
        self._sessions.start()
        self._router.start()
        self._rings.start()
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
        await self._channel.send({"event": "serving", "endpoint": self._router.endpoint})

    async def _answer(self, message: dict[str, Any]) -> None:
        """Carry out one verb of the supervisor."""
        answer: dict[str, Any] = {"id": message.get("id"), "ok": True, "body": None, "error": None}
        verb = self._verbs.get(str(message.get("verb")))
        if verb is None:
            answer |= {"ok": False, "error": f"unknown verb {message.get('verb')!r}"}
        else:
            answer["body"] = await verb(**message.get("arguments", {}))
        try:
            await self._channel.send(answer)
        except ConnectionError as error:
            log.warning("no answer to the supervisor's %s: %s", message.get("verb"), error)

    # ---- the supervisor's verbs

    async def _ping(self) -> dict[str, Any]:
        return {"uptime_s": time.monotonic() - self._started_s}

    async def _stats(self) -> dict[str, Any]:
        return {
            "pool": self._core.pool_stats(),
            "ops": self._core.stats(),
            "sessions": len(self._sessions),
            "inflight": self._core.inflight,
            "bytes_inflight": self._core.bytes_inflight,
            "files": self._core.files,
            "rings": self._core.rings,
            "ring_bytes": self._core.ring_bytes,
            "rss_bytes": resident_bytes(),
            "uptime_s": time.monotonic() - self._started_s,
            "loop": self._frontend.stats() | self._router.stats() | {"rebinds": self._rebinds},
        }

    async def _clients(self) -> list[dict[str, Any]]:
        return self._sessions.clients()

    async def _describe_handles(self) -> list[dict[str, Any]]:
        return self._sessions.handles()

    async def _resize(self, max_threads: int, min_threads: int) -> dict[str, Any]:
        """Change the pool's limits, which the supervisor has checked; its figures then."""
        self._core.resize(max_threads, min_threads)
        self._spawning.pool_changed()
        return self._core.pool_stats()

    async def _reload(self, settings: dict[str, Any]) -> None:
        """Serve by other settings from now on. What is open, in flight or promised to a session stays as it is."""
        self._settings = settings_now = EngineSettings.from_message(settings)
        logs.set_level(settings_now.log_level)
        self._core.resize(settings_now.max_threads, settings_now.min_threads)
        self._share_workers()
        self._spawning.pool_changed()
        self._sessions.apply(settings_now)
        self._admission.apply(settings_now)
        self._dispatch.apply(settings_now)
        self._rings.apply(settings_now)

    async def _kick(self, client: str, why: str) -> int:
        """End the session that is shown as `client`; how many there were of that name."""
        sessions = self._sessions.named(client)
        for session in sessions:
            self._sessions.end(session, why)
            if not session.by_socket:
                self._frontend.send(session.peer, [MessageType.REFUSAL, errno.ESHUTDOWN, why, {}])
        return len(sessions)

    async def _drain(self) -> None:
        """Refuse new work; return when what was in flight is done and answered."""
        self._admission.drain()
        self._core.drain()
        self._sessions.refuse_new("the daemon is stopping")
        await self._wait_idle()

    async def _wait_idle(self) -> None:
        while self._core.inflight:
            self._idle.clear()
            await self._idle.wait()

    async def _stop(self) -> None:
        """End the sessions with a last word, let their files be closed, and stop the pool."""
        self._core.drain()
        self._sessions.refuse_new("the daemon is stopping")
        farewell = [MessageType.REFUSAL, errno.ESHUTDOWN, "the daemon is stopping; connect again later", {}]
        for session in self._sessions.end_all("the daemon is stopping"):
            if not session.by_socket:
                self._frontend.send(session.peer, farewell)
        try:
            await asyncio.wait_for(self._wait_idle(), _STOP_TIMEOUT_MS / 1000)
        except TimeoutError:
            log.warning("stopping with %d requests still at work", self._core.inflight)
        self._close_stages()
        self._stopped.set()

    def _close_stages(self) -> None:
        if self._memory_timer is not None:
            self._memory_timer.cancel()
        self._rings.stop()
        self._sessions.stop()
        self._spawning.stop()
        self._completion.stop()
        if not self._core.stop(_STOP_TIMEOUT_MS):
            log.error("%d workers are still inside a system call", self._core.pool_stats()["active_threads"])
        self._router.close(_LINGER_MS)
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
            self._router.shut_down(greedy.peer)
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
            self._router.rebind(self._settings.endpoint(self._rebinds))
        except (OSError, zmq.ZMQError) as error:
            log.critical("cannot serve any more (%s): exiting to be restarted", error)
            os._exit(EXIT_MEMORY)
        task = asyncio.create_task(self._tell_serving())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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


async def _serve(settings: EngineSettings, control: socket.socket) -> None:
    channel = await Channel.open(control)
    engine = Engine(settings, channel)
    # What was imported lives as long as the process: no collection need look at it again.
    gc.freeze()
    await engine.run()


def main(settings: EngineSettings, control: socket.socket) -> None:
    """The engine process. `control` is its end of the control channel; its end of file means stop.

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
        runner.run(_serve(settings, control))
