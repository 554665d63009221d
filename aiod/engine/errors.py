"""The engine's own refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiod_protocol.messages import errno_name

if TYPE_CHECKING:
    from aiod_protocol.reasons import Reason


def refused(number: int, what: str, reason: Reason) -> OSError:
    """An OSError of the subclass for `number`; its strerror is `what` and the errno's name.

    Its attribute `reason` is for programs.
    """
    error = OSError(number, f"{what} ({errno_name(number)})")
    error.reason = reason  # type: ignore[attr-defined]
    return error
