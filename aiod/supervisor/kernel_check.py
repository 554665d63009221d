"""What the daemon needs of the kernel, asked before anything is served: at the first open it would be too late."""

from __future__ import annotations

import os
from pathlib import Path

from aiod import _core

_DESCRIPTORS = Path("/proc/self/fd")


def why_unfit() -> str | None:
    """The message that says what is missing and what to do; None: nothing is. Engines inherit what this process may."""
    number = -_core.probe_open_beneath()
    if number:
        return (
            f"openat2(2) cannot be used here: {os.strerror(number)}. It confines files to their exports: aiod needs "
            "Linux 5.6, and seccomp must allow openat2 (RestrictSUIDSGID= in a unit forbids it, as does the default "
            "profile of an old container runtime)"
        )
    if not _DESCRIPTORS.is_dir():
        return f"{_DESCRIPTORS} is missing: aiod opens files through it; mount /proc (mount -t proc proc /proc)"
    return None
