"""aiodctl's verbs, as the supervisor carries them out."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod import __version__
from aiod.config import ConfigError
from aiod.config.engines import check_threads
from aiod.engine_api import trace_records
from aiod.supervisor import stats
from aiod.supervisor.errors import EngineUnavailableError
from aiod.supervisor.kernel_check import ways_off
from aiod.supervisor.mounts import file_system_of
from aiod.supervisor.threads import threads_of
from aiod.util.process_limits import resident_bytes
from aiod_protocol import wire
from aiod_protocol.reasons import Reason, reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiod.config import Config, ExportConfig
    from aiod.engine_api.settings import VhostSettings
    from aiod.supervisor.added_disks import AddedDisks
    from aiod.supervisor.engine import Engine
    from aiod.supervisor.snapshots import Snapshots

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S: Final = 2.0
_REQUESTS_MAX: Final = 1000
_TRACE_MAX_S: Final = 60.0
_REMOVE_WAIT_MAX_S: Final = 3600.0


class RefusedError(Exception):
    """A command that is not carried out; errno, message and reason are for the client."""

    def __init__(self, number: int, text: str, reason: int) -> None:
        super().__init__(text)
        self.number = number
        self.text = text
        self.reason = reason


class ChangeableService(Protocol):
    """The daemon, as verbs change it (service.py)."""

    def drain(self) -> None:
        """Begin to stop the daemon."""

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again; ConfigError, OSError: nothing was changed."""

    async def add_disk(self, name: str, section: dict[str, Any]) -> None:
        """Serve one more disk; ConfigError, OSError: nothing was changed."""

    async def remove_disk(self, name: str, *, force: bool, wait_s: float) -> bool:
        """Remove a disk; False: its engine still completes requests. OSError: the disk stays."""


def _refused(error: OSError) -> RefusedError:
    return RefusedError(error.errno or errno.EIO, error.strerror or str(error), reason_of(error))


