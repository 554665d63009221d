"""The bytes that were written to a file with a position, and that the daemon does not have yet.

One piece is in flight at a time, and a task that is cancelled while it waits does not give the piece up: the next push
learns its outcome first. A piece that has failed is sent again, less the bytes that are known to be written. That does
no harm at an offset; an append with an unknown outcome is never repeated (append_in_doubt).
"""

from __future__ import annotations

import asyncio
import errno
import math
from typing import TYPE_CHECKING

from aiod_client.errors import AiodError, append_in_doubt, is_refusal

if TYPE_CHECKING:
    from aiod_client.aio.file import File, RequestFuture


class WriteBuffer:
    """The unwritten bytes of one file."""

    def __init__(self, file: File, timeout: float | None) -> None:
        self._file = file
        timeout_s = file._timeout_s(timeout)  # noqa: SLF001 - one package
        self.timeout_s = None if timeout_s == math.inf else timeout_s
        """For File.submit()."""
        self._appends = "a" in file.mode
        self._pieces: list[bytes] = []
        self._flying: RequestFuture | None = None  # it writes the first piece
        self._doubt = ""
        self.length = 0
        """Bytes that are not known to be written."""
        self.start = 0
        """Where they begin; in append mode it is not known before they are written."""

    @property
    def end(self) -> int:
        """The position after them."""
        return self.start + self.length

    def put(self, data: bytes, position: int) -> None:
        """Add `data`; `position` counts if there are no bytes yet."""
        if not self.length:
            self.start = position
        if data:
            self._pieces.append(data)
            self.length += len(data)

    async def push(self) -> None:
        """Write everything. Raises what it fails with; what was not written stays."""
        self.check()
        while self.length:
            if self._flying is None:
                self._fly()
            assert self._flying is not None  # noqa: S101 - for the type checker
            await asyncio.wait([self._flying])
            flying, self._flying = self._flying, None
            self._land(flying)

    def check(self) -> None:
        """Raise AiodError (EIO) after an append that may have been done."""
        if self._doubt:
            raise append_in_doubt(self._file.name, self._doubt)

    def drop(self) -> int:
        """Forget the bytes that are not written; returns the position after those that are."""
        self._pieces.clear()
        self.length = 0
        return self.start

    def _fly(self) -> None:
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = [piece]
        if self._appends and len(piece) > self._file.request_bytes_max:
            most = self._file.request_bytes_max
            self._pieces = [piece[:most], piece[most:]]
            piece = piece[:most]
        entry = ("append", piece) if self._appends else ("write", piece, self.start)
        (self._flying,) = self._file.submit([entry], timeout=self.timeout_s)
        self._flying.add_done_callback(_note_exception)

    def _land(self, future: RequestFuture) -> None:
        error: BaseException | None
        if future.cancelled():
            error = AiodError(errno.ECANCELED, f"{self._file.name}: a write was cancelled")
        else:
            error = future.exception()
        piece = self._pieces.pop(0)
        if error is None:
            done = len(piece)
            self.start = (future.result() if self._appends else self.start) + done
            self.length -= done
            return
        done = getattr(error, "written", 0)
        if done < len(piece):
            self._pieces.insert(0, piece[done:])
        self.start += done
        self.length -= done
        if self._appends and future._request.sent and not (isinstance(error, OSError) and is_refusal(error)):  # noqa: SLF001
            self._doubt = str(error) or type(error).__name__
        raise error


def _note_exception(future: asyncio.Future[object]) -> None:
    """Of a piece that no push waits for any more, since its file was closed: asyncio need not log it."""
    if not future.cancelled():
        future.exception()
