"""Memory and descriptors of this process, and their limits."""

from __future__ import annotations

import ctypes
import logging
import resource
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = resource.getpagesize()
_STATM: Final = Path("/proc/self/statm")
_CONNECTIONS_MAX: Final = 4096
_DESCRIPTORS_GOOD: Final = 4 * _CONNECTIONS_MAX

log = logging.getLogger(__name__)


def resident_bytes() -> int:
    """Resident set size of this process (bytes). Any thread."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES


def private_bytes() -> int:
    """Resident memory of this process that is not shared memory or a mapped file (bytes). Any thread."""
    _, resident, shared, *_ = map(int, _STATM.read_bytes().split())
    return (resident - shared) * _PAGE_BYTES


def trim_memory() -> None:
    """Return freed memory that malloc has kept to the kernel. Any thread."""
    ctypes.CDLL(None).malloc_trim(0)


def raise_descriptors() -> None:
    """Raise the soft limit of descriptors to the hard one; logs a warning when the hard one is low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < _DESCRIPTORS_GOOD:
        log.warning(
            "only %d descriptors are allowed (RLIMIT_NOFILE): many connections could end an engine; allow %d",
            hard,
            _DESCRIPTORS_GOOD,
        )


def descriptors_max() -> int:
    """Most descriptors that this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connections_max() -> int:
    """Most connections of one socket: at most a quarter of the descriptors.

    The socket monitor reports connections a little late, and libzmq aborts when accept() has no descriptor left.
    """
    return max(16, min(descriptors_max() // 4, _CONNECTIONS_MAX))
