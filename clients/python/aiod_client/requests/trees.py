"""What both clients' walk(), makedirs(), rmtree() and touch() have in common: which requests to send, and what follows.

Each is a generator. It yields an Ask, which the client carries out by its method of that name: the result is sent back,
or the OSError thrown. A Found is a result for the caller of the client. globs.py has another one.
"""

from __future__ import annotations

import errno
import posixpath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiod_client.errors import AiodError
from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from aiod_client.records import BaseDirEntry, Page

_NO_SUCH: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_NO_TREE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL})
"""Errnos of rmtree() of what is no directory, such as a link to one, or is an export: nothing is removed there."""
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


def rmtree(path: str, *, ignore_errors: bool) -> Generator[Ask, Any, None]:
    """As shutil.rmtree(): with `ignore_errors` each name that can be removed is."""
    todo = [path]
    while todo:
        here = todo.pop()
        try:
            while (yield Ask("_remove_some", (here,))):
                pass
        except OSError as error:
            if not ignore_errors or _says_nothing(error):
                raise
            if error.errno not in _NO_TREE:
                # The daemon has stopped at the first name that cannot be removed.
                todo += yield from _remove_files(here)


def _remove_files(path: str) -> Generator[Ask, Any, list[str]]:
    """Remove what can be removed in a directory, but for directories: returns these."""
    directories: list[str] = []
    try:
        entries = yield Ask("list", (path,))
        for entry in entries:
            below = posixpath.join(path, entry.name)
            if entry.kind == "dir":
                directories.append(below)
            else:
                yield from _remove(below)
    except OSError as error:
        if _says_nothing(error):
            raise
    return directories


def _remove(path: str) -> Generator[Ask, Any, None]:
    try:
        yield Ask("remove", (path,))
    except OSError as error:
        if _says_nothing(error):
            raise


def _says_nothing(error: OSError) -> bool:
    """Whether `error` is none of the name."""
    return isinstance(error, AiodError | TimeoutError)


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
