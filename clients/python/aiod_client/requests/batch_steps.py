"""The steps that every read and write of a batch meets, by message: in the native module, where there is one.

Each function goes as far as requests are plain, and says how far that is: the loop in Python where it is used does the
rest. Without the native module the loops do all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class RequestFields:
    """The attributes of a request in slots."""

    __slots__ = (
        "buffer",
        "by_ring",
        "cancelling",
        "charge",
        "cookie",
        "covers",
        "deadline_s",
        "done",
        "error",
        "flags",
        "handle",
        "length",
        "offset",
        "op",
        "result",
        "sent",
        "source",
        "source_offset",
        "split",
        "waiter",
    )


class FutureFields:
    """The attributes of a future of the blocking client in slots."""

    __slots__ = (
        "_cancel_timeout_s",
        "_condition",
        "_done_callbacks",
        "_exception",
        "_file",
        "_link",
        "_request",
        "_result",
        "_state",
        "_waiters",
    )


def no_records(*_: Any) -> tuple[int, int]:
    """No request is filled in, or completed."""
    return 0, 0


def no_futures(_: list[Any]) -> int:
    """No future is settled."""
    return 0


fill_records = complete_records = no_records
settle_futures = no_futures
make_requests: Callable[..., list[Any]] | None = None
make_futures: Callable[..., list[Any]] | None = None
if not TYPE_CHECKING:
    try:
        from aiod_client import _ring
    except ImportError:
        pass
    else:
        RequestFields, FutureFields = _ring.RequestFields, _ring.FutureFields
        fill_records, complete_records = _ring.fill_records, _ring.complete_records
        settle_futures = _ring.settle_futures
        make_requests, make_futures = _ring.make_requests, _ring.make_futures
