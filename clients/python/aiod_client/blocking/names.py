"""The blocking client's methods for names that os and pathlib have, too, beside those of Client itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from aiod_client.base_client import BaseClient
from aiod_client.errors import other_export
from aiod_client.records import BaseDirEntry, FileStat, Page, parse_dir_entries, parse_stat_body
from aiod_client.requests.globs import Glob
from aiod_client.requests.names import attribute_bytes, bytes_in, names_in, pack_times
from aiod_client.requests.paths import check_permissions, parse_path
from aiod_client.requests.trees import Ask, Found, is_absent, makedirs, rmtree, touch, walk

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Generator, Iterator

    from aiod_client.blocking.file import File
    from aiod_protocol.key_files import StrPath

    Walk = Iterator[tuple[str, list[str], list[str]]]
    Paths = Iterator[str]

Strings = list[str]


class DirEntry(BaseDirEntry):
    """One name of a directory, as os.DirEntry: only a symbolic link that is to be followed needs a request."""

    __slots__ = ()

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory, or a symbolic link to one inside the export."""
        if self.kind == "link" and follow_symlinks:
            return bool(self._source.client.is_dir(self.path, timeout=self._source.timeout))
        return self.kind == "dir"

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file, or a symbolic link to one inside the export."""
        if self.kind == "link" and follow_symlinks:
            return bool(self._source.client.is_file(self.path, timeout=self._source.timeout))
        return self.kind == "file"

    def stat(self, *, follow_symlinks: bool = True) -> FileStat:
        """The properties as the listing had them; those of a symbolic link's target are asked for."""
        follow = self.kind == "link" and follow_symlinks
        found = None if follow else self._own_stat()
        if found is None:
            ask = self._source.client.stat if follow or self.kind in ("file", "dir") else self._source.client.lstat
            found = ask(self.path, timeout=self._source.timeout)
        return found


