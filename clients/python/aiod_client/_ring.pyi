"""libaiod: a ring of one session with an engine (docs/ring.md). Any thread; the GIL is let go while a thread waits.

A failure is (result, written, reason): -errno, bytes known to be done, and which of ring_reasons (-1: the time was up).
"""

from typing import Any

class Buffer:
    """Memory of a ring's buffer area, with the (writable) buffer protocol. Given back with the last reference."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Pending:
    """A request in flight. Dropped, it is abandoned: it ends unheard."""

    owner: Any
    """Whatever reap() is to return for it."""

    def cancel(self, timeout_s: float) -> int:
        """Have it ended before it is started: 1: it is ending so; 0: too late; -errno: nobody knows."""

Failure = tuple[int, int, int]

class Ring:
    """The ring. None as a result: not now (no room), or not so (odd arguments, too long): another way has to do it."""

    def read(self, handle: int, length: Any, offset: Any, timeout_s: float) -> bytes | Failure | None:
        """Read, and wait for it."""

    def read_into(self, handle: int, buffer: Any, offset: Any, timeout_s: float) -> int | Failure | None:
        """Read into `buffer`, without a copy if it is the ring's; the bytes read."""

    def write(self, handle: int, data: Any, offset: Any, flags: int, timeout_s: float) -> int | Failure | None:
        """Write `data`, without a copy if it is the ring's; its length."""

    def read_soon(self, handle: int, length: Any, offset: Any, timeout_s: float) -> bytes | Failure | Pending | None:
        """Read; what is not there within microseconds is a Pending, whose owner has to be set."""

    def start(
        self,
        op: int,
        flags: int,
        handle: int,
        offset: int,
        length: int,
        source: int,
        source_offset: int,
        timeout_s: float,
        data: Any,
        owner: Any,
    ) -> Pending | None:
        """Submit any request; `data` is a write's bytes, or where a read's go (None: into new bytes)."""

    def reap(self) -> list[tuple[Any, int, int, int, bytes | None]]:
        """(owner, result, written, reason, a read's new bytes) of the started requests that are done. Never waits."""

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Wait until done_count is not `seen`; False: it still is. Handlers of signals run meanwhile."""

    @property
    def done_count(self) -> int:
        """How many requests are done so far."""
    def buffer(self, nbytes: int) -> Buffer | None:
        """Zeroed memory of the ring, aligned to 4096; None: there is none so large now."""

    @property
    def request_bytes_max(self) -> int:
        """The most bytes of one request."""
    @property
    def ended(self) -> int:
        """Why the session ended, as an errno; 0: it has not, so far as is known."""
    @property
    def shutdown_notice(self) -> int:
        """What the engine has said as it stopped in order: ring_wire.RingLastWord."""
    @property
    def fd(self) -> int:
        """Readable when requests are done since arm(), and when the session has ended."""
    def arm(self) -> bool:
        """Before sleeping on `fd`. False: do not, there is something to reap."""

    def disarm(self) -> None:
        """After waking: make `fd` unreadable."""

    def close(self) -> None:
        """End the ring; whoever waits is woken. Memory stays for as long as a Buffer is used."""

def attach(path: str, ticket: bytes, *, software: str, entries: int, area_bytes: int) -> Ring:
    """Attach a ring to the session of `ticket` at the engine's ring socket. Raises OSError with a sentence."""
