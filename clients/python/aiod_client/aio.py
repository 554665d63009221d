"""The asyncio client: the names of `aiod_client`, awaited. Works on asyncio's own loop and on uvloop.

    async with aiod_client.aio.connect() as client, await client.open("scratch/disk.img") as f:
        await f.pread(4096, 0)

Everything belongs to the loop it was made on and may be used by any of its tasks. What the tasks of one turn of the loop
ask for travels in one message. A cancelled await cancels the request: one that had been sent may be executed
nevertheless, and its buffer is its own until the daemon has answered. Where an operation takes a `timeout` (seconds), None stands for
the client's own and math.inf for no limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import time
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from aiod_client import endpoint as endpoints
from aiod_client.blocking import RETRY_S, TIMEOUT_S, Transport, check_transport
from aiod_client.dealer import LINGER_MS, Dealer
from aiod_client.errors import NOT_SENT, AiodError, closed, forked, gone, timed_out
from aiod_client.handshake import Conversation, Message, Welcome, control, greet_engine, greet_front, locate
from aiod_client.requests import (
    Call,
    Pending,
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
from aiod_client.session import Session
from aiod_client.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable, Mapping
    from types import TracebackType

log = logging.getLogger("aiod_client")

TURN_MESSAGES_MAX: Final = 8
"""Messages taken in one turn of the loop before others have theirs."""

T = TypeVar("T")


def connect(
    endpoint: str | None = None, *, transport: Transport = "auto", timeout: float | None = TIMEOUT_S
) -> Connecting:
    """Connect to the daemon, as aiod_client.connect(): `await` it, or use it in `async with`."""
    check_transport(transport)
    return Connecting(endpoint or endpoints.default_endpoint(), timeout)


class Connecting:
    """What connect() returns: awaited it gives a Client; in `async with` the client is closed at the end."""

    def __init__(self, endpoint: str, timeout: float | None) -> None:
        self._arguments = endpoint, timeout
        self._client: Client | None = None

    def __await__(self) -> Generator[Any, None, Client]:
        """Connect."""
        return self._connect().__await__()

    async def __aenter__(self) -> Client:
        """Connect."""
        self._client = await self._connect()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        if self._client is not None:
            await self._client.close()

    async def _connect(self) -> Client:
        client = Client(*self._arguments)
        await client._greet()  # noqa: SLF001 - one module
        return client


class RequestFuture(asyncio.Future[Any]):
    """The outcome of one submitted request. cancel() gives the request up, and cancels it if it was sent."""

    def __init__(self, file: File, request: Request) -> None:
        """Made by File."""
        super().__init__(loop=file._link.loop)  # noqa: SLF001 - one module
        self._file = file  # held: a dropped file closes its handle
        self._request = request
        request.waiter = self

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the request up; False: it is done already."""
        if not super().cancel(msg):
            return False
        self._file._link.abandon(self._request, asyncio.CancelledError())  # noqa: SLF001
        return True


