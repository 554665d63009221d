"""What bounds this process from outside: its memory and its descriptors."""

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
    """Resident set of this process in bytes. Any thread."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES


def trim_memory() -> None:
    """Give memory that was freed, and that malloc has kept, back to the kernel. Any thread."""
    ctypes.CDLL(None).malloc_trim(0)


def raise_descriptors() -> None:
    """Raise the soft limit of descriptors to the hard one; logs a warning when that is little."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < _DESCRIPTORS_GOOD:
        log.warning(
            "only %d descriptors are allowed (RLIMIT_NOFILE): a flood of connections could end an engine; allow %d",
            hard,
            _DESCRIPTORS_GOOD,
        )


def descriptors_max() -> int:
    """How many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connections_max() -> int:
    """How many connections one socket accepts: at most a quarter of the descriptors.

    Connections are counted a little late (by the socket monitor), and libzmq aborts when accept() finds no descriptor.
    """
    return max(16, min(descriptors_max() // 4, _CONNECTIONS_MAX))