class Scan:
    """The entries of a directory, page by page, as os.scandir() gives them: an iterator, and a context manager."""

    def __init__(self, client: Names, path: str, timeout: float | None) -> None:
        """Ask for the first page."""
        self._entries = self._more(client, path, client._page(path, 0, timeout=timeout), timeout)  # noqa: SLF001

    @staticmethod
    def _more(client: Names, path: str, page: Page[DirEntry], timeout: float | None) -> Iterator[DirEntry]:
        yield from page.entries
        while page.following is not None:
            page = client._page(path, page.following, timeout=timeout)  # noqa: SLF001 - a part of the client
            yield from page.entries

    def __iter__(self) -> Iterator[DirEntry]:
        """The entries that have not been taken."""
        return self._entries

    def __next__(self) -> DirEntry:
        """The next entry."""
        return next(self._entries)

    def close(self) -> None:
        """Ask for no more pages."""
        self._entries = iter(())

    def __enter__(self) -> Self:
        """The iterator; it is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class Names(BaseClient):
    """What Client has of them."""

    if TYPE_CHECKING:  # Client's

        def open(self, path: StrPath, mode: str = "r", perm: int = 0o666, *, timeout: float | None = None) -> File:
            """See Client."""

        def stat(self, path: StrPath, *, timeout: float | None = None) -> FileStat:
            """See Client."""

        def _name(self, verb: str, path: StrPath, timeout: float | None, **arguments: Any) -> Any: ...
        def _answer(
            self, verb: str, path: StrPath, timeout: float | None, arguments: dict[str, Any]
        ) -> tuple[int, Any]: ...

    def scandir(self, path: StrPath, *, timeout: float | None = None) -> Scan:
        """The entries of the directory "EXPORT/PATH", in no order: an iterator, which holds one page of up to 512.

        Each has name, path, kind, is_dir(), is_file(), is_symlink() and stat(). `timeout` is each request's.
        """
        return Scan(self, os.fspath(path), timeout)

    def walk(
        self,
        top: StrPath,
        topdown: bool = True,  # noqa: FBT001, FBT002 - os.walk()'s
        onerror: Callable[[OSError], Any] | None = None,
        followlinks: bool = False,  # noqa: FBT001, FBT002
        *,
        timeout: float | None = None,
    ) -> Walk:
        """The directories beneath `top`, and `top`: (path, names of directories, names of others), as os.walk().

        Errors of a directory go to `onerror`, and are ignored without it. `timeout` is each request's.
        """
        return self._results(walk(os.fspath(top), onerror, topdown=topdown, followlinks=followlinks), timeout)

    def glob(self, pattern: str, *, include_hidden: bool = False, timeout: float | None = None) -> Paths:
        """The paths that match "EXPORT/PATTERN", in no order, as glob.iglob() with recursive=True.

        `**` is any number of directories; it follows no symbolic link. Names that begin with a dot match only a
        pattern that does, unless `include_hidden`. Directories that may not be read are left out.
        """
        return self._results(Glob(os.fspath(pattern), include_hidden=include_hidden).steps(), timeout)

    def exists(self, path: StrPath, *, timeout: float | None = None) -> bool:
        """Whether `path` names something, or is a symbolic link to something in its export."""
        try:
            self.stat(path, timeout=timeout)
        except OSError as error:
            if is_absent(error):
                return False
            raise
        return True

    def is_dir(self, path: StrPath, *, timeout: float | None = None) -> bool:
        """Whether `path` is a directory, or a symbolic link to one in its export."""
        return self._is_kind(path, "dir", timeout)

    def is_file(self, path: StrPath, *, timeout: float | None = None) -> bool:
        """Whether `path` is a regular file, or a symbolic link to one in its export."""
        return self._is_kind(path, "file", timeout)

    def is_symlink(self, path: StrPath, *, timeout: float | None = None) -> bool:
        """Whether `path` is a symbolic link."""
        try:
            return self.lstat(path, timeout=timeout).kind == "link"
        except OSError as error:
            if is_absent(error):
                return False
            raise

    def lstat(self, path: StrPath, *, timeout: float | None = None) -> FileStat:
        """The properties of what `path` names, of a symbolic link itself."""
        return parse_stat_body(self._name("lstat", path, timeout))

    def makedirs(
        self,
        path: StrPath,
        perm: int = 0o777,
        exist_ok: bool = False,  # noqa: FBT001, FBT002 - os.makedirs()'s
        *,
        timeout: float | None = None,
    ) -> None:
        """Make a directory, and its parents where they are missing. `timeout` is each request's."""
        self._run(makedirs(os.fspath(path), check_permissions(perm), exist_ok=exist_ok), timeout)

    def rmtree(
        self,
        path: StrPath,
        ignore_errors: bool = False,  # noqa: FBT001, FBT002 - shutil's
        *,
        timeout: float | None = None,
    ) -> None:
        """Remove a directory with everything in it; a symbolic link to one is refused (ENOTDIR), and none is followed.

        The daemon removes up to 512 names for each request, and `timeout` is each one's. It ends with the error of the
        first name that cannot be removed. What was removed stays removed, and a second rmtree() continues. With
        `ignore_errors` such names are left, and the rest is removed; a timeout or a lost session is raised still.
        """
        self._run(rmtree(os.fspath(path), ignore_errors=ignore_errors), timeout)

    def touch(
        self,
        path: StrPath,
        perm: int = 0o666,
        exist_ok: bool = True,  # noqa: FBT001, FBT002 - pathlib's
        *,
        timeout: float | None = None,
    ) -> None:
        """Set the times of a file to now, or create it; without `exist_ok` it must not exist (FileExistsError)."""
        self._run(touch(os.fspath(path), check_permissions(perm), exist_ok=exist_ok), timeout)

    def utime(
        self,
        path: StrPath,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Set the times of access and of the content's change, as os.utime(): seconds, or `ns`; neither: now."""
        self._name("utime", path, timeout, times=pack_times(times, ns), follow=follow_symlinks)

    def chmod(self, path: StrPath, mode: int, *, follow_symlinks: bool = True, timeout: float | None = None) -> None:
        """Set the permission bits (at most 0o777), where the export has `attributes = true`."""
        self._name("chmod", path, timeout, mode=check_permissions(mode), follow=follow_symlinks)

    def symlink(self, src: str, dst: StrPath, *, timeout: float | None = None) -> None:
        """Make the symbolic link `dst` with the text `src` as its target, where the export has `links = true`.

        A target is relative to the link's directory; one that leaves the export can be made, and is never followed.
        """
        self._name("symlink", dst, timeout, target=os.fspath(src))

    def readlink(self, path: StrPath, *, timeout: float | None = None) -> str:
        """The target of the symbolic link `path`."""
        return os.fsdecode(bytes_in("readlink", self._name("readlink", path, timeout), "target"))

    def link(self, src: StrPath, dst: StrPath, *, timeout: float | None = None) -> None:
        """Give the file `src` the further name `dst` in the same export, where the export has `links = true`.

        Of a symbolic link it is the link itself that gets the name. Raises OSError (EXDEV) for two exports.
        """
        (export, _), (new_export, inside) = parse_path(src), parse_path(dst)
        if export != new_export:
            raise other_export(os.fspath(src), os.fspath(dst), "link")
        self._name("link", src, timeout, to=inside)

    def getxattr(
        self, path: StrPath, attribute: str, *, follow_symlinks: bool = True, timeout: float | None = None
    ) -> bytes:
        """The value of an extended attribute, whose name begins with "user."; OSError (ENODATA) if there is none."""
        body = self._name("getxattr", path, timeout, name=attribute, follow=follow_symlinks)
        return bytes_in("getxattr", body, "value")

    def setxattr(
        self,
        path: StrPath,
        attribute: str,
        value: Any,
        flags: int = 0,
        *,
        follow_symlinks: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Set an extended attribute to `value` (bytes-like, up to 56 KiB), where the export has `attributes = true`.

        `flags`: os.XATTR_CREATE (it must not exist) or os.XATTR_REPLACE (it must).
        """
        value = attribute_bytes(value)
        self._name("setxattr", path, timeout, name=attribute, value=value, flags=flags, follow=follow_symlinks)

    def listxattr(self, path: StrPath, *, follow_symlinks: bool = True, timeout: float | None = None) -> Strings:
        """The names of the extended attributes, of those that begin with "user."."""
        return names_in("listxattr", self._name("listxattr", path, timeout, follow=follow_symlinks))

    def removexattr(
        self, path: StrPath, attribute: str, *, follow_symlinks: bool = True, timeout: float | None = None
    ) -> None:
        """Remove an extended attribute, where the export has `attributes = true`."""
        self._name("removexattr", path, timeout, name=attribute, follow=follow_symlinks)

    # ---- what these are made of

    def _is_kind(self, path: StrPath, kind: str, timeout: float | None) -> bool:
        try:
            return self.stat(path, timeout=timeout).kind == kind
        except OSError as error:
            if is_absent(error):
                return False
            raise

    def _page(self, path: str, cursor: int, *, timeout: float | None = None) -> Page[DirEntry]:
        body = self._name("list", path, timeout, cursor=cursor, stat=True)
        return parse_dir_entries(DirEntry, self, timeout, path, body)

    def _remove_some(self, path: str, *, timeout: float | None = None) -> bool:
        """Remove names of a tree; whether some are left."""
        more, _ = self._answer("rmtree", path, timeout, {})
        return more != 0

    def _create(self, path: str, perm: int, *, timeout: float | None = None) -> None:
        self.open(path, "x", perm, timeout=timeout).close()

    def _results(self, steps: Generator[Ask | Found, Any, None], timeout: float | None) -> Iterator[Any]:
        """Carry out `steps`; what they find."""
        answer: Any = None
        failure: OSError | None = None
        while True:
            try:
                step = steps.send(answer) if failure is None else steps.throw(failure)
            except StopIteration:
                return
            answer = failure = None
            if isinstance(step, Found):
                yield step.value
                continue
            try:
                answer = getattr(self, step.method)(*step.arguments, timeout=timeout)
            except OSError as error:
                failure = error

    def _run(self, steps: Generator[Ask, Any, None], timeout: float | None) -> None:
        for _ in self._results(steps, timeout):
            raise AssertionError("these steps find nothing")
