"""What both clients' walk(), makedirs() and touch() have in common: which requests to send, and what follows.

Each is a generator. It yields an Ask, which the client carries out by its method of that name: the result is sent back,
or the OSError thrown. A Found is a result for the caller of the client. globs.py has another one.
"""

from __future__ import annotations

import errno
import posixpath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from aiod_client.records import BaseDirEntry, Page

_NO_SUCH: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_PERMISSIONS: Final = 0o777
"""Those of the parents that makedirs() makes."""


class Ask(NamedTuple):
    """A call of the client's method `method`."""

    method: str
    arguments: tuple[Any, ...]


class Found(NamedTuple):
    """A result."""

    value: Any


def is_absent(error: OSError) -> bool:
    """Whether `error` says that a path names nothing, or nothing inside its export."""
    return error.errno in _NO_SUCH or getattr(error, "reason", None) == Reason.OUTSIDE


# ---- walk ------------------------------------------------------------------------------------------------------------


class _Directory:
    """The names of one directory, as os.walk() sorts them."""

    def __init__(self) -> None:
        self.directories: list[str] = []
        self.others: list[str] = []
        self.links: set[str] = set()
        """Those of `directories` that are symbolic links."""

    def read(self, path: str) -> Generator[Ask, Any, None]:
        """Read the directory `path`."""
        cursor: int | None = 0
        while cursor is not None:
            page: Page[BaseDirEntry] = yield Ask("_page", (path, cursor))
            for entry in page.entries:
                is_directory = yield from leads_to_directory(entry)
                (self.directories if is_directory else self.others).append(entry.name)
                if is_directory and entry.is_symlink():
                    self.links.add(entry.name)
            cursor = page.following


def leads_to_directory(entry: BaseDirEntry) -> Generator[Ask, Any, bool]:
    """Whether `entry` is a directory, or a symbolic link to one."""
    if not entry.is_symlink():
        return entry.kind == "dir"
    try:
        found: bool = yield Ask("is_dir", (entry.path,))
    except OSError:  # as os.walk(): what cannot be followed is no directory
        return False
    return found


def walk(
    top: str, onerror: Callable[[OSError], Any] | None, *, topdown: bool, followlinks: bool
) -> Generator[Ask | Found, Any, None]:
    """As os.walk()."""
    todo: list[str | Found] = [top]
    while todo:
        path = todo.pop()
        if isinstance(path, Found):
            yield path
            continue
        directory = _Directory()
        try:
            yield from directory.read(path)
        except OSError as error:
            if onerror is not None:
                onerror(error)
            continue
        found = Found((path, directory.directories, directory.others))
        if topdown:
            yield found  # the caller may change `directories`
        else:
            todo.append(found)
        below = [name for name in directory.directories if followlinks or name not in directory.links]
        todo += [posixpath.join(path, name) for name in reversed(below)]


# ---- makedirs, touch -------------------------------------------------------------------------------------------------


def makedirs(path: str, perm: int, *, exist_ok: bool) -> Generator[Ask, Any, None]:
    """As os.makedirs(), but without recursion: a path has up to 2048 parts."""
    missing: list[str] = []
    here = path.rstrip("/")
    while not (yield from _make(here, perm if not missing else _PERMISSIONS, exist_ok=exist_ok or bool(missing))):
        missing.append(here)
        here = posixpath.dirname(here)
    while missing:
        here = missing.pop()
        yield from _make(here, _PERMISSIONS if missing else perm, exist_ok=exist_ok or bool(missing))


def _make(path: str, perm: int, *, exist_ok: bool) -> Generator[Ask, Any, bool]:
    """Make a directory. False: its parent is missing."""
    try:
        yield Ask("mkdir", (path, perm))
    except FileNotFoundError:
        if "/" not in path:  # the export itself
            raise
        return False
    except OSError:  # also EROFS and EACCES: the directory may exist nevertheless
        if not exist_ok or not (yield Ask("is_dir", (path,))):
            raise
    return True


def touch(path: str, perm: int, *, exist_ok: bool) -> Generator[Ask, Any, None]:
    """As pathlib.Path.touch()."""
    if not exist_ok:
        yield Ask("_create", (path, perm))
        return
    try:
        yield Ask("utime", (path,))
    except FileNotFoundError:
        try:
            yield Ask("_create", (path, perm))
        except FileExistsError:  # another client has created it meanwhile
            yield Ask("utime", (path,))
