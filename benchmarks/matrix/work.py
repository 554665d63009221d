"""The workloads. Standard library only: clients that run in the system's Python import it too."""

from __future__ import annotations

from typing import Final, NamedTuple

FILE_BYTES: Final = 256 << 20


class Work(NamedTuple):
    """A workload."""

    title: str
    rw: str
    """Its name in fio and aiod-bench."""
    block_bytes: int
    flush: bool = False
    """A flush after each write: the pair is one operation, and the latencies are the flushes'."""

    @property
    def random(self) -> bool:
        """Whether blocks are at random offsets, not one after another."""
        return self.rw.startswith("rand")

    @property
    def reads_percent(self) -> int:
        """Percentage of reads."""
        return {"read": 100, "write": 0, "rw": 70}[self.rw.removeprefix("rand")]


WORKS: Final = {
    "randread": Work("4 KiB random reads", "randread", 4 << 10),
    "randwrite": Work("4 KiB random writes", "randwrite", 4 << 10),
    "mix": Work("4 KiB, 70 % reads, 30 % writes", "randrw", 4 << 10),
    "flush": Work("4 KiB random write + flush", "randwrite", 4 << 10, flush=True),
    "read": Work("1 MiB sequential reads", "read", 1 << 20),
    "write": Work("1 MiB sequential writes", "write", 1 << 20),
}
