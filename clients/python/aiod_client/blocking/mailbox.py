"""What other threads leave for a session's maintenance thread, and how they wake it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from aiod_client.connection.polling import Bell

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from aiod_client.requests.pending import Call
    from aiod_client.ring.routed_session import NotedHandle


class Mailbox:
    """The mailbox of one maintenance thread.

    Finalizers and signal handlers may use ring(), defer(), `orphans` and `dropped` at any moment: these need no lock.
    The link's lock protects the rest.
    """

    def __init__(self) -> None:
        self.bell = Bell()
        self.thread: threading.Thread | None = None
        """The maintenance thread."""
        self.orphans: deque[NotedHandle] = deque()
        """Handles of files dropped unclosed."""
        self.unlocks: deque[Call] = deque()
        """The UNLOCK of locks that no thread got."""
        self.dropped = False
        """The client was dropped unclosed: the session is to end."""
        self._deferred: deque[Callable[[], object]] = deque()
        self.watching = False
        """The thread looks every few milliseconds whether any other thread leads, since requests are in flight."""
        self.callbacks_wanted = False
        """A callback waits for a request: the thread leads as soon as no other thread does."""
        self.sleeps_until_s = 0.0
        """When the thread looks again if its bell does not ring."""

    def ring(self) -> None:
        """Wake the thread."""
        self.bell.ring()

    def defer(self, call: Callable[[], object]) -> None:
        """Have the thread make `call`, soon and under the lock."""
        self._deferred.append(call)
        self.bell.ring()

    def run_deferred(self) -> None:
        """Make the deferred calls. The maintenance thread only."""
        while self._deferred:
            self._deferred.popleft()()

    def watch(self) -> None:
        """Have the thread look after requests in flight that no thread may be waiting for."""
        self.watching = True
        self.sleeps_until_s = 0.0  # so that one ring is enough
        self.bell.ring()

    def close(self) -> None:
        """Close the bell. Idempotent."""
        self.bell.close()
