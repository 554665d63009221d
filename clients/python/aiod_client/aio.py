"""The asyncio client: the names of `aiod_client`, awaited. Works on asyncio's own loop and on uvloop.

    async with aiod_client.aio.connect() as client, await client.open("scratch/disk.img") as f:
        await f.pread(4096, 0)

Everything belongs to the loop it was made on and may be used by any of its tasks. What the tasks of one turn of the
loop ask for travels in one message. A cancelled await cancels the request: one that had been sent may be executed
nevertheless, and its buffer is its own until the daemon has answered. Where an operation takes a `timeout` (seconds),
None stands for the client's own and math.inf for no limit.
"""

# ruff: noqa: ASYNC109 - the same names and arguments as the blocking client's

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiod_client import endpoint as endpoints
from aiod_client.aio_link import Link, converse, perform, within
from aiod_client.blocking import TIMEOUT_S, Transport, check_transport
from aiod_client.errors import closed, forked
from aiod_client.handshake import Conversation, control, greet_engine, greet_front, locate
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
    from collections.abc import Generator, Iterable, Mapping
    from types import TracebackType

log = logging.getLogger("aiod_client")

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
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()  # see _turn()
        self._links: dict[str, Link] = {}  # by export
        self._links_at: dict[str, Link] = {}  # by engine endpoint

    async def _greet(self) -> None:
        await self._ask(greet_front(), self.timeout_s)
        self.closed = False

    async def open(
        self, path: str | os.PathLike[str], mode: str = "r", perm: int = 0o666, *, timeout: float | None = None
    ) -> File:
        """Open the file "EXPORT/PATH", as the blocking client does."""
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
        """The session with the engine that serves `export`: the one there is, else a new one.

        Who wants another engine does not wait for this one's answer.
        """
        link = self._link_of(export)
        if link is not None:
            return link
        async with within(timeout_s, f"open of export {export}"), self._turn(export):
            link = self._link_of(export)
            if link is not None:
                return link
            endpoint = (await self._ask(locate(export), math.inf)).endpoint
            async with self._turn(endpoint):
                link = self._links_at.get(endpoint)
                if link is None or link.ended is not None:
                    link = Link(*await converse(endpoint, greet_engine()))
                self._keep_link(export, endpoint, link)
                return link

    def _link_of(self, export: str) -> Link | None:
        link = self._links.get(export)
        return link if link is not None and link.ended is None else None

    def _turn(self, name: str) -> asyncio.Lock:
        """What one task at a time holds to make the link to an export, or to an engine by its endpoint.

        It is there as long as a task has it or waits for it. An export's name has no slash, an endpoint has.
        """
        return self._turns.setdefault(name, asyncio.Lock())

    def _keep_link(self, export: str, endpoint: str, link: Link) -> None:
        if self.closed:
            link.close()
            raise closed("the client")
        self._links_at = {at: other for at, other in self._links_at.items() if other.ended is None}
        self._links[export] = self._links_at[endpoint] = link

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
        """Start a batch, as in the blocking client; one asyncio future for each operation, in order."""
        self._check()
        requests = [from_tuple(self._handle, operation) for operation in operations]
        futures = [RequestFuture(self, request) for request in requests]
        for request in requests:
            self._link.add(request)
        return futures

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the file when what is in flight on it has completed. Idempotent; does not flush.

        After a timeout or a cancelled await it is closed nevertheless, later.
        """
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