class Link:
    """A session and its connection on one event loop."""

    def __init__(self, dealer: Dealer, welcome: Welcome) -> None:
        """Take over `dealer`, on which the engine has said `welcome`."""
        self.loop = asyncio.get_running_loop()
        self._session = Session(welcome, time.monotonic())
        self._dealer = dealer
        self._unsent: deque[Message] = deque()  # what the dealer's full queue refused
        self._pumping = False  # a _pump() is due in this turn of the loop
        self._open = True
        self.disposed: asyncio.Future[None] | None = None
        self.loop.add_reader(dealer.fd, self._pump)
        self.loop.add_reader(dealer.monitor_fd, self._look)
        self._timer = self.loop.call_later(welcome.heartbeat_s, self._tick)

    @property
    def ended(self) -> OSError | None:
        """Why the session ended, or None."""
        return self._session.ended

    def add(self, pending: Request | Call) -> None:
        """Queue `pending`, to be sent at the end of this turn. Raises what ended the session."""
        self._session.add(pending)
        self._pump_soon()

    def abandon(self, pending: Request | Call, error: BaseException) -> bool:
        """Give `pending` up; returns whether it had been sent."""
        sent = self._session.abandon(pending, error)
        pending.waiter = None
        self._pump_soon()
        return sent

    def close_handle(self, handle: int) -> None:
        """Close a handle that nobody has any more."""
        if self._session.ended is None:
            self.add(Call(MessageType.CLOSE, handle, handle=handle))

    def close(self) -> None:
        """Say goodbye and fail what is not done with AiodError (ESHUTDOWN); `disposed` is done when that is out."""
        if self._session.ended is not None:
            return
        self._unsent += self._session.goodbye(time.monotonic())
        self._send()
        self._end(self._session.lose("the client was closed", kind=AiodError, code=errno.ESHUTDOWN), LINGER_MS)

    def _pump_soon(self) -> None:
        if not self._pumping and self._open:
            self._pumping = True
            self.loop.call_soon(self._pump)

    def _send(self) -> None:
        while self._unsent and self._dealer.send(self._unsent[0]):
            self._unsent.popleft()

    def _pump(self) -> None:
        """Send what may be sent and take what has come, until there is neither, or others must have their turn.

        The descriptor tells of new events once, and any use of the socket takes the telling: so it ends only when
        receive() has found nothing after the last send(), or calls itself again.
        """
        self._pumping = False
        session, dealer = self._session, self._dealer
        for _ in range(TURN_MESSAGES_MAX):
            if session.ended is not None:
                self._end([], 0)
                return
            self._unsent += session.messages_to_send(time.monotonic())
            self._send()
            frames = dealer.receive()
            if frames is None:
                return
            self._settle(session.receive(frames))
        self._pump_soon()

    @staticmethod
    def _settle(finished: Iterable[Pending]) -> None:
        for pending in finished:
            future, pending.waiter = pending.waiter, None  # or a future and its request would be a cycle
            if future is None or future.done():
                continue
            if pending.error is None:
                future.set_result(pending.result)
            else:
                future.set_exception(pending.error)

    def _look(self) -> None:
        """Something happened to the connection."""
        if self._dealer.has_ended():
            while (frames := self._dealer.receive()) is not None:
                self._settle(self._session.receive(frames))
            self._end(self._session.lose(f"the connection to {self._dealer.endpoint} has ended"), 0)

    def _tick(self) -> None:
        self._pump()
        self._settle(self._session.tick(time.monotonic()))
        self._pump()
        if self._open:
            self._timer = self.loop.call_at(
                self.loop.time() + max(0.0, self._session.next_tick_s() - time.monotonic()), self._tick
            )

    def _end(self, finished: list[Pending], linger_ms: int) -> None:
        """The session has ended: settle what that has done, and let go of the socket."""
        self._settle(finished)
        if not self._open:
            return
        self._open = False
        if not linger_ms:
            log.warning("session with %s: %s", self._dealer.endpoint, self._session.ended)
        self._timer.cancel()
        self.loop.remove_reader(self._dealer.fd)
        self.loop.remove_reader(self._dealer.monitor_fd)
        if linger_ms:
            # In a thread: it waits for a daemon that does not read, and the loop must not.
            self.disposed = self.loop.run_in_executor(None, self._dealer.close, linger_ms)
        else:
            self._dealer.close()


