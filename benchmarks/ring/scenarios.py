"""The scenarios: measurement, state of the page cache, and aiod's goal."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.ring.load import DEPTH, LARGE_DEPTH

if TYPE_CHECKING:
    from collections.abc import Callable

AIOD: Final = "aiod, ring"
AIOD_ZMQ: Final = "aiod, ZeroMQ"
NBDKIT: Final = "nbdkit"
QEMU_NBD: Final = "qemu-nbd"
PSYNC: Final = "fio psync"
IO_URING: Final = "fio io_uring"
LIBNBD: Final = "libnbd on nbdkit"
EXECUTOR: Final = "ThreadPoolExecutor"
CAIO: Final = "caio, Linux AIO"
CAIO_DEFERRED: Final = "caio, Linux AIO, deferred"
CAIO_URING: Final = "caio, io_uring"
RUN_IN_EXECUTOR: Final = "run_in_executor"
AIOFILES: Final = "aiofiles"
ENGINE: Final = "the engine"


class Scenario(NamedTuple):
    """A scenario, shown as one table."""

    title: str
    figure: str
    """The field of Measured that is compared."""
    falling: bool = False
    """Whether less of it is better."""


SCENARIOS: Final = {
    "c-depth-1": Scenario("C, 4 KiB random reads, depth 1", "p50_us", falling=True),
    "c-depth-32": Scenario(f"C, 4 KiB random reads, depth {DEPTH} (fio psync: 1)", "rate"),
    "c-large": Scenario(f"C, 1 MiB sequential reads, depth {LARGE_DEPTH} (fio psync: 1)", "bytes_rate"),
    "python-blocking": Scenario("Python, blocking 4 KiB reads, one at a time", "p50_us", falling=True),
    "python-asyncio": Scenario(f"Python, asyncio, 4 KiB random reads by {DEPTH} coroutines", "rate"),
    "direct": Scenario(f"O_DIRECT, 4 KiB random reads, depth {DEPTH} (fio psync: {DEPTH} threads)", "rate"),
    "idle": Scenario("an attached ring and nothing to do", "cpu_share", falling=True),
}


class Target(NamedTuple):
    """A goal: the ratio of two contenders' figures, and its bound; without `under`, the figure itself."""

    scenario: str
    sentence: str
    over: str
    under: str | None
    comparison: str | None = None
    """None: there is no goal."""
    bound: float = 0.0

    def measured(self, contenders: dict[str, dict[str, Any]]) -> float | None:
        """The ratio, from the scenario's medians by contender; None where one of the two is not available."""
        figure = SCENARIOS[self.scenario].figure
        over: float | None = contenders[self.over].get(figure)
        under: float | None = contenders[self.under].get(figure) if self.under else 1.0
        return None if over is None or under is None else over / under

    def reached(self, ratio: float | None) -> bool | None:
        """Whether `ratio` is within the bound; None if that is unknown."""
        if ratio is None or self.comparison is None:
            return None
        return _COMPARISONS[self.comparison](ratio, self.bound)


_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<": operator.lt,
}

TARGETS: Final = (
    Target("c-depth-1", "nbdkit's p50 / aiod's", NBDKIT, AIOD, ">=", 8),
    Target("c-depth-1", "qemu-nbd's p50 / aiod's", QEMU_NBD, AIOD, ">=", 20),
    Target("c-depth-1", "fio psync's p50 / aiod's", PSYNC, AIOD),
    Target("c-depth-32", "aiod's IOPS / nbdkit's", AIOD, NBDKIT, ">=", 4),
    Target("c-depth-32", "aiod's IOPS / qemu-nbd's", AIOD, QEMU_NBD, ">=", 12),
    Target("c-depth-32", "aiod's IOPS / fio psync's", AIOD, PSYNC, ">=", 0.65),
    Target("c-large", "aiod's bandwidth / nbdkit's", AIOD, NBDKIT, ">=", 4),
    Target("c-large", "aiod's bandwidth / qemu-nbd's", AIOD, QEMU_NBD),
    Target("c-large", "aiod's bandwidth / fio psync's", AIOD, PSYNC),
    Target("python-blocking", "aiod's p50 / libnbd's", AIOD, LIBNBD, "<", 1 / 3),
    Target("python-blocking", "executor's p50 / aiod's", EXECUTOR, AIOD, ">=", 10),
    Target("python-blocking", "aiod's p50 over ZeroMQ / over the ring", AIOD_ZMQ, AIOD),
    Target("python-asyncio", "aiod's operations/s / caio's (Linux AIO)", AIOD, CAIO, ">", 1),
    Target("python-asyncio", "aiod's operations/s / caio's (Linux AIO, deferred)", AIOD, CAIO_DEFERRED, ">", 1),
    Target("python-asyncio", "aiod's operations/s / caio's (io_uring)", AIOD, CAIO_URING),
    Target("python-asyncio", "aiod's operations/s / run_in_executor's", AIOD, RUN_IN_EXECUTOR, ">=", 5),
    Target("python-asyncio", "aiod's operations/s / aiofiles'", AIOD, AIOFILES, ">=", 20),
    Target("python-asyncio", "aiod's operations/s over the ring / over ZeroMQ", AIOD, AIOD_ZMQ),
    Target("direct", "aiod's IOPS / fio io_uring's", AIOD, IO_URING, ">=", 0.85),
    Target("direct", "aiod's IOPS / qemu-nbd's", AIOD, QEMU_NBD, ">=", 2),
    Target("direct", f"aiod's IOPS / fio psync's with {DEPTH} threads", AIOD, PSYNC),
    Target("idle", "the engine's share of a core", ENGINE, None, "<", 0.005),
)
