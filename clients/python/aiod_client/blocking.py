"""The blocking client: connect(), Client, File, RequestFuture. Everything here may be used from many threads at once.

Where an operation takes a `timeout` (seconds), None stands for the client's own and math.inf for no limit. When it
passes, TimeoutError says whether the request had been sent ("unknown whether done") or not.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import math
import os
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from aiod_client import endpoint as endpoints
from aiod_client.dial import converse
from aiod_client.errors import NOT_SENT, AiodError, closed, forked, reentered, timed_out
from aiod_client.handshake import Conversation, control, greet_engine, greet_front, locate
from aiod_client.link import Link
from aiod_client.requests import (
    Call,
    Request,
    check_permissions,
    flush_request,
    from_tuple,
    parse_mode,
    parse_path,
    read_into_request,
    read_request,
    size_request,
    write_request,
)
from aiod_client.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

T = TypeVar("T")
Transport = Literal["auto", "zmq", "ring"]

TIMEOUT_S: Final = 30.0


def connect(endpoint: str | None = None, *, transport: Transport = "auto", timeout: float | None = TIMEOUT_S) -> Client:
    """Connect to the daemon at `endpoint`; None: AIOD_ENDPOINT, else where the user's or the system's daemon is.

    `timeout` (seconds; None: no limit) is that of this call and of every operation that is given none. Raises
    DaemonUnreachableError where no daemon is, AiodError for an endpoint or transport that this version does not have,
    TimeoutError.
    """
    check_transport(transport)
    return Client(endpoint or endpoints.default_endpoint(), timeout)


def check_transport(transport: str) -> None:
    """Raise ValueError for an unknown transport, AiodError for one that this version does not have."""
    if transport not in ("auto", "zmq", "ring"):
        raise ValueError(f"unknown transport {transport!r}: auto, zmq or ring")
    if transport == "ring":
        raise AiodError(errno.EOPNOTSUPP, 'this version of aiod has no shared-memory ring yet: use transport="auto"')


class RequestFuture(concurrent.futures.Future[Any]):
    """The outcome of one submitted request.

    result() and exception() drive the session themselves; callbacks run in a thread of the client's (or at once, when
    it is done already). cancel() succeeds until the request is done; one that was sent may be executed nevertheless,
    and its buffer is its own until the daemon has answered.
    """

    def __init__(self, file: File, request: Request) -> None:
        """Made by File.submit()."""
        # Not super().__init__(): it makes a lock for each future. One condition for all of a link costs a third, and
        # wait() and as_completed() take it as often as they like, since it is reentrant.
        self._condition = file._link.condition  # noqa: SLF001 - one module
        self._state = "PENDING"
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[Any], object]] = []
        self._file = file
        self._request = request
        request.waiter = self

    def result(self, timeout: float | None = None) -> Any:
        """The request's result; raises what it failed with, CancelledError, or TimeoutError (None: no limit)."""
        if self._state == "PENDING":
            self._wait(timeout)
        if self._state == "FINISHED" and self._exception is None:
            return self._result  # without the lock: a finished future does not change
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the request failed with, or None; raises CancelledError or TimeoutError (None: no limit)."""
        if self._state == "PENDING":
            self._wait(timeout)
        return super().exception(0)

    def cancel(self) -> bool:
        """Give the request up; False: it is done already."""
        link = self._file._link  # noqa: SLF001
        link.check_process()
        with self._condition:
            if self._state != "PENDING":
                return self._state != "FINISHED"
            self._state = "CANCELLED"
            self.set_running_or_notify_cancel()
        # Without the lock: who has it is one who interrupts (link.py).
        link.abandon(self._request, concurrent.futures.CancelledError())
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        """Call `fn` with this future when it is done."""
        self._file._link.check_process()  # noqa: SLF001
        if self._state == "PENDING":
            self._file._link.want_callbacks()  # noqa: SLF001
        super().add_done_callback(fn)

    def settle(self) -> Callable[[], None] | None:
        """Take over the request's outcome. The link calls it, under its lock; harmless a second time."""
        request = self._request
        request.waiter = None  # or a future and its request would be a cycle
        if self._state != "PENDING":
            return None
        self._result, self._exception = request.result, request.error
        # Last, as result() looks without the lock; and nothing since the look above can run a finalizer.
        self._state = "FINISHED"
        for waiter in self._waiters:
            (waiter.add_result if request.error is None else waiter.add_exception)(self)
        return self._invoke_callbacks if self._done_callbacks else None  # type: ignore[attr-defined]

    def _wait(self, timeout_s: float | None) -> None:
        timeout_s = math.inf if timeout_s is None else timeout_s
        file, request = self._file, self._request
        if not file._link.wait(request, timeout_s):  # noqa: SLF001
            raise timed_out(f"{file.name}: {request}", timeout_s, sent=request.sent)


