"""The asyncio client's connect() and Client."""

# ruff: noqa: ASYNC109 - the same names and arguments as the blocking client's

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import math
import os
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiod_client import endpoint as endpoints
from aiod_client.aio import ring_files, ring_names, whole_files
from aiod_client.aio.converse import converse, within
from aiod_client.aio.file import File
from aiod_client.aio.link import Link, perform
from aiod_client.aio.loops import check_loop, running_loop
from aiod_client.aio.names import Names
from aiod_client.aio.threads import close_in_thread, in_thread
from aiod_client.base_client import TIMEOUT_S, Entries, check_transport
from aiod_client.connection.dealer import LINGER_MS
from aiod_client.connection.hosts import Round
from aiod_client.connection.reconnect import is_away
from aiod_client.errors import AiodError, SpoiltSessionError, closed, other_export
from aiod_client.records import FileStat, parse_page, parse_stat, parse_stat_body
from aiod_client.requests.paths import check_permissions, parse_mode, parse_path
from aiod_client.requests.pending import Call
from aiod_client.requests.whole_files import FILE_BYTES_MAX, FileContent
from aiod_client.ring.attach import attach
from aiod_client.ring.names import NameRequest
from aiod_client.session.handshake import Conversation, control, goodbye, greet_front, locate, resume_session
from aiod_client.session.reconnection import RETRY_S
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Buffer

    from aiod_client.ring.attach import Transport
    from aiod_client.ring.routed_session import RoutedSession
    from aiod_protocol.key_files import StrPath

    FileContents = AsyncIterator[FileContent]

log = logging.getLogger("aiod_client")

T = TypeVar("T")


def connect(
    endpoint: str | None = None,
    *,
    transport: Transport = "auto",
    timeout: float | None = TIMEOUT_S,
    key: StrPath | None = None,
    server_key: StrPath | None = None,
    reconnect_timeout: float | None = None,
    prefer: str | Sequence[str] | None = None,
    host_timeout: float | None = None,
) -> Connecting:
    """Connect to the daemon, as aiod_client.connect(): `await` it, or use it in `async with`."""
    check_transport(transport)
    endpoint = endpoint or endpoints.default_endpoint()
    return Connecting(endpoint, timeout, transport, key, server_key, reconnect_timeout, prefer, host_timeout)


class Connecting:
    """What connect() returns: awaited it gives a Client; in `async with` the client is closed at the end."""

    def __init__(
        self,
        endpoint: str,
        timeout: float | None,
        transport: Transport,
        key: StrPath | None,
        server_key: StrPath | None,
        reconnect_timeout: float | None,
        prefer: str | Sequence[str] | None,
        host_timeout: float | None,
    ) -> None:
        self._arguments = endpoint, timeout, transport, key, server_key, reconnect_timeout, prefer, host_timeout
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
        """Close the client."""
        if self._client is not None:
            await self._client.close()

    async def _connect(self) -> Client:
        client = Client(*self._arguments)
        await client._greet()  # noqa: SLF001 - one module
        return client


