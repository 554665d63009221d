"""Where a daemon puts its sockets, and a client looks for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SYSTEM_DIR: Final = "/run/aiod"
FRONT_NAME: Final = "aiod.sock"


def default_runtime_dir() -> str:
    """The directory of this user's daemon: XDG_RUNTIME_DIR/aiod, /run/aiod for root, else /tmp/aiod-UID."""
    if xdg := os.environ.get("XDG_RUNTIME_DIR"):
        return str(Path(xdg) / "aiod")
    uid = os.getuid()
    return SYSTEM_DIR if uid == 0 else f"/tmp/aiod-{uid}"  # noqa: S108 - the daemon makes it with mode 0700


def front_endpoint(runtime_dir: str) -> str:
    """The front endpoint of the daemon whose sockets are in `runtime_dir`."""
    return f"ipc://{runtime_dir}/{FRONT_NAME}"
