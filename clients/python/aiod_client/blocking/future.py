"""The blocking client's future: the outcome of a submitted request. Any thread may use it."""

from __future__ import annotations

import concurrent.futures
import math
from typing import TYPE_CHECKING, Any, Protocol

from aiod_client.errors import timed_out
from aiod_client.requests.batch_steps import FutureFields, make_futures
from aiod_client.requests.result_type import Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod_client.blocking.link import Link
    from aiod_client.requests.pending import Request


class Named(Protocol):
    """A File."""

    name: str


class RequestFuture(FutureFields, concurrent.futures.Future[Result]):
    """The outcome of one submitted request. Any thread may use it.

    result() and exception() drive the session themselves. Callbacks run in a thread of the client's, or at once if the
    request is done already. The buffer of a request that was sent must not be changed until the daemon has answered.
    """

    __slots__ = ()

    def __init__(self, link: Link, request: Request, file: Named, cancel_timeout_s: float) -> None:
        """For File.submit(). The future keeps `file`: a dropped file closes its handle."""
        # Not super().__init__(): it makes a lock for each future. One condition for all of a link costs a third, and
        # wait() and as_completed() take it as often as they like, since it is reentrant.
        self._condition = link.condition
        self._state = "PENDING"
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[Any], object]] = []
        self._link = link
        self._file = file
        self._cancel_timeout_s = cancel_timeout_s
        self._request = request
        request.waiter = self

    def result(self, timeout: float | None = None) -> Result:
        """The request's result. Raises what the request failed with, CancelledError, or TimeoutError after `timeout`
        seconds (None: no limit).
        """
        if self._state == "PENDING":
            self._wait(timeout)
        if self._state == "FINISHED" and self._exception is None:
            result: Result = self._result  # without the lock: a finished future does not change
            return result
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception that the request failed with, or None. Raises CancelledError, or TimeoutError as result()."""
        if self._state == "PENDING":
            self._wait(timeout)
        return super().exception(0)

    def cancel(self) -> bool:
        """End the request before it is started. True: it was not, and never will be, executed.

        False: it is being executed or has ended, and is not affected; or the daemon gave no answer within the client's
        timeout. Asks the daemon (a round trip). In a finalizer or signal handler that interrupts the client's work, and
        in a thread that runs an event loop, it waits for nothing: it returns False, and the daemon is asked.
        """
        if self._state != "PENDING":
            return self._state == "CANCELLED_AND_NOTIFIED"
        return self._link.cancel(self._request, self._cancel_timeout_s)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Result]], object]) -> None:
        """Call `fn` with this future when it is done."""
        self._link.check_process()
        if self._state == "PENDING":
            self._link.want_callbacks()
        super().add_done_callback(fn)

    def settle(self) -> Callable[[], None] | None:
        """Take over the request's outcome. The link calls it, under its lock; a second call does nothing."""
        request = self._request
        if not request.done:
            return None  # a signal's handler raised between the two notes that it is
        request.waiter = None  # or a future and its request would be a cycle
        if self._state != "PENDING":
            return None
        if request.cancelling and request.cancelled:
            self._state = "CANCELLED"
            self.set_running_or_notify_cancel()
            self._condition.notify_all()
        else:
            self._result, self._exception = request.result, request.error
            # Last, as result() looks without the lock; and nothing since the look above can run a finalizer.
            self._state = "FINISHED"
            for waiter in self._waiters:
                (waiter.add_result if request.error is None else waiter.add_exception)(self)
        return self._invoke_callbacks if self._done_callbacks else None  # type: ignore[attr-defined]

    def _wait(self, timeout_s: float | None) -> None:
        timeout_s = math.inf if timeout_s is None else timeout_s
        link, request = self._link, self._request
        if not link.wait(request, timeout_s):
            raise timed_out(f"{self._file.name}: {request}", timeout_s, sent=request.sent, written=request.written)
        if self._state == "PENDING":  # a signal's handler raised in the thread that should have settled it
            with link.lock:  # not the condition, whose __enter__() may be interrupted
                callbacks = self.settle()
            if callbacks is not None:
                callbacks()


def futures_of(link: Link, requests: list[Request], file: Named, cancel_timeout_s: float) -> list[RequestFuture[Any]]:
    """The futures of `requests`, for File.submit()."""
    if make_futures is not None:
        made: list[RequestFuture[Any]] = make_futures(
            RequestFuture, requests, link.condition, link, file, cancel_timeout_s
        )
        return made
    return [RequestFuture(link, request, file, cancel_timeout_s) for request in requests]
