"""The log records of a session's pauses and of its end. Programs may act on them by a logging.Handler.

Each is of the logger "aiod_client", at level WARNING, with the attributes `aiod_event` ("paused", "continued" or
"ended") and `aiod_endpoint`, the engine's; of "continued" also `aiod_files_lost`, the number of files that the next
engine could not open again, and `aiod_moved`: None, or the endpoints of the daemon that was left and of that which was
taken.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sized

log = logging.getLogger("aiod_client")


def log_pause(endpoint: str, why: OSError | None) -> None:
    """The engine at `endpoint` has gone: the session waits for another."""
    log.warning("session with %s: %s: looking for another engine", endpoint, why, extra=_event("paused", endpoint))


def log_continuation(endpoint: str, lost: Sized, moved: tuple[str, str] | None = None) -> None:
    """The session continues with the engine at `endpoint`, which could not open the files of `lost` again.

    `moved`: the endpoints of the daemon that it has left and of the one that it has taken, if these are two.
    """
    extra = _event("continued", endpoint) | {"aiod_files_lost": len(lost), "aiod_moved": moved}
    where = f", at {moved[1]} instead of {moved[0]}" if moved is not None else ""
    log.warning("session with %s: continues%s, %d files lost", endpoint, where, len(lost), extra=extra)


def log_end(endpoint: str, why: OSError | None) -> None:
    """The session has ended, and not by the client's own wish."""
    log.warning("session with %s: %s", endpoint, why, extra=_event("ended", endpoint))


def _event(name: str, endpoint: str) -> dict[str, object]:
    return {"aiod_event": name, "aiod_endpoint": endpoint}
