"""Whether reads and writes with O_DIRECT can be carried out by io_uring, and whether a file's are."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from aiod import _core

if TYPE_CHECKING:
    from aiod.engine_api.settings import EngineSettings, ExportSettings

log = logging.getLogger(__name__)


class Uring:
    """The result of the test at the engine's start. Containers and service units often forbid io_uring."""

    def __init__(self) -> None:
        error = -_core.probe_uring()
        self.missing = f"io_uring is not available: {os.strerror(error)}" if error else ""
        """Why there is none; "": there is."""

    def carries(self, export: ExportSettings) -> bool:
        """Whether the files of `export` use it."""
        return export.io != "threads" and not self.missing

    def warn(self, settings: EngineSettings) -> None:
        """Log a warning if exports ask for it in vain."""
        wanted = [name for name, export in settings.exports.items() if export.io == "uring"]
        if wanted and self.missing:
            log.warning("io of %s has no effect, threads are used: %s", ", ".join(wanted), self.missing)
