"""libaiod: a ring of one session with an engine (docs/ring.md). Any thread; the GIL is released while a thread waits.

A failure is (result, written, reason): -errno, bytes known to be done, and a reason of aiod_protocol.reasons (-1:
timeout).
"""

from typing import Any

class Buffer:
    """Memory of a ring's buffer pool, with the (writable) buffer protocol. Released with the last reference."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Pending:
    """A request in flight. When it is dropped, its completion is ignored."""

    owner: Any
    """The object that reap() returns for it."""

    def cancel(self, timeout_s: float) -> int:
        """Cancel it before it is started. 1: it will end so; 0: too late; -errno: unknown."""

Failure = tuple[int, int, int]

class Ring:
    """The ring. None as a result: no room now, or arguments that the ring cannot take: the session has to do it."""

    def read(self, handle: int, length: Any, offset: Any, timeout_s: float) -> bytes | Failure | None:
        """Read, and wait for it."""

    def read_into(self, handle: int, buffer: Any, offset: Any, timeout_s: float) -> int | Failure | None:
        """Read into `buffer`, without a copy if it is the ring's; the bytes read."""

    def write(self, handle: int, data: Any, offset: Any, flags: int, timeout_s: float) -> int | Failure | None:
        """Write `data`, without a copy if it is the ring's; its length."""

    def read_soon(self, handle: int, length: Any, offset: Any, timeout_s: float) -> bytes | Failure | Pending | None:
        """Read; a read that does not complete within microseconds is a Pending, whose owner has to be set."""

    def on_path(
        self, op: int, flags: int, handle: int, path: str, data: Any, length: int, timeout_s: float
    ) -> bytes | int | Failure | None:
        """A request on a path in the export of `handle`, waited for. `length`: room for a result, without `data`.

        READ_FILE: the file's bytes, without its stat; STAT_NAME: the stat. A failure with EFBIG has the file's size in
        the place of `written`.
        """

    def on_path_soon(
        self, op: int, flags: int, handle: int, path: str, data: Any, length: int, timeout_s: float
    ) -> bytes | int | Failure | Pending | None:
        """The same, as read_soon()."""

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
        """Submit any request; `data` is the bytes of a write, or the destination of a read (None: new bytes)."""

    def reap(self) -> list[tuple[Any, int, int, int, bytes | None]]:
        """(owner, result, written, reason, a read's new bytes) of the started requests that are done. Never waits."""

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Wait until done_count is not `seen`; False: it still is. Signal handlers run meanwhile."""

    @property
    def done_count(self) -> int:
        """The number of requests done so far."""
    def buffer(self, nbytes: int) -> Buffer | None:
        """`nbytes` of zeroed memory, aligned to 4096; None: the buffer pool has no room now."""

    @property
    def request_bytes_max(self) -> int:
        """The most bytes of one request."""
    @property
    def ended(self) -> int:
        """The errno for which the session ended; 0: it has not, as far as is known."""
    @property
    def shutdown_notice(self) -> int:
        """The engine's notice of an orderly stop: flags of ring_wire.RingLastWord."""
    @property
    def fd(self) -> int:
        """Readable when requests are done since arm(), and when the session has ended."""
    def arm(self) -> bool:
        """Prepare for sleeping on `fd`. False: do not sleep, there is something to reap."""

    def disarm(self) -> None:
        """Make `fd` unreadable, after waking."""

    def close(self) -> None:
        """End the ring and wake all threads that wait. Its memory stays for as long as a Buffer is used."""

def attach(path: str, ticket: bytes, *, software: str, entries: int, area_bytes: int) -> Ring:
    """Attach a ring to the session of `ticket` at the engine's ring socket. Raises OSError with a message."""