class ControlVerbs:
    """Main loop thread only. A verb raises RefusedError when it is not carried out."""

    def __init__(
        self,
        config: Config,
        engines: Mapping[str, Engine],
        snapshots: Snapshots,
        service: ChangeableService,
        added_disks: AddedDisks,
    ) -> None:
        """`service` carries out what changes the daemon."""
        self._snapshots = snapshots
        self._config = config
        self._user_names = config.user_names()
        self._engines = engines
        self._service = service
        self._added_disks = added_disks
        self._started_s = time.monotonic()
        self.queries: dict[str, Callable[[], Awaitable[Any]]] = {
            "ping": self._ping,
            "version": self._version,
            "stats": self._stats,
            "threads": self._threads,
            "exports": self._exports,
            "clients": self._clients,
            "vhost": self._vhost,
            "metrics": self._metrics,
            "sample": self._sample,
            "sample_clients": self._sample_clients,
        }
        self.privileged: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "pool": self._pool,
            "handles": self._open_handles,
            "requests": self._requests,
            "reload": self._reload,
            "kick": self._kick,
            "drain": self._drain,
            "trace": self._trace,
            "vhost_add": self._vhost_add,
            "vhost_remove": self._vhost_remove,
        }
        self._tracing = asyncio.Lock()

    def apply(self, config: Config) -> None:
        """Use `config` from now on."""
        self._config = config
        self._user_names = config.user_names()

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
            return await self._service.reload()
        except ConfigError as error:
            raise RefusedError(errno.EINVAL, f"nothing was changed: {error}", Reason.BAD_ENTRY) from error
        except OSError as error:
            raise _refused(error) from error

    async def _drain(self, _: dict[str, Any]) -> dict[str, Any]:
        """Finish the requests in flight, and stop, as after SIGTERM; the answer is sent before."""
        asyncio.get_running_loop().call_soon(self._service.drain)
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

    async def _trace(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Record the requests of `seconds` in every engine. Privileged, since it names the clients of all users."""
        seconds = arguments.get("seconds", 2.0)
        if not isinstance(seconds, int | float) or not 0 < seconds <= _TRACE_MAX_S:
            text = f"seconds: above 0, at most {_TRACE_MAX_S:g} (EINVAL)"
            raise RefusedError(errno.EINVAL, text, Reason.BAD_ENTRY)
        if self._tracing.locked():
            raise RefusedError(errno.EBUSY, "another trace is being recorded; try again later (EBUSY)", Reason.LIMIT)
        async with self._tracing:
            await self._ask_all("trace_begin")
            await asyncio.sleep(seconds)
            answers = await self._ask_all("trace_end")
        engines = [
            {
                "name": name,
                "pid": engine.pid,
                "dropped": answers[name]["dropped"],
                "requests": trace_records.unpack(answers[name]["records"]),
            }
            for name, engine in self._engines.items()
            if answers.get(name) is not None
        ]
        return {"version": __version__, "seconds": seconds, "engines": engines}

    async def _vhost_add(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Serve one more disk, `name`; the other arguments are keys of [vhost.NAME]. Answers when its file is open."""
        section = {str(key): value for key, value in arguments.items() if key != "name"}
        name = str(arguments.get("name"))
        try:
            await self._service.add_disk(name, section)
        except ConfigError as error:
            raise RefusedError(errno.EINVAL, str(error), Reason.BAD_ENTRY) from error
        except OSError as error:
            raise _refused(error) from error
        (disk,) = [disk for disk in (await self._vhost())["disks"] if disk["name"] == name]
        return {"disk": disk}

    async def _vhost_remove(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Remove the disk `name`, if no guest has it or `force` is true; answers at the latest after `wait_s`."""
        name, wait_s = str(arguments.get("name")), arguments.get("wait_s", _ANSWER_TIMEOUT_S)
        if not isinstance(wait_s, int | float) or not 0 <= wait_s <= _REMOVE_WAIT_MAX_S:
            text = f"wait_s: from 0 to {_REMOVE_WAIT_MAX_S:g} (EINVAL)"
            raise RefusedError(errno.EINVAL, text, Reason.BAD_ENTRY)
        try:
            ended = await self._service.remove_disk(name, force=arguments.get("force") is True, wait_s=wait_s)
        except OSError as error:
            raise _refused(error) from error
        return {"name": name, "ended": ended}

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
        answers = await self._snapshots.stats()
        shown = [self._show_engine(engine, answers[name]) for name, engine in self._engines.items() if name in answers]
        merged = stats.merge_ops(answer["ops"] for answer in answers.values() if answer is not None)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": time.monotonic() - self._started_s,
            "rss_bytes": resident_bytes(),
            "ways_off": ways_off(),
            "engines": shown,
            "ops": stats.show_ops(merged),
        }

    async def _sample(self) -> dict[str, Any]:
        """As stats, with the histograms themselves: two samples tell what happened between them (aiodctl top)."""
        answers = await self._snapshots.stats()
        engines = [
            self._known(engine, answers[name]) | (answers[name] or {})
            for name, engine in self._engines.items()
            if name in answers
        ]
        return {"version": __version__, "pid": os.getpid(), "at_s": time.monotonic(), "engines": engines}

    async def _sample_clients(self) -> dict[str, Any]:
        answers = await self._ask_all("clients")
        clients = [{"engine": name} | client for name, answer in answers.items() for client in answer or []]
        return {"at_s": time.monotonic(), "clients": clients}

    async def _vhost(self) -> dict[str, Any]:
        """The disks for guests."""
        engines = [(engine, engine.disk) for engine in self._engines.values() if engine.disk is not None]
        answers = await asyncio.gather(*(self._ask(engine, "vhost") for engine, _ in engines))
        return {
            "disks": [
                self._known_of_disk(engine, disk, answer) | (answer or {})
                for (engine, disk), answer in zip(engines, answers, strict=True)
            ]
        }

    def _known_of_disk(self, engine: Engine, disk: VhostSettings, answer: dict[str, Any] | None) -> dict[str, Any]:
        """What the supervisor itself knows of a disk, whose engine may not have answered."""
        known = self._known(engine, answer)
        return {
            "engine": engine.name,
            **{key: known[key] for key in ("pid", "state", "restarts")},
            "name": disk.name,
            "origin": "aiodctl" if disk.name in self._added_disks else "config",
            "file": disk.file,
            "socket": disk.socket,
            "read_only": disk.read_only,
            "open": False,
            "connected": False,
            "vmm_pid": 0,
            "errno": 0,
            "error": "",
            "complaint": f"{_why_silent(engine)}; a guest that has the disk waits" if answer is None else "",
        }

    async def _metrics(self) -> dict[str, Any]:
        """The metrics in Prometheus's text form: those that a scrape gets."""
        try:
            body, content_type = await self.render_metrics("")
        except ImportError as error:
            text = f"metrics need the package {error.name}: pip install 'aiod-io[daemon,metrics]' (EOPNOTSUPP)"
            raise RefusedError(errno.EOPNOTSUPP, text, Reason.BAD_ENTRY) from error
        return {"content_type": content_type, "lines": body.decode().splitlines()}

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their content type, as the header `accept` asks. Raises ImportError."""
        from aiod.supervisor import metrics  # noqa: PLC0415 - of an extra, and few daemons serve metrics

        answers = await self._snapshots.stats()
        return metrics.encode(metrics.families(dict(self._engines), answers, self._user_names), accept)

    def _show_engine(self, engine: Engine, answer: dict[str, Any] | None) -> dict[str, Any]:
        known = self._known(engine, answer)
        if answer is None:
            pool = stats.NO_POOL | {"max_threads": engine.max_threads, "min_threads": engine.min_threads}
            return known | {"pool": pool, "ops": {}, "exports": {}, "throttled_users": []}
        shown = {
            "pool": stats.show_pool(answer["pool"]),
            "ops": stats.show_ops(answer["ops"]),
            "exports": stats.show_exports(answer["exports"]),
            "throttled_users": stats.show_users(answer["throttled_users"], self._user_names),
        }
        return known | answer | shown

    @staticmethod
    def _known(engine: Engine, answer: dict[str, Any] | None) -> dict[str, Any]:
        """What the supervisor itself knows of an engine, which may not have answered."""
        silent = answer is None and engine.state == "serving"
        return {
            "name": engine.name,
            "pid": engine.pid,
            "state": "unresponsive" if silent else engine.state,
            "incarnation": engine.incarnation,
            "restarts": engine.restarts,
            "poisoned_files": engine.poisoned_files,
        }

    async def _threads(self) -> dict[str, Any]:
        engines = [
            {"name": engine.name, "pid": engine.pid, "threads": threads_of(engine.pid) if engine.running else []}
            for engine in self._engines.values()
        ]
        return {"supervisor": {"pid": os.getpid(), "threads": threads_of(os.getpid())}, "engines": engines}

    async def _exports(self) -> dict[str, Any]:
        exports = [self._export(name, export) for name, export in self._config.exports.items()]
        return {"exports": exports}

    def _export(self, name: str, export: ExportConfig) -> dict[str, Any]:
        engine = self._engines[export.engine]
        missing = engine.uring_missing if export.io != "threads" else ""
        return {
            "name": name,
            "path": export.path,
            "fs": file_system_of(export.path),
            "read_only": export.read_only,
            "direct": export.direct,
            "ioctls": [ioctl.model_dump() for ioctl in export.ioctls],
            "io": export.io,
            "io_in_use": "threads" if export.io == "threads" or missing else "uring",
            "io_reason": missing,
            "engine": export.engine,
            "state": engine.state,
        }

    async def _clients(self) -> dict[str, Any]:
        answers = await self._ask_all("clients")
        clients = [
            {"engine": name} | client | {"ops": stats.show_ops(client["ops"])}
            for name, answer in answers.items()
            for client in answer or []
        ]
        return {"clients": clients}


def _why_silent(engine: Engine) -> str:
    return f"engine {engine.name} does not answer" if engine.state == "serving" else engine.why_unavailable()
