"""The blocking client: connect() and Client. Everything here may be used from many threads at once.

`timeout` is in seconds; None: the client's; math.inf: no limit. A TimeoutError says whether the request had been sent
("unknown whether done") or not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiod_client import endpoint as endpoints
from aiod_client.base_client import TIMEOUT_S, Entries
from aiod_client.blocking import ring_files, ring_names, whole_files
from aiod_client.blocking.file import File
from aiod_client.blocking.link import Link
from aiod_client.blocking.names import Names
from aiod_client.connection.converse import converse
from aiod_client.connection.dealer import LINGER_MS
from aiod_client.connection.hosts import Round
from aiod_client.connection.reconnect import Resumed, connect_engine, is_away
from aiod_client.errors import NOT_SENT, closed, other_export, reentered, refused_here
from aiod_client.records import FileStat, parse_page, parse_stat, parse_stat_body
from aiod_client.requests.paths import check_permissions, parse_mode, parse_path
from aiod_client.requests.pending import Call
from aiod_client.requests.whole_files import FILE_BYTES_MAX, FileContent
from aiod_client.ring.names import NameRequest
from aiod_client.session.handshake import Conversation, control, goodbye, greet_front, locate
from aiod_client.session.reconnection import RETRY_S
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Buffer

    from aiod_client.ring.attach import Transport
    from aiod_client.ring.routed_session import RoutedSession
    from aiod_protocol.key_files import StrPath

    FileContents = Iterator[FileContent]

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
) -> Client:
    """Connect to the daemon at `endpoint`; None: AIOD_ENDPOINT, else the user's own or the system's daemon.

    `transport`: "auto" uses a shared-memory ring with each engine where that is possible, and ZeroMQ elsewhere; "zmq"
    uses no ring; with "ring" open() raises AiodError where no ring is possible. `timeout` (seconds; None: no limit)
    limits this call, and every operation that is given none. With tcp://HOST:PORT `key` is this client's secret key, a
    file of aiodctl keygen, and `server_key` the daemon's public key, a file or the key itself; None: AIOD_KEY and
    AIOD_SERVER_KEY; without both the connection is not encrypted.

    When an engine dies or the daemon restarts, a session looks for the next engine for `reconnect_timeout` seconds
    (None: AIOD_RECONNECT_TIMEOUT, else 30; 0: not at all). Files stay open, and requests without an answer are sent
    again. A request that must not be done twice (append, truncate, rename, ...) fails with SessionLostError (EIO),
    "unknown whether done".

    Several daemons that export the same may be given, with commas between their endpoints. The client uses one of
    them: of `prefer`, endpoints of the list (None: AIOD_PREFER), else one of this host (ipc), else any. When the daemon
    dies, or has been silent for `host_timeout` seconds (None: AIOD_HOST_TIMEOUT, else 5), the client goes on with
    another one (docs/distributed.md).

    Raises DaemonUnreachableError where no daemon listens, AiodError for an endpoint of an unknown kind, for keys that
    do not fit and, if no endpoint is named, for a socket that another user may have made (EACCES), ValueError for an
    unknown transport, TimeoutError.
    """
    endpoint = endpoint or endpoints.default_endpoint()
    return Client(endpoint, timeout, transport, key, server_key, reconnect_timeout, prefer, host_timeout)


class Client(Names):
    """A connection to one daemon. Sessions with its engines are opened as files need them.

    Any thread may use it at any time. Close it, or use it in a `with` statement. A forked child must not use it, and
    connects anew; close() does nothing there.
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
        self.closed = False
        try:
            self._greet(time.monotonic() + self.timeout_s)
        except BaseException:
            self.closed = True
            raise

    def _greet(self, deadline_s: float) -> None:
        asked = Round(self._hosts)
        for front in asked:
            with asked.attempt(front):
                self._ask(greet_front(), deadline_s, front)
                return
        raise asked.error()

    def _set_up_links(self) -> None:
        # Locks in the order of taking: the turn of an export, the turn of its engine, the guard.
        self._turns: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()  # see _turn()
        # The guard is of the following and the turns; it is held for moments, and finalizers may take it again.
        self._guard = threading.RLock()
        self._links: dict[str, Link] = {}  # by export
        self._links_at: dict[str, Link] = {}  # by engine endpoint

    def open(
        self,
        path: str | os.PathLike[str],
        mode: str = "r",
        perm: int = 0o666,
        *,
        direct: bool = False,
        timeout: float | None = None,
    ) -> File:
        """Open the file "EXPORT/PATH".

        `mode` is one of Python's own: r, r+, w, w+, x, x+, a or a+; the file is always binary. A file that is created
        gets the permission bits `perm` (at most 0o777), less the daemon's umask. A file opened to append is written by
        append() only. `direct` bypasses the page cache (O_DIRECT), with any offset, length and memory.

        Raises FileNotFoundError, PermissionError and other OSErrors of the daemon, ValueError for an invalid mode or
        `perm`.
        """
        self._check()
        flags, (export, inside), perm = parse_mode(mode, direct=direct), parse_path(path), check_permissions(perm)
        call = Call(MessageType.OPEN, export, inside, int(flags), perm, filename=os.fspath(path))
        timeout_s = self._seconds(timeout, call.filename or export)
        try:
            link = self._open_by_ring(call, timeout_s) or self._perform(call, export, timeout)
            file = File(self, link, call, mode)
            file._direct = direct  # noqa: SLF001 - set once
            return file  # noqa: TRY300 - a signal's handler may raise until here
        except BaseException:
            # A signal's handler has raised after the answer: nothing else knows the handle.
            owner = self._links.get(export)
            if owner is not None and call.error is None and call.result is not None:
                owner.close_file_later(call.result[0])
            raise

    def _open_by_ring(self, call: Call, timeout_s: float) -> Link | None:
        # A message that a dead host has not got goes to the next one. In a dead engine's ring an open for writing ends
        # with "unknown whether done".
        return None if self._hosts.several else ring_files.open_file(self, call, timeout_s)

    def buffer(self, nbytes: int, path: str | os.PathLike[str] | None = None) -> memoryview:
        """Writable zeroed memory of `nbytes` bytes that an engine reads into and writes from without a copy.

        It is memory of the ring of the engine that serves `path` ("EXPORT" or "EXPORT/PATH"); None: of the only
        session. Slices and numpy arrays of it are used without a copy, too; the memory is released with the last of
        them. Without a ring it is plain memory. A forked child does not have the memory, and ends with SIGSEGV when it
        touches it: copy the data before fork(). Raises AiodError (ENOBUFS) when the ring's buffer pool has no room for
        it, ValueError if `path` is needed.
        """
        self._check()
        if path is not None:
            return self._link(parse_path(path)[0], time.monotonic() + self.timeout_s).buffer(nbytes)
        links = [link for link in self._links_at.values() if link.ended is None]
        if len(links) != 1:
            raise ValueError(
                f"there are {len(links)} sessions: give the path of an export whose engine is to use the buffer"
            )
        return links[0].buffer(nbytes)

    # ---- whole files ------------------------------------------------------------------------------------------------

    def read_file(
        self, path: str | os.PathLike[str], *, max_bytes: int = FILE_BYTES_MAX, timeout: float | None = None
    ) -> bytes:
        """The bytes of the file "EXPORT/PATH", opened, read and closed by one request.

        Of a file that grows meanwhile they are those up to the size that it had, of one that is cut those that are
        left. A file without a size, as those of /proc, is read to its end. Raises OSError (EFBIG) for a file of more
        than `max_bytes`, and for anything but a regular file (EINVAL, EISDIR).
        """
        self._check()
        return whole_files.read_file(self, path, max_bytes, self._seconds(timeout, "read", path))

    def read_file_and_stat(
        self, path: str | os.PathLike[str], *, max_bytes: int = FILE_BYTES_MAX, timeout: float | None = None
    ) -> tuple[bytes, FileStat]:
        """The same, and the properties that the file had when it was opened, by the same request."""
        self._check()
        timeout_s = self.timeout_s if timeout is None else timeout
        return whole_files.read_file_and_stat(self, path, max_bytes, timeout_s)

    def write_file(
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
        whole_files.write_file(self, path, data, timeout_s, durable=durable, exclusive=exclusive)

    def read_files(
        self, paths: Iterable[str], *, max_bytes: int = FILE_BYTES_MAX, timeout: float | None = None
    ) -> FileContents:
        """The files of `paths`, as they are read: FileContents with path, and data or error.

        `timeout` is each file's. At most one file is in memory that was not returned yet.
        """
        for path in paths:
            try:
                yield FileContent(path, self.read_file(path, max_bytes=max_bytes, timeout=timeout))
            except OSError as error:
                yield FileContent(path, None, error)

    # ---- names (docs/operations.md) ---------------------------------------------------------------------------------

    def list(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> Entries:
        """The entries of the directory "EXPORT/PATH", in no order; "EXPORT" is the export's own directory.

        Each is a tuple (name, kind, size), and has the properties of the name in `stat`.
        """
        entries: Entries = []
        cursor: int | None = 0
        while cursor is not None:
            page = self._name("list", path, timeout, cursor=cursor, stat=True)
            more, cursor = parse_page(page)
            entries += more
        return entries

    def stat(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> FileStat:
        """The properties of the file or directory `path`. A symbolic link is followed, if it stays in the export."""
        self._check()
        record = whole_files.stat(self, path, self._seconds(timeout, "stat", path))
        return parse_stat(record) if record is not None else parse_stat_body(self._name("stat", path, timeout))

    def remove(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Remove a file or a symbolic link."""
        self._name("remove", path, timeout)

    def rmdir(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Remove an empty directory."""
        self._name("rmdir", path, timeout)

    def rename(
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
        self._name("rename", path, timeout, to=inside, replace=replace)

    def mkdir(self, path: str | os.PathLike[str], perm: int = 0o777, *, timeout: float | None = None) -> None:
        """Make a directory with the permission bits `perm`, less the daemon's umask."""
        self._name("mkdir", path, timeout, mode=check_permissions(perm))

    def sync(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Make the entries of the directory `path` durable: files created, renamed and removed there."""
        self._name("sync", path, timeout)

    def _name(self, verb: str, path: str | os.PathLike[str], timeout: float | None, **arguments: Any) -> Any:
        """Have the engine carry out the directory operation `verb`; returns the body of its reply."""
        return self._answer(verb, path, timeout, arguments)[1]

    def _answer(
        self, verb: str, path: str | os.PathLike[str], timeout: float | None, arguments: dict[str, Any]
    ) -> tuple[int, Any]:
        """As _name(): result and body of the reply."""
        self._check()
        export, inside = parse_path(path)
        request = NameRequest(verb, export, inside, arguments)
        answer = ring_names.carry_out(self, request, os.fspath(path), self._seconds(timeout, verb, path))
        if answer is not None:
            return answer
        call = Call(MessageType.NAME, *request, filename=os.fspath(path))
        self._perform(call, export, timeout)
        result: tuple[int, Any] = call.result
        return result

    def _perform(self, call: Call, export: str, timeout: float | None) -> Link:
        """Ask the engine that serves `export`; returns the session. `call` has the answer."""
        self._check()
        timeout_s = self._seconds(timeout, call.filename or export)
        deadline_s = time.monotonic() + timeout_s
        link = self._link(export, deadline_s)
        link.perform(call, max(0.0, deadline_s - time.monotonic()), call.filename or export)
        return link

    def control(self, verb: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> Any:
        """Ask the supervisor what aiodctl asks ("stats", "threads", ...); returns the body of its reply."""
        self._check()
        timeout_s = self._seconds(timeout, verb)
        return self._ask(control(verb, arguments or {}), time.monotonic() + timeout_s)

    def ping(self, *, timeout: float | None = None) -> float:
        """Ask the daemon for an answer over a new connection; returns how long that took (seconds)."""
        self._check()
        began_s = time.monotonic()
        self._ask(greet_front(), began_s + self._seconds(timeout, "ping"))
        return time.monotonic() - began_s

    def close(self) -> None:
        """Close every session; the daemon closes their files. Idempotent.

        Requests in flight fail with AiodError (ESHUTDOWN), also for threads that wait for them: wait for them before.
        """
        if self._is_forked():
            return
        with self._guard:
            self.closed = True
            links = list(self._links_at.values())
        try:
            for link in links:
                link.close()
        except BaseException:
            for link in links:
                link.close_later()
            raise
        with self._guard:
            self._retire(self._links_at.values())
            self._links.clear()
            self._links_at.clear()

    def __enter__(self) -> Self:
        """The client; it is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def __repr__(self) -> str:
        """The endpoint, and whether the client is closed."""
        return f"<aiod_client.Client {self._where()}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        """Warn about a client that was not closed; its sessions are closed soon."""
        if self.closed or self._is_forked():
            return
        if not self._restored:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        for link in self._links_at.values():
            link.close_later()

    # ---- links ----------------------------------------------------------------------------------------------------

    def _link(self, export: str, deadline_s: float) -> Link:
        """The session with the engine that serves `export`: the existing one, else a new one.

        An open() that needs another engine does not wait for this one's answer.
        """
        link = self._links.get(export)
        if link is not None and link.session.ended is None:
            link.begin()  # a signal's handler may have raised before begin()
            return link
        with _within(self._turn(export), deadline_s):
            link = self._link_of(export)
            if link is not None:
                return link
            return self._find_engine(export, deadline_s)

    def _find_engine(self, export: str, deadline_s: float) -> Link:
        """The session where `export` is served. Waits for an engine that is away, as a session does."""
        until_s = min(deadline_s, time.monotonic() + self._reconnect_s)
        while True:
            asked = Round(self._hosts)
            for front in asked:
                with asked.attempt(front):
                    return self._engine_at(front, export, deadline_s)
            error = asked.error()
            if not is_away(error) or time.monotonic() >= until_s:
                raise error
            time.sleep(RETRY_S)

    def _engine_at(self, front: str, export: str, deadline_s: float) -> Link:
        """The session where the daemon `front` serves `export`."""
        endpoint = endpoints.of_engine(front, self._ask(locate(export), deadline_s, front).endpoint)
        with _within(self._turn(endpoint), deadline_s):
            link = self._link_at(endpoint) or self._connect_engine(endpoint, front, export, deadline_s)
            if self._keep_link(export, endpoint, link):
                link.begin()
                return link
        link.close()
        raise closed("the client")

    def _sessions(self) -> Sequence[RoutedSession]:
        return tuple(self._links_at.values())

    def _link_at(self, endpoint: str) -> Link | None:
        with self._guard:
            links = [link for link in self._links_at.values() if link.ended is None]
        return next((link for link in links if link.endpoint == endpoint), None)

    def _link_of(self, export: str) -> Link | None:
        link = self._links.get(export)
        return link if link is not None and link.ended is None else None

    def _turn(self, name: str) -> threading.RLock:
        """The lock that one thread at a time holds to make the link to an export, or to an engine by its endpoint.

        It exists as long as a thread holds it or waits for it. An export's name has no slash, an endpoint has.
        """
        _refuse_reentry(self._guard)
        with self._guard:
            return self._turns.setdefault(name, threading.RLock())

    def _keep_link(self, export: str, endpoint: str, link: Link) -> bool:
        with self._guard:
            if self.closed:
                return False
            self._retire(other for other in self._links_at.values() if other.ended is not None)
            self._links_at = {at: other for at, other in self._links_at.items() if other.ended is None}
            self._links[export] = self._links_at[endpoint] = link
            return True

    def _connect_engine(self, endpoint: str, front: str, export: str, deadline_s: float) -> Link:
        hosts = self._hosts
        new = Resumed()
        found = connect_engine(hosts, endpoint, new, self._transport, deadline_s, self._check, hosts.patience_s)
        try:
            return Link(found.dealer, found.welcome, found.ring, self._reconnect(export, front))
        except BaseException:
            found.dealer.send(goodbye(found.welcome))
            found.dealer.close(LINGER_MS)
            raise

    def _ask(self, conversation: Conversation[T], deadline_s: float, front: str | None = None) -> T:
        """The answer of the daemon `front`; None: of the one in use."""
        front, hosts = front or self.endpoint, self._hosts
        keys = hosts.keys_of(front)
        dealer, answer = converse(front, keys, conversation, deadline_s, self._check, hosts.patience_s)
        dealer.close()
        return answer


@contextlib.contextmanager
def _within(turn: threading.RLock, deadline_s: float) -> Iterator[None]:
    """Hold `turn`. Raises TimeoutError if another thread has it until `deadline_s`, AiodError (EDEADLK) if this one has
    it.
    """
    _refuse_reentry(turn)
    if not turn.acquire(timeout=min(max(0.0, deadline_s - time.monotonic()), threading.TIMEOUT_MAX)):
        raise refused_here(errno.ETIMEDOUT, f"another thread's open() is still in progress ({NOT_SENT})")
    try:
        yield
    finally:
        turn.release()


def _refuse_reentry(lock: threading.RLock) -> None:
    """Raise AiodError (EDEADLK) in a finalizer or signal handler that has interrupted this thread's own open()."""
    if lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001
        raise reentered("open")
