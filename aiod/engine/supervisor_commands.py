"""The engine's end of the control channel: carries out the supervisor's commands, and answers them."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import TYPE_CHECKING, Any

from aiod.engine_api.settings import EngineSettings
from aiod.util.process_limits import resident_bytes
from aiod_protocol import wire
from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aiod.engine.shutdown import Shutdown
    from aiod.engine.stages import Stages
    from aiod.engine_api.control_channel import Channel

log = logging.getLogger(__name__)


class SupervisorCommands:
    """Main loop thread only."""

    def __init__(self, channel: Channel, stages: Stages, shutdown: Shutdown) -> None:
        self._channel = channel
        self._stages = stages
        self._shutdown = shutdown
        self._started_s = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._verbs: dict[str, Callable[..., Awaitable[Any]]] = {
            "ping": self._ping,
            "stats": self._stats,
            "clients": self._clients,
            "handles": self._handles,
            "requests": self._requests,
            "vhost": self._vhost,
            "trace_begin": self._trace_begin,
            "trace_end": self._trace_end,
            "resize": self._resize,
            "reload": self._reload,
            "kick": self._kick,
            "drain": shutdown.drain,
            "stop": shutdown.stop,
        }

    async def serve(self) -> None:
        """Carry out commands until the engine has stopped; the end of the channel means stop."""
        await self._report_serving()
        async for message in self._channel:
            self._begin(self._answer(message))
            if message.get("verb") == "stop":
                break
        else:
            log.warning("the supervisor is gone: stopping")
            await self._shutdown.stop()
        await self._shutdown.done.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._channel.close()

    def report_serving(self) -> None:
        """Tell the supervisor the engine's endpoint, which has changed."""
        self._begin(self._report_serving())

    async def _report_serving(self) -> None:
        transports = self._stages.transports
        await self._channel.send(
            {
                "event": "serving",
                "endpoint": transports.endpoint,
                "tcp_port": transports.tcp_port,
                "uring_missing": self._stages.uring.missing,
            }
        )

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: dict[str, Any]) -> None:
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
            log.warning("cannot answer the supervisor's %s: %s", verb, error)
        except (OSError, TypeError, ValueError) as error:  # too long, or not packable
            log.exception("cannot send the answer to %s", verb)
            await self._channel.send(answer | {"ok": False, "body": None, "error": f"the answer to {verb}: {error}"})

    # ---- queries

    async def _ping(self) -> dict[str, Any]:
        return {"uptime_s": time.monotonic() - self._started_s}

    async def _stats(self) -> dict[str, Any]:
        stages, core = self._stages, self._stages.core
        stages.ring_opens.collect_all()
        ops, exports = core.snapshot(stages.rate_limits.rates)
        return {
            "pool": core.pool_stats(),
            "ops": ops,
            "exports": exports,
            "throttled_users": stages.sessions.throttled_users(),
            "flush_groups": core.flush_groups(),
            "sessions": len(stages.sessions),
            "inflight": core.inflight,
            "oldest_request_age_s": next((each["age_s"] for each in core.active_requests(1)), 0.0),
            "slow_requests": stages.slow_requests.count,
            "bytes_inflight": core.bytes_inflight,
            "files": core.files,
            "descriptors": core.descriptors,
            "locks": stages.locks.stats(),
            "rings": core.rings,
            "ring_bytes": core.ring_bytes,
            "rss_bytes": resident_bytes(),
            "uptime_s": time.monotonic() - self._started_s,
            "loop": stages.message_router.stats() | stages.transports.stats(),
        }

    async def _clients(self) -> list[dict[str, Any]]:
        self._stages.ring_opens.collect_all()
        return self._stages.sessions.clients(self._stages.locks.of_session)

    async def _handles(self) -> list[dict[str, Any]]:
        self._stages.ring_opens.collect_all()
        return self._stages.sessions.handles(self._stages.locks.of_handle)

    async def _requests(self) -> dict[str, Any]:
        return self._stages.slow_requests.requests()

    async def _vhost(self) -> dict[str, Any] | None:
        return self._stages.vhost.status() if self._stages.vhost is not None else None

    async def _trace_begin(self) -> None:
        self._stages.core.trace_begin()

    async def _trace_end(self) -> dict[str, Any]:
        records, dropped = self._stages.core.trace_end()
        return {"records": records, "dropped": dropped}

    # ---- changes

    async def _resize(self, max_threads: int, min_threads: int) -> dict[str, Any]:
        """Change the pool's limits, which the supervisor has checked; returns the pool's statistics."""
        self._stages.core.resize(max_threads, min_threads)
        self._stages.pool_maintenance.pool_changed()
        return self._stages.core.pool_stats()

    async def _reload(self, settings: dict[str, Any]) -> None:
        self._stages.apply(EngineSettings.from_message(settings))

    async def _kick(self, client: str, why: str) -> int:
        """End the sessions that `aiodctl clients` shows as `client`; returns their number."""
        sessions = self._stages.sessions.named(client)
        for session in sessions:
            if not session.by_socket:
                notice = wire.refusal(errno.ESHUTDOWN, why, Reason.KICKED, final=True)
                self._stages.replies.send(session.peer, notice)
            self._stages.sessions.end(session, why)
        return len(sessions)