class Client:
    """A connection to one daemon. Sessions with its engines are opened as files need them.

    Close it, or use it in a `with` statement. It must not be used in a forked child; close() does nothing there.
    """

    def __init__(self, endpoint: str, timeout: float | None = TIMEOUT_S) -> None:
        """See connect()."""
        self.closed = True  # until the daemon has answered: __del__
        endpoints.check(endpoint)
        self.endpoint = endpoint
        self.timeout_s = math.inf if timeout is None else timeout
        self._pid = os.getpid()
        # Locks in the order of taking: the turn of an export, the turn of its engine, the guard.
        self._turns: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()  # see _turn()
        self._guard = threading.RLock()  # of what follows and the turns; held for moments; finalizers may take it again
        self._links: dict[str, Link] = {}  # by export
        self._links_at: dict[str, Link] = {}  # by engine endpoint
        self.closed = False
        try:
            self._ask(greet_front(), time.monotonic() + self.timeout_s)
        except BaseException:
            self.closed = True
            raise

    def open(
        self, path: str | os.PathLike[str], mode: str = "r", perm: int = 0o666, *, timeout: float | None = None
    ) -> File:
        """Open the file "EXPORT/PATH", `mode` being r, r+, w, w+, x or x+ as for Python's own (always binary).

        A file that is created gets the permission bits `perm` (at most 0o777), less the daemon's umask. Raises
        FileNotFoundError, PermissionError and so on as the daemon says, ValueError for a mode or `perm` that is none.
        """
        self._check()
        flags, (export, inside), perm = parse_mode(mode), parse_path(path), check_permissions(perm)
        timeout_s = self.timeout_s if timeout is None else timeout
        deadline_s = time.monotonic() + timeout_s
        name = os.fspath(path)
        link = self._link(export, deadline_s)
        call = Call(MessageType.OPEN, export, inside, int(flags), perm, filename=name)
        handle, _ = link.perform(call, max(0.0, deadline_s - time.monotonic()), name)
        return File(self, link, handle, name, mode)

    def control(self, verb: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> Any:
        """Ask the supervisor what aiodctl asks ("stats", "threads", ...): the body of its answer."""
        self._check()
        timeout_s = self.timeout_s if timeout is None else timeout
        return self._ask(control(verb, arguments or {}), time.monotonic() + timeout_s)

    def close(self) -> None:
        """Close every session; the daemon closes their files. Idempotent.

        What is in flight fails with AiodError, also for threads that wait for it: to have it done, wait first.
        """
        if self._pid != os.getpid():
            return
        with self._guard:
            self.closed = True
            links = list(self._links_at.values())
            self._links.clear()
            self._links_at.clear()
        for link in links:
            link.close()

    def __enter__(self) -> Self:
        """The client; it is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """For people."""
        return f"<aiod_client.Client {self.endpoint}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        """Warn of a client that was not closed; its sessions end soon."""
        if self.closed or self._pid != os.getpid():
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        for link in self._links_at.values():
            link.dropped = True  # no lock: this may run in the midst of anything

    # ---- links ----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise forked("this client")
        if self.closed:
            raise closed("the client")

    def _link(self, export: str, deadline_s: float) -> Link:
        """The session with the engine that serves `export`: the one there is, else a new one.

        Who wants another engine does not wait for this one's answer.
        """
        link = self._link_of(export)
        if link is not None:
            return link
        with _within(self._turn(export), deadline_s):
            link = self._link_of(export)
            if link is not None:
                return link
            endpoint = self._ask(locate(export), deadline_s).endpoint
            with _within(self._turn(endpoint), deadline_s):
                link = self._links_at.get(endpoint)
                if link is None or link.ended is not None:
                    link = self._connect_engine(endpoint, deadline_s)
                if self._keep_link(export, endpoint, link):
                    return link
        link.close()
        raise closed("the client")

    def _link_of(self, export: str) -> Link | None:
        link = self._links.get(export)
        return link if link is not None and link.ended is None else None

    def _turn(self, name: str) -> threading.RLock:
        """What one thread at a time holds to make the link to an export, or to an engine by its endpoint.

        It is there as long as a thread has it or waits for it. An export's name has no slash, an endpoint has.
        """
        _refuse_reentry(self._guard)
        with self._guard:
            return self._turns.setdefault(name, threading.RLock())

    def _keep_link(self, export: str, endpoint: str, link: Link) -> bool:
        with self._guard:
            if self.closed:
                return False
            self._links_at = {at: other for at, other in self._links_at.items() if other.ended is None}
            self._links[export] = self._links_at[endpoint] = link
            return True

    def _connect_engine(self, endpoint: str, deadline_s: float) -> Link:
        dealer, welcome = converse(endpoint, greet_engine(), deadline_s, self._check)
        try:
            return Link(dealer, welcome)
        except BaseException:
            dealer.close()
            raise

    def _ask(self, conversation: Conversation[T], deadline_s: float) -> T:
        dealer, answer = converse(self.endpoint, conversation, deadline_s, self._check)
        dealer.close()
        return answer


class File:
    """An open file of an export. Made by Client.open(); close it, or use it in a `with` statement.

    Requests in flight have no order among themselves. Buffers given to pwrite(), pread_into() and submit() must be left
    alone until the request has completed, also after a timeout or cancel().
    """

    def __init__(self, client: Client, link: Link, handle: int, name: str, mode: str) -> None:
        """Made by Client.open()."""
        self.name = name
        self.mode = mode
        self.closed = False
        self._client = client  # held: a dropped client ends its sessions
        self._link = link
        self._handle = handle

    def pread(self, length: int, offset: int, *, timeout: float | None = None) -> bytes:
        """Up to `length` bytes from `offset` on; fewer only at the end of the file."""
        result: bytes = self._perform(read_request(self._handle, length, offset), timeout)
        return result

    def pread_into(self, buffer: Any, offset: int, *, timeout: float | None = None) -> int:
        """Fill `buffer` (writable and contiguous) from `offset` on; returns the bytes read, fewer only at the end."""
        result: int = self._perform(read_into_request(self._handle, buffer, offset), timeout)
        return result

    def pwrite(self, data: Any, offset: int, *, timeout: float | None = None) -> int:
        """Write all of `data` (bytes-like) at `offset`; returns its length. Safe on disk after the next flush()."""
        result: int = self._perform(write_request(self._handle, data, offset), timeout)
        return result

    def flush(self, *, timeout: float | None = None) -> None:
        """Make every write that had completed safe on disk."""
        self._perform(flush_request(self._handle), timeout)

    def size(self, *, timeout: float | None = None) -> int:
        """The file's size in bytes."""
        result: int = self._perform(size_request(self._handle), timeout)
        return result

    def submit(self, operations: Iterable[tuple[Any, ...]]) -> list[RequestFuture]:
        """Start a batch; one future for each operation, in order.

        ("read", length, offset) gives bytes, ("read_into", buffer, offset), ("write", data, offset) and ("size",)
        numbers, ("flush",) 0: a flush covers what had *completed* before, not the writes of its own batch. Raises
        ValueError, TypeError or OSError (EINVAL), and submits none, if one of them makes no sense.
        """
        self._check()
        handle = self._handle
        requests = [from_tuple(handle, operation) for operation in operations]
        futures = [RequestFuture(self, request) for request in requests]
        self._link.submit(requests)
        return futures

    def close(self, *, timeout: float | None = None) -> None:
        """Close the file when what is in flight on it has completed. Idempotent; does not flush.

        After a TimeoutError it is closed nevertheless, later.
        """
        if self.closed:
            return
        self.closed = True
        if self._client._pid != os.getpid() or self._link.ended is not None:  # noqa: SLF001 - one module
            return
        self._call(Call(MessageType.CLOSE, self._handle, handle=self._handle), timeout)

    def __enter__(self) -> Self:
        """The file; it is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """For people."""
        return f"<aiod_client.File {self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        """Warn of a file that was not closed; it is closed soon."""
        if self.closed or self._client.closed or self._client._pid != os.getpid():  # noqa: SLF001
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        self._link.orphans.append(self._handle)  # no lock: this may run in the midst of anything

    def _check(self) -> None:
        if self.closed:
            raise closed(f"file {self.name}")
        self._client._check()  # noqa: SLF001

    def _perform(self, request: Request, timeout: float | None) -> Any:
        self._check()
        return self._call(request, timeout)

    def _call(self, pending: Request | Call, timeout: float | None) -> Any:
        timeout_s = self._client.timeout_s if timeout is None else timeout
        return self._link.perform(pending, timeout_s, self.name)


@contextlib.contextmanager
def _within(turn: threading.RLock, deadline_s: float) -> Iterator[None]:
    """Hold `turn`; TimeoutError if another thread has it until `deadline_s`, AiodError (EDEADLK) if this one has it."""
    _refuse_reentry(turn)
    if not turn.acquire(timeout=min(max(0.0, deadline_s - time.monotonic()), threading.TIMEOUT_MAX)):
        raise TimeoutError(errno.ETIMEDOUT, f"another thread's open() is still under way ({NOT_SENT})")
    try:
        yield
    finally:
        turn.release()


def _refuse_reentry(lock: threading.RLock) -> None:
    """Raise AiodError (EDEADLK) for a finalizer or signal handler in the midst of this thread's own open()."""
    if lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001
        raise reentered("open")
