"""Open files of a dead FUSE mount move to the mount that takes its place (core/session/move_handle.h).

Once a second it asks the core whether a request has found its mount dead. If so, all files of the export on FUSE are
opened again by their names, until each is on a mount that lives. Meanwhile requests fail with ENOTCONN. A single file
that the server has given up is opened again alone; its locks are lost.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from aiod.engine.session import FuseFile
from aiod.util import logs
from aiod_protocol.messages import object_name
from aiod_protocol.wire import OpenFlag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aiod._core import Core
    from aiod.engine.session import Session

log = logging.getLogger(__name__)

_PERIOD_S: Final = 1.0
_UNKNOWN_MAX: Final = 1000
_GIVEN_UP: Final = 1
_MOUNT_LOST: Final = 2


class _OpenFile(NamedTuple):
    session: Session
    handle: int
    file: FuseFile


class LostMounts:
    """Main loop thread only."""

    def __init__(
        self,
        core: Core,
        sessions: Iterable[Session],
        move: Callable[[Session, int, FuseFile, Callable[[int], None]], None],
    ) -> None:
        """`move(session, handle, file, then)` moves an open file, and calls `then` with the result (or -errno)."""
        self._core = core
        self._sessions = sessions
        self._move = move
        self._timer: asyncio.TimerHandle | None = None
        self._moving = 0
        self._moved: Counter[str] = Counter()
        self._unknown: set[tuple[bytes, int]] = set()
        """Files that cannot be told from others, which was logged: (token, handle)."""

    def start(self) -> None:
        """Start the timer."""
        self._timer = asyncio.get_running_loop().call_later(_PERIOD_S, self._check)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        if not self._moving:
            files = list(self._files())
            lost = {each.file.export for each, loss in files if loss == _MOUNT_LOST}
            self._begin([each for each, loss in files if each.file.export in lost], self._end)
            self._begin(
                [each for each, loss in files if each.file.export not in lost and loss == _GIVEN_UP], self._given
            )
        self.start()

    def _files(self) -> Iterator[tuple[_OpenFile, int]]:
        """The files on FUSE, and what a request has found."""
        for session in self._sessions:
            for handle, loss, name in self._core.fuse_handles(session.core):
                file = session.fuse_files.get(handle)
                if file is None:  # opened by a ring
                    export, _, path = name.decode(errors="surrogateescape").partition("/")
                    file = FuseFile(export, path, int(OpenFlag.READ))
                yield _OpenFile(session, handle, file), loss

    def _begin(self, files: list[_OpenFile], end: Callable[[_OpenFile, int], None]) -> None:
        self._moving += len(files)
        for each in files:
            self._move(each.session, each.handle, each.file, functools.partial(end, each))

    def _given(self, each: _OpenFile, result: int) -> None:
        """A file that its server had given up was opened again, or not."""
        self._moving -= 1
        if result > 0:
            name = object_name(each.file.export, each.file.path)
            text = "%s: the file system's server had given up the open file; it was opened again, without its locks"
            log.warning(text, name, extra=logs.about(export=each.file.export))
        elif result == -errno.ESTALE:
            self._warn(each)

    def _end(self, each: _OpenFile, result: int) -> None:
        self._moving -= 1
        if result > 0:
            self._moved[each.file.export] += 1
        elif result == -errno.ESTALE:
            self._warn(each)
        if not self._moving:
            self._tell()

    def _tell(self) -> None:
        for export, count in self._moved.items():
            log.warning(
                "export %s is mounted again: %d open files continue there",
                export,
                count,
                extra=logs.about(export=export),
            )
        self._moved.clear()

    def _warn(self, each: _OpenFile) -> None:
        """Once for each file."""
        known = each.session.token, each.handle
        if known in self._unknown:
            return
        if len(self._unknown) >= _UNKNOWN_MAX:
            self._unknown.clear()
        self._unknown.add(known)
        name = object_name(each.file.export, each.file.path)
        log.warning(
            "%s cannot continue on the new mount, and has to be opened anew: another file has this name, or the file "
            "system does not identify its files",
            name,
            extra=logs.about(export=each.file.export),
        )
