"""Warns at the start and at a reload of exports that do not exist, or cannot be written to. They are served anyway."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from aiod.supervisor.systemd import started_by_systemd
from aiod.util import logs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiod.config import ExportConfig

log = logging.getLogger(__name__)


def warn_of_exports(exports: Mapping[str, ExportConfig]) -> None:
    """Log exports that do not exist, and read-only file systems of exports that are not `read_only`.

    In a thread of its own, which is never joined: on a dead network mount it would block for ever.
    """
    threading.Thread(target=_check, args=(dict(exports),), name="exports", daemon=True).start()


def _check(exports: Mapping[str, ExportConfig]) -> None:
    for name, export in exports.items():
        try:
            flags = os.statvfs(export.path).f_flag
        except OSError as error:
            log.warning(
                "export %s: %s: %s (yet)", name, export.path, error.strerror, extra=logs.about(export=name, error=error)
            )
            continue
        if flags & os.ST_RDONLY and not export.read_only:
            advice = f"; its unit needs ReadWritePaths={export.path} (systemctl edit)" if started_by_systemd() else ""
            log.warning(
                "export %s: the file system of %s is read-only%s",
                name,
                export.path,
                advice,
                extra=logs.about(export=name),
            )