class Client(Names):
    """A connection to one daemon. Sessions with its engines are opened as files need them.

    Any task of its event loop may use it. Close it, or use it in `async with`. A forked child must not use it.
    """

    def __init__(
        self,
        endpoint: str,
        timeout: float | None = TIMEOUT_S,
        transport: Transport = "auto",
        key: StrPath | None = None,
        server_key: StrPath | None = None,
        reconnect_timeout: float | None = None,
        prefer: str | Sequence[str] | None = None,
        host_timeout: float | None = None,
    ) -> None:
        """See connect()."""
        self._set_up(endpoint, timeout, transport, key, server_key, reconnect_timeout, prefer, host_timeout)

    def _set_up_links(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that used it first
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()  # see _turn()
        self._links: dict[str, Link] = {}  # by export
        self._links_at: dict[str, Link] = {}  # by engine endpoint

    def _check(self) -> None:
        """Raise AiodError (EBADF) as the blocking client, and on any loop but that of the first use."""
        super()._check()
        if self._loop is None:
            self._loop = running_loop()
        elif self._loop is not running_loop():
            check_loop(self._loop, "this client")

    async def _greet(self) -> None:
        deadline_s = time.monotonic() + self.timeout_s
        asked = Round(self._hosts)
        for front in asked:
            with asked.attempt(front):
                await self._ask(greet_front(), deadline_s - time.monotonic(), front)
                self.closed = False
                return
        raise asked.error()

    async def open(
        self,
        path: str | os.PathLike[str],
        mode: str = "r",
        perm: int = 0o666,
        *,
        direct: bool = False,
        timeout: float | None = None,
    ) -> File:
        """Open the file "EXPORT/PATH", as the blocking client does."""
        self._check()
        flags, (export, inside), perm = parse_mode(mode, direct=direct), parse_path(path), check_permissions(perm)
        arguments = export, inside, int(flags), perm
        call = Call(MessageType.OPEN, *arguments, filename=os.fspath(path))
        timeout_s = self._seconds(timeout, call.filename or export)
        try:
            link = None
            if not self._hosts.several:  # as the blocking client's _open_by_ring()
                link = await ring_files.open_file(self, call, timeout_s)
            link = link or await self._perform(call, export, timeout_s)
            return File(self, link, call, mode)
        except BaseException:
            # Cancelled, or a signal's handler has raised, after the answer: nothing else knows the handle.
            owner = self._links.get(export)
            if owner is not None and call.error is None and call.result is not None:
                owner.close_noted(owner.noted(call.result[0]))
            raise

    def buffer(self, nbytes: int, path: str | os.PathLike[str] | None = None) -> memoryview:
        """Memory that an engine reads into and writes from without a copy, as the blocking client's.

        A file must have been opened there before: else AiodError (ENOTCONN).
        """
        self._check()
        links = {id(link): link for link in self._links_at.values() if link.ended is None}
        link = self._links.get(parse_path(path)[0]) if path is not None else next(iter(links.values()), None)
        if path is None and len(links) > 1:
            raise ValueError(
                f"there are {len(links)} sessions: give the path of an export whose engine is to use the buffer"
            )
        if link is None:
            raise AiodError(
                errno.ENOTCONN,
                "no file has been opened there yet, so there is no session whose engine could use the buffer",
            )
        return link.buffer(nbytes)

    # ---- whole files ------------------------------------------------------------------------------------------------

    async def read_file(
        self, path: str | os.PathLike[str], *, max_bytes: int = FILE_BYTES_MAX, timeout: float | None = None
    ) -> bytes:
        """The bytes of the file "EXPORT/PATH", opened, read and closed by one request.

        Of a file that grows meanwhile they are those up to the size that it had, of one that is cut those that are
        left. A file without a size, as those of /proc, is read to its end. Raises OSError (EFBIG) for a file of more
        than `max_bytes`, and for anything but a regular file (EINVAL, EISDIR).
        """
        self._check()
        return await whole_files.read_file(self, path, max_bytes, self._seconds(timeout, "read", path))

    async def read_file_and_stat(
        self, path: str | os.PathLike[str], *, max_bytes: int = FILE_BYTES_MAX, timeout: float | None = None
    ) -> tuple[bytes, FileStat]:
        """The same, and the properties that the file had when it was opened, by the same request."""
        self._check()
        timeout_s = self.timeout_s if timeout is None else timeout
        return await whole_files.read_file_and_stat(self, path, max_bytes, timeout_s)

    async def write_file(
        self,
        path: str | os.PathLike[str],
        data: Buffer,
        *,
        durable: bool = False,
        exclusive: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Give the name `path` to a new file with `data` (bytes-like): a reader finds the former file or this, whole.

        The file is written under a name of its own in the same directory (".aiod-*"), and renamed. With `exclusive`
        the name must not exist (FileExistsError). With `durable` the file and its name are on stable storage when this
        returns. The file has the permission bits of open()'s default; those of a file that it replaces are lost, and a
        symbolic link is replaced, not followed. A file that is larger than one request is written by several.
        """
        self._check()
        timeout_s = self._seconds(timeout, "write", path)
        await whole_files.write_file(self, path, data, timeout_s, durable=durable, exclusive=exclusive)

    def read_files(
        self, paths: Iterable[str], *, max_bytes: int = FILE_BYTES_MAX, timeout: float | None = None
    ) -> FileContents:
        """The files of `paths`, as they are read: FileContents with path, and data or error.

        `timeout` is each file's. At most 16 are read ahead, and they come in the order of `paths`.
        """
        return whole_files.read_files(paths, functools.partial(self.read_file, max_bytes=max_bytes, timeout=timeout))

    # ---- names (docs/operations.md) ---------------------------------------------------------------------------------

    async def list(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> Entries:
        """The entries of the directory "EXPORT/PATH", in no order; "EXPORT" is the export's own directory.

        Each is a tuple (name, kind, size), and has the properties of the name in `stat`.
        """
        entries: Entries = []
        cursor: int | None = 0
        while cursor is not None:
            page = await self._name("list", path, timeout, cursor=cursor, stat=True)
            more, cursor = parse_page(page)
            entries += more
        return entries

    async def stat(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> FileStat:
        """The properties of the file or directory `path`. A symbolic link is followed, if it stays in the export."""
        self._check()
        record = await whole_files.stat(self, path, self._seconds(timeout, "stat", path))
        return parse_stat(record) if record is not None else parse_stat_body(await self._name("stat", path, timeout))

    async def remove(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Remove a file or a symbolic link."""
        await self._name("remove", path, timeout)

    async def rmdir(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Remove an empty directory."""
        await self._name("rmdir", path, timeout)

    async def rename(
        self,
        path: str | os.PathLike[str],
        new_path: str | os.PathLike[str],
        *,
        replace: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Rename `path` to `new_path`, atomically. What `new_path` named is replaced, or is an error unless `replace`.

        The default is that of rename(2). Raises OSError (EXDEV) for two exports.
        """
        (export, _), (new_export, inside) = parse_path(path), parse_path(new_path)
        if export != new_export:
            raise other_export(os.fspath(path), os.fspath(new_path))
        await self._name("rename", path, timeout, to=inside, replace=replace)

    async def mkdir(self, path: str | os.PathLike[str], perm: int = 0o777, *, timeout: float | None = None) -> None:
        """Make a directory with the permission bits `perm`, less the daemon's umask."""
        await self._name("mkdir", path, timeout, mode=check_permissions(perm))

    async def sync(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Make the entries of the directory `path` durable: files created, renamed and removed there."""
        await self._name("sync", path, timeout)

    async def _name(self, verb: str, path: str | os.PathLike[str], timeout: float | None, **arguments: Any) -> Any:
        """Have the engine carry out the directory operation `verb`; returns the body of its reply."""
        return (await self._answer(verb, path, timeout, arguments))[1]

    async def _answer(
        self, verb: str, path: str | os.PathLike[str], timeout: float | None, arguments: dict[str, Any]
    ) -> tuple[int, Any]:
        """As _name(): result and body of the reply."""
        self._check()
        export, inside = parse_path(path)
        request = NameRequest(verb, export, inside, arguments)
        answer = await ring_names.carry_out(self, request, os.fspath(path), self._seconds(timeout, verb, path))
        if answer is not None:
            return answer
        call = Call(MessageType.NAME, *request, filename=os.fspath(path))
        await self._perform(call, export, timeout)
        result: tuple[int, Any] = call.result
        return result

    async def _perform(self, call: Call, export: str, timeout: float | None) -> Link:
        """Ask the engine that serves `export`; returns the session. `call` has the answer."""
        self._check()
        name = call.filename or export
        timeout_s = self._seconds(timeout, name)
        deadline_s = time.monotonic() + timeout_s
        link = await self._link(export, timeout_s)
        await perform(link, call, max(0.0, deadline_s - time.monotonic()), name)
        return link

    async def control(
        self, verb: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Any:
        """Ask the supervisor what aiodctl asks ("stats", "threads", ...); returns the body of its reply."""
        self._check()
        return await self._ask(control(verb, arguments or {}), self._seconds(timeout, verb))

    async def ping(self, *, timeout: float | None = None) -> float:
        """Ask the daemon for an answer over a new connection; returns how long that took (seconds)."""
        self._check()
        began_s = time.monotonic()
        await self._ask(greet_front(), self._seconds(timeout, "ping"))
        return time.monotonic() - began_s

    async def close(self) -> None:
        """Close every session; the daemon closes their files. Idempotent.

        Requests in flight fail with AiodError (ESHUTDOWN). Another loop may close the client once its own has ended.
        """
        if self._is_forked():
            return
        loop = asyncio.get_running_loop()
        if self._loop is not loop and self._loop is not None and self._loop.is_running():
            check_loop(self._loop, "this client")
        self.closed = True
        links = list(self._links_at.values())
        self._retire(links)
        self._links.clear()
        self._links_at.clear()
        disposed = []
        for link in links:
            if link.loop is loop:
                link.close()
                disposed.append(link.disposed)
            elif (dealer := link.close_without_loop()) is not None:
                disposed.append(close_in_thread(loop, dealer))
        await asyncio.gather(*(future for future in disposed if future is not None))

    async def __aenter__(self) -> Self:
        """The client; it is closed at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    def __repr__(self) -> str:
        """The endpoint, and whether the client is closed."""
        return f"<aiod_client.aio.Client {self._where()}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        """Warn about a client that was not closed; its sessions are closed soon, or at once if its loop is closed."""
        if self.closed or self._is_forked():
            return
        if not self._restored:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        for link in self._links_at.values():
            if not link.loop.is_closed():
                link.loop.call_soon_threadsafe(link.close)
            elif (dealer := link.close_without_loop()) is not None:
                dealer.close(LINGER_MS)

    async def _connect_engine(self, endpoint: str, front: str, export: str) -> Link:
        loop = asyncio.get_running_loop()
        token, transport, hosts = b"", self._transport, self._hosts
        while True:
            conversation = resume_session(token, {}, hosts.terms)
            async with within(hosts.patience_s or math.inf, endpoint):
                dealer, (welcome, _) = await converse(endpoint, hosts.keys_of(endpoint), conversation)
            try:
                ring = None
                if transport != "zmq":  # in a thread: the engine has memory to fill, and the loop must not wait
                    ring = await in_thread(loop, functools.partial(attach, welcome, transport, endpoint))
                return Link(dealer, welcome, ring, self._reconnect(export, front))
            except SpoiltSessionError:
                # As connect_engine().
                close_in_thread(loop, dealer)
                token, transport = welcome.token, "zmq"
            except BaseException:
                dealer.send(goodbye(welcome))
                close_in_thread(loop, dealer)
                raise

    async def _link(self, export: str, timeout_s: float) -> Link:
        """The session with the engine that serves `export`: the existing one, else a new one.

        An open() that needs another engine does not wait for this one's answer.
        """
        link = self._link_of(export)
        if link is not None:
            return link
        async with within(timeout_s, f"open of export {export}"), self._turn(export):
            link = self._link_of(export)
            if link is not None:
                return link
            endpoint, link = await self._find_engine(export)
            self._keep_link(export, endpoint, link)
            return link

    async def _find_engine(self, export: str) -> tuple[str, Link]:
        """Where `export` is served, and the session there. Waits for an engine that is away, as a session does."""
        until_s = time.monotonic() + self._reconnect_s
        while True:
            asked = Round(self._hosts)
            for front in asked:
                with asked.attempt(front):
                    return await self._engine_at(front, export)
            error = asked.error()
            if not is_away(error) or time.monotonic() >= until_s:
                raise error
            await asyncio.sleep(RETRY_S)

    async def _engine_at(self, front: str, export: str) -> tuple[str, Link]:
        """Where the daemon `front` serves `export`, and the session there."""
        endpoint = endpoints.of_engine(front, (await self._ask(locate(export), math.inf, front)).endpoint)
        async with self._turn(endpoint):
            return endpoint, self._link_at(endpoint) or await self._connect_engine(endpoint, front, export)

    def _sessions(self) -> Sequence[RoutedSession]:
        return tuple(self._links_at.values())

    def _link_at(self, endpoint: str) -> Link | None:
        links = [link for link in self._links_at.values() if link.ended is None]
        return next((link for link in links if link.endpoint == endpoint), None)

    def _link_of(self, export: str) -> Link | None:
        link = self._links.get(export)
        return link if link is not None and link.ended is None else None

    def _turn(self, name: str) -> asyncio.Lock:
        """The lock that one task at a time holds to make the link to an export, or to an engine by its endpoint.

        It exists as long as a task holds it or waits for it. An export's name has no slash, an endpoint has.
        """
        return self._turns.setdefault(name, asyncio.Lock())

    def _keep_link(self, export: str, endpoint: str, link: Link) -> None:
        if self.closed:
            link.close()
            raise closed("the client")
        self._retire(other for other in self._links_at.values() if other.ended is not None)
        self._links_at = {at: other for at, other in self._links_at.items() if other.ended is None}
        self._links[export] = self._links_at[endpoint] = link

    async def _ask(self, conversation: Conversation[T], timeout_s: float, front: str | None = None) -> T:
        """The answer of the daemon `front`; None: of the one in use."""
        front, hosts = front or self.endpoint, self._hosts
        async with within(min(timeout_s, hosts.patience_s or math.inf), front):
            dealer, answer = await converse(front, hosts.keys_of(front), conversation)
        dealer.close()
        return answer
