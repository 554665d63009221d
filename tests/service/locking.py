"""What tests of locks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiod_client


def is_free(file: aiod_client.File, **options: Any) -> bool:
    """Whether the range can be locked now."""
    try:
        file.lock(timeout=0, **options).unlock()
    except BlockingIOError:
        return False
    return True
