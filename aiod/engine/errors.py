"""The engine's own refusals."""

from __future__ import annotations

from aiod_client.sentences import errno_name


def refused(number: int, what: str) -> OSError:
    """An OSError (of the subclass that `number` asks for) whose strerror is `what` and the errno's name."""
    return OSError(number, f"{what} ({errno_name(number)})")
