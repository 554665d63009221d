"""CPU numbers: lists as in the configuration, and the CPUs that the kernel allows."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_CPUS_ONLINE: Final = Path("/sys/devices/system/cpu/online")
_CPU_LIMIT: Final = 8192
"""All CPU numbers of Linux are smaller; a range is checked against it before it is expanded."""


def parse_cpus(text: str) -> tuple[int, ...]:
    """CPU numbers of "2-5,7"; () for "". Raises ValueError."""
    numbers: set[int] = set()
    for part in text.split(",") if text.strip() else []:
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{part.strip()!r} is not a CPU number or range")
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"{part.strip()!r} is not a CPU number or range: write the lower one first")
        if high >= _CPU_LIMIT:
            raise ValueError(f"this machine has no CPU {high}")
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def forbidden_cpus(cpus: Iterable[int]) -> tuple[int, ...]:
    """The CPUs among `cpus` that this process may not use: they are outside its cpuset.

    A short-lived thread asks the kernel by trying, since affinity is per thread.
    """
    with ThreadPoolExecutor(max_workers=1) as executor:
        return tuple(executor.submit(lambda: [cpu for cpu in cpus if not _may_run_on(cpu)]).result())


def _may_run_on(cpu: int) -> bool:
    """Whether the calling thread may run on `cpu`; afterwards it is bound to it."""
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        return False
    return True


def online_cpus() -> tuple[int, ...]:
    """Numbers of the online CPUs of this machine; they may have gaps."""
    try:
        return parse_cpus(_CPUS_ONLINE.read_text())
    except OSError:
        return tuple(range(os.cpu_count() or 1))
