"""What is odd about the places that are exported: told at the start and at a reload, and served all the same."""

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
    """Log those that are not there, and those that cannot be written to though they are not `read_only`.

    In a thread of its own, which nobody waits for: a dead network mount answers nobody.
    """
    threading.Thread(target=_look_at, args=(dict(exports),), name="exports", daemon=True).start()


def _look_at(exports: Mapping[str, ExportConfig]) -> None:
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
