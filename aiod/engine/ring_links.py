"""RUNTIME_DIR/ring/EXPORT: a symbolic link for each export to the ring socket of the engine that serves it.

Programs without ZeroMQ connect there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiod.engine_api.settings import EngineSettings


def create(settings: EngineSettings, exports: Iterable[str]) -> None:
    """Make the links of `exports` point to this engine's socket; each is replaced atomically. Raises OSError."""
    path, directory = Path(settings.ring_path), Path(settings.ring_dir)
    directory.mkdir(mode=0o755, exist_ok=True)
    for export in exports:
        made = directory / f".{export}.{os.getpid()}"
        made.unlink(missing_ok=True)
        made.symlink_to(f"../{path.name}")
        made.rename(directory / export)


def remove(settings: EngineSettings, exports: Iterable[str]) -> None:
    """Remove the links of exports that this engine no longer serves; another engine's link stays."""
    path, directory = Path(settings.ring_path), Path(settings.ring_dir)
    for export in exports:
        link = directory / export
        if link.is_symlink() and link.readlink() == Path(f"../{path.name}"):
            link.unlink()
