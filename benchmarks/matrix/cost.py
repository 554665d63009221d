"""The cost of processes: CPU time and context switches, of living and of ended ones."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_PR_SET_CHILD_SUBREAPER: Final = 36


class Cost(NamedTuple):
    """The cost of one or more processes."""

    cpu_s: float
    switches: int

    def since(self, before: Cost) -> Cost:
        """The difference to an earlier cost."""
        return Cost(self.cpu_s - before.cpu_s, self.switches - before.switches)


Threads = dict[int, Cost]
"""Costs by thread id."""


def of_threads(pids: Iterable[int]) -> Threads:
    """Costs of each thread of living processes, to the nanosecond (/proc/PID/stat has hundredths of a second)."""
    found: Threads = {}
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                cpu_ns = int((task / "schedstat").read_text().split()[0])
                switches = sum(
                    int(line.split()[1])
                    for line in (task / "status").read_text().splitlines()
                    if "ctxt_switches" in line
                )
            except OSError:  # the thread has just ended
                continue
            found[int(task.name)] = Cost(cpu_ns / 1e9, switches)
    return found


def between(before: Threads, after: Threads) -> Cost:
    """The cost of the existing threads since `before`; the rest of a thread that has ended meanwhile is lost."""
    spent = [cost.since(before.get(thread, Cost(0.0, 0))) for thread, cost in after.items()]
    return total(spent)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of several costs."""
    ones = list(costs)
    return Cost(sum(cost.cpu_s for cost in ones), sum(cost.switches for cost in ones))


def of_ended(pid: int) -> Cost:
    """Wait for a child; the cost of its whole life, with its threads and the children that it has waited for."""
    _, _, usage = os.wait4(pid, 0)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_nvcsw + usage.ru_nivcsw)


def adopt_orphans() -> None:
    """Become the parent of daemons that detach from theirs, so that of_ended() can wait for them too."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
