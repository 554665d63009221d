"""Checks, before anything is served, that the kernel provides what the daemon needs."""

from __future__ import annotations

import os
from functools import cache
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


@cache
def ways_off() -> list[dict[str, str]]:
    """What the daemon does without in this place: each a "text" and a "remedy". It serves nevertheless."""
    try:
        os.close(os.memfd_create("aiod-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    except OSError as error:
        return [
            {
                "text": f"rings are off, clients use ZeroMQ: memfd_create(2) cannot be used here: {error.strerror}",
                "remedy": "seccomp must allow memfd_create; rings are several times faster than ZeroMQ",
            }
        ]
    return []
