"""The memory of a guest, which an engine maps, does not count as the engine's own."""

from __future__ import annotations

import mmap
import os

from aiod.util.process_limits import private_bytes, resident_bytes

_BYTES = 64 * 1024 * 1024


def test_shared_memory_is_resident_and_not_private() -> None:
    fd = os.memfd_create("guest")
    os.ftruncate(fd, _BYTES)
    resident, private = resident_bytes(), private_bytes()
    with mmap.mmap(fd, _BYTES) as memory:
        os.close(fd)
        for at in range(0, _BYTES, mmap.PAGESIZE):
            memory[at] = 1
        assert resident_bytes() - resident > _BYTES // 2
        assert private_bytes() - private < _BYTES // 4