class Client:
    """A connection to one daemon. Sessions with its engines are opened as files need them.

    Close it, or use it in `async with`. It must not be used in a forked child.
    """

    def __init__(self, endpoint: str, timeout: float | None = TIMEOUT_S) -> None:
        """See connect()."""
        self.closed = True  # until the daemon has answered
        endpoints.check(endpoint)
        self.endpoint = endpoint
        self.timeout_s = math.inf if timeout is None else timeout
        self._pid = os.getpid()
        self._opening = asyncio.Lock()  # one task at a time makes a link
        self._links: dict[str, Link] = {}  # by export
        self._links_at: dict[str, Link] = {}  # by engine endpoint

    async def _greet(self) -> None:
        await self._ask(greet_front(), self.timeout_s)
        self.closed = False

    async def open(
        self, path: str | os.PathLike[str], mode: str = "r", perm: int = 0o666, *, timeout: float | None = None
    ) -> File:
        """Open "EXPORT/PATH", as the blocking client's open()."""
        self._check()
        flags, (export, inside), perm = parse_mode(mode), parse_path(path), check_permissions(perm)
        timeout_s = self.timeout_s if timeout is None else timeout
        deadline_s = time.monotonic() + timeout_s
        name = os.fspath(path)
        link = await self._link(export, timeout_s)
        call = Call(MessageType.OPEN, export, inside, int(flags), perm, filename=name)
        try:
            handle, _ = await perform(link, call, max(0.0, deadline_s - time.monotonic()), name)
        except asyncio.CancelledError:
            if call.result is not None:  # it was answered in the very turn of the cancelling
                link.close_handle(call.result[0])
            raise
        return File(self, link, handle, name, mode)

    async def control(
        self, verb: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Any:
        """Ask the supervisor what aiodctl asks ("stats", "threads", ...): the body of its answer."""
        self._check()
        return await self._ask(control(verb, arguments or {}), self.timeout_s if timeout is None else timeout)

    async def close(self) -> None:
        """Close every session; the daemon closes their files. What is in flight fails with AiodError. Idempotent."""
        if self._pid != os.getpid():
            return
        self.closed = True
        links = list(self._links_at.values())
        self._links.clear()
        self._links_at.clear()
        for link in links:
            link.close()
        await asyncio.gather(*(link.disposed for link in links if link.disposed is not None))

    async def __aenter__(self) -> Self:
        """The client; it is closed at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def __repr__(self) -> str:
        """For people."""
        return f"<aiod_client.aio.Client {self.endpoint}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        """Warn of a client that was not closed; its sessions end soon, if its loop still runs."""
        if self.closed or self._pid != os.getpid():
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        for link in self._links_at.values():
            if not link.loop.is_closed():
                link.loop.call_soon_threadsafe(link.close)

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise forked("this client")
        if self.closed:
            raise closed("the client")

    async def _link(self, export: str, timeout_s: float) -> Link:
        """The session with the engine that serves `export`: the one there is, else a new one."""
        async with within(timeout_s, f"open of export {export}"), self._opening:
            link = self._links.get(export)
            if link is not None and link.ended is None:
                return link
            location = await self._ask(locate(export), math.inf)
            link = self._links_at.get(location.endpoint)
            if link is None or link.ended is not None:
                dealer, welcome = await converse(location.endpoint, greet_engine())
                link = Link(dealer, welcome)
            if self.closed:
                link.close()
                raise closed("the client")
            self._links[export] = self._links_at[location.endpoint] = link
            return link

    async def _ask(self, conversation: Conversation[T], timeout_s: float) -> T:
        async with within(timeout_s, self.endpoint):
            dealer, answer = await converse(self.endpoint, conversation)
        dealer.close()
        return answer


class File:
    """An open file of an export. Made by Client.open(); close it, or use it in `async with`.

    Requests in flight have no order among themselves. Buffers given to pwrite(), pread_into() and submit() must be left
    alone until the request has completed, also after a timeout or a cancelled await.
    """

    def __init__(self, client: Client, link: Link, handle: int, name: str, mode: str) -> None:
        """Made by Client.open()."""
        self.name = name
        self.mode = mode
        self.closed = False
        self._client = client  # held: a dropped client ends its sessions
        self._link = link
        self._handle = handle

    async def pread(self, length: int, offset: int, *, timeout: float | None = None) -> bytes:
        """Up to `length` bytes from `offset` on; fewer only at the end of the file."""
        result: bytes = await self._perform(read_request(self._handle, length, offset), timeout)
        return result

    async def pread_into(self, buffer: Any, offset: int, *, timeout: float | None = None) -> int:
        """Fill `buffer` (writable and contiguous) from `offset` on; the bytes read, fewer only at the end."""
        result: int = await self._perform(read_into_request(self._handle, buffer, offset), timeout)
        return result

    async def pwrite(self, data: Any, offset: int, *, timeout: float | None = None) -> int:
        """Write all of `data` (bytes-like) at `offset`; its length. Safe on disk after the next flush()."""
        result: int = await self._perform(write_request(self._handle, data, offset), timeout)
        return result

    async def flush(self, *, timeout: float | None = None) -> None:
        """Make every write that had completed safe on disk."""
        await self._perform(flush_request(self._handle), timeout)

    async def size(self, *, timeout: float | None = None) -> int:
        """The file's size in bytes."""
        result: int = await self._perform(size_request(self._handle), timeout)
        return result

    def submit(self, operations: Iterable[tuple[Any, ...]]) -> list[RequestFuture]:
        """Start a batch, as the blocking client's submit(); one asyncio future for each operation, in order."""
        self._check()
        requests = [from_tuple(self._handle, operation) for operation in operations]
        futures = [RequestFuture(self, request) for request in requests]
        for request in requests:
            self._link.add(request)
        return futures

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the file when what is in flight on it has completed. Idempotent; does not flush."""
        if self.closed:
            return
        self.closed = True
        if self._client._pid != os.getpid() or self._link.ended is not None:  # noqa: SLF001 - one module
            return
        call = Call(MessageType.CLOSE, self._handle, handle=self._handle)
        await perform(self._link, call, self._timeout_s(timeout), self.name)

    async def __aenter__(self) -> Self:
        """The file; it is closed at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def __repr__(self) -> str:
        """For people."""
        return f"<aiod_client.aio.File {self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        """Warn of a file that was not closed; it is closed soon, if its loop still runs."""
        link = self._link
        if self.closed or self._client.closed or link.ended is not None or self._client._pid != os.getpid():  # noqa: SLF001
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        if not link.loop.is_closed():
            link.loop.call_soon_threadsafe(link.close_handle, self._handle)

    def _check(self) -> None:
        if self.closed:
            raise closed(f"file {self.name}")
        self._client._check()  # noqa: SLF001

    def _timeout_s(self, timeout: float | None) -> float:
        return self._client.timeout_s if timeout is None else timeout

    async def _perform(self, request: Request, timeout: float | None) -> Any:
        self._check()
        return await perform(self._link, request, self._timeout_s(timeout), self.name)


async def perform(link: Link, pending: Request | Call, timeout_s: float, what: str) -> Any:
    """Carry out one request or call: its result, or its error raised. Raises TimeoutError after `timeout_s`.

    After a timeout or a cancelled await it is given up, and cancelled if it was sent.
    """
    future = pending.waiter = link.loop.create_future()
    link.add(pending)
    timer = None if timeout_s == math.inf else link.loop.call_later(timeout_s, _expire, link, pending, timeout_s, what)
    try:
        return await future
    except asyncio.CancelledError as error:
        link.abandon(pending, error)
        raise
    finally:
        if timer is not None:
            timer.cancel()


def _expire(link: Link, pending: Request | Call, timeout_s: float, what: str) -> None:
    future = pending.waiter
    if not pending.done:
        sent = link.abandon(pending, TimeoutError())
        if not future.done():
            future.set_exception(timed_out(f"{what}: {pending}", timeout_s, sent=sent))


@contextlib.asynccontextmanager
async def within(timeout_s: float, what: str) -> AsyncIterator[None]:
    """Raise a TimeoutError that names `what` if the block takes longer than `timeout_s`."""
    try:
        async with asyncio.timeout(None if timeout_s == math.inf else timeout_s):
            yield
    except TimeoutError as error:
        if error.errno is not None:
            raise
        raise TimeoutError(
            errno.ETIMEDOUT, f"{what}: no answer within {timeout_s:g} s ({NOT_SENT}): is the daemon stopped?"
        ) from error


# ---- handshakes -----------------------------------------------------------------------------------------------------


async def converse(endpoint: str, conversation: Conversation[T]) -> tuple[Dealer, T]:
    """Have `conversation` with `endpoint`; returns the open connection and what came of it."""
    message = next(conversation)
    dealer, answer = await _first_answer(endpoint, message)
    try:
        while True:
            try:
                message = conversation.send(answer)
            except StopIteration as stop:
                return dealer, stop.value
            dealer.send(message)
            if (more := await _answer(dealer)) is None:
                raise gone(endpoint)
            answer = more
    except BaseException:
        dealer.close()
        raise


async def _first_answer(endpoint: str, message: Message) -> tuple[Dealer, list[memoryview]]:
    while True:
        endpoints.probe(endpoint)
        dealer = Dealer(endpoint)
        try:
            dealer.send(message)
            answer = await _answer(dealer)
        except BaseException:
            dealer.close()
            raise
        if answer is not None:
            return dealer, answer
        dealer.close()
        if not endpoint.startswith("ipc:"):
            raise gone(endpoint)
        # The probe got through: a full listen backlog, or a daemon that is going. HELLO does no harm twice.
        await asyncio.sleep(RETRY_S)


async def _answer(dealer: Dealer) -> list[memoryview] | None:
    """The next message; None: the connection has ended."""
    while True:
        ended = dealer.has_ended()
        answer = dealer.receive()
        if answer is not None or ended:
            return answer
        await _readable(dealer.fd, dealer.monitor_fd)


async def _readable(*fds: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    for fd in fds:
        loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        for fd in fds:
            loop.remove_reader(fd)
