"""Disks for guests that aiodctl adds while the daemon runs, and the configuration that has them as well."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from aiod.config import make_config
from aiod.config.vhost import ENGINE_PREFIX
from aiod.supervisor.engine import START_TIMEOUT_S
from aiod.supervisor.errors import EngineUnavailableError

if TYPE_CHECKING:
    from aiod.config import Config
    from aiod.supervisor.engine import Engine

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S: Final = 2.0
_POLL_PERIOD_S: Final = 0.02


class AddedDisks:
    """Sections [vhost.NAME] that are in no file, until the disk is removed, a file has them, or the daemon stops."""

    def __init__(self) -> None:
        """No disk."""
        self._sections: dict[str, dict[str, Any]] = {}

    def __contains__(self, name: str) -> bool:
        """Whether aiodctl has added the disk."""
        return name in self._sections

    def add(self, name: str, section: dict[str, Any]) -> None:
        """Add a disk, whose section `with_disk` has accepted."""
        self._sections[name] = section

    def discard(self, name: str) -> None:
        """Remove it."""
        self._sections.pop(name, None)

    def merged(self, config: Config, source: str) -> Config:
        """`config`, read from the file `source`, with the disks that it lacks.

        Raises ConfigError when these do not fit it.
        """
        missing = {name: section for name, section in self._sections.items() if name not in config.vhost}
        if not missing:
            return config
        document = config.model_dump()
        document["vhost"] |= missing
        return make_config(document, f"{source} with the disks of aiodctl vhost add ({', '.join(sorted(missing))})")

    def now_in(self, config: Config) -> list[str]:
        """The disks that `config`, read from a file, has as well: they are the file's from now on."""
        return sorted(name for name in self._sections if name in config.vhost)


def with_disk(config: Config, name: str, section: dict[str, Any]) -> Config:
    """`config` with one more disk. Raises ConfigError."""
    document = config.model_dump()
    document["vhost"][name] = section
    return make_config(document, "vhost add")


def without_disk(config: Config, name: str) -> Config:
    """`config` without that disk."""
    document = config.model_dump()
    del document["vhost"][name]
    return make_config(document, "vhost remove")


def warn_of_engines(config: Config) -> None:
    """Log the sections [engine.vhost-NAME] that have no disk."""
    for name in sorted(config.engines_without_disk):
        disk = name.removeprefix(ENGINE_PREFIX)
        log.warning("[engine.%s] is not used: there is no disk %s", name, disk)


async def wait_open(engine: Engine) -> None:
    """Return when the engine serves its disk. Raises OSError with the reason when the file cannot be opened."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    try:
        await engine.wait_serving()
        while time.monotonic() < deadline_s:
            status = await engine.ask("vhost", _ANSWER_TIMEOUT_S)
            if status["error"]:
                raise OSError(status["errno"], status["error"])
            if status["open"]:
                return
            await asyncio.sleep(_POLL_PERIOD_S)
    except EngineUnavailableError as error:
        raise OSError(errno.EIO, str(error)) from error
    raise OSError(errno.ETIMEDOUT, f"the file was not open within {START_TIMEOUT_S:g} s")


async def refuse_while_connected(engine: Engine) -> None:
    """Raise OSError when a guest has the engine's disk, or nobody can tell."""
    try:
        status = await engine.ask("vhost", _ANSWER_TIMEOUT_S)
    except EngineUnavailableError as error:
        raise OSError(
            errno.EAGAIN, f"{error}; it is unknown whether a guest has the disk: try again, or add --force"
        ) from error
    if status["vmm_pid"]:
        raise OSError(
            errno.EBUSY,
            f"the VMM with pid {status['vmm_pid']} is connected; stop the guest or unplug the disk, or add --force",
        )
