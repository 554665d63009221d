"""Checks, before anything is served, that the kernel provides what the daemon needs."""

from __future__ import annotations

import os
from pathlib import Path

from aiod import _core

_DESCRIPTORS = Path("/proc/self/fd")


def why_unfit() -> str | None:
    """What is missing, with a remedy; None: nothing. The engines inherit this process's permissions."""
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
