"""The thread that runs the callbacks of a session's futures.

Callbacks may take their time, and may use the client: no heartbeat is late for that. The thread begins with the first
of them.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("aiod_client")


class Callbacks:
    """Runs callbacks one after the other. Any thread; the link's lock protects begin()."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint` names the session in log messages."""
        self._endpoint = endpoint
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread, if it has not been started."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="aiod-callbacks", daemon=True)
            if self._thread is None:  # else a finalizer or signal handler has interrupted, and was quicker
                self._thread = thread
                thread.start()

    def run(self, callbacks: Callable[[], None]) -> None:
        """Have `callbacks` run."""
        self._queue.put(callbacks)

    def end(self) -> None:
        """Have the thread end when it has run everything."""
        self._queue.put(None)

    def _run(self) -> None:
        while (run := self._queue.get()) is not None:
            try:
                run()
            except BaseException:  # SystemExit, say; the rest is logged by concurrent.futures
                log.exception("a callback of the session with %s failed", self._endpoint)
