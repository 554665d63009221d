"""The native module, which is optional: an installation without a wheel and without a compiler is Python alone."""

from __future__ import annotations

import functools
import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("aiod_client")

ring: ModuleType | None
"""aiod_client._ring; None: `lacking` says why there is none."""
lacking = ""

try:
    from aiod_client import _ring
except ImportError as error:
    ring = None
    lacking = (
        f"the native module aiod_client._ring cannot be loaded: {error}"
        if find_spec("aiod_client._ring") is not None
        else "aiod-io was installed without its native module: install a wheel, or a C++ compiler and aiod-io again"
    )
else:
    ring = _ring


@functools.cache
def warn_that_it_is_lacking() -> None:
    """Log once in a process that every request goes by ZeroMQ, which is slower."""
    log.warning("no shared-memory ring, all requests go by ZeroMQ: %s", lacking)
