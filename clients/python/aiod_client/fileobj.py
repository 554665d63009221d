"""Files of aiod for code that wants Python's own: tarfile, zipfile, shutil.copyfileobj, io.BufferedReader.

    from aiod_client import fileobj

    with fileobj.open(client, "scratch/backup.tar", "w") as f, tarfile.open(fileobj=f, mode="w") as tar:
        tar.add("documents")

What is written is in the daemon's hands after flush(), as with Python's own files; safe on disk only after sync().

Writes that fail. A write that fails part-way is a short write, as of Python's own raw files: write() returns what is
known to be done, and the next write(), truncate(), flush(), sync() or close() raises the error, so that a caller that
looks at no counts (shutil.copyfileobj) hears of it too. What io's buffers keep is then exactly what is not written, and
a later flush() or close() writes that and nothing twice. In append mode an append of which nobody can know whether it
was done (the session was lost, the time was up, the device failed, a signal handler raised) is never repeated: every
write() from then on raises AiodError (EIO). Look at the file, and open it anew to go on.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, overload

from aiod_client.blocking.raw_file import RawFile

if TYPE_CHECKING:
    import os

    from aiod_client.blocking.client import Client

BUFFER_BYTES: Final = 256 * 1024
"""Default size of a buffer: a round trip costs as much as the copying of some of it."""

__all__ = ["BUFFER_BYTES", "RawFile", "open"]


@overload
def open(  # type: ignore[overload-overlap]  # noqa: A001 - 0 is an int, and gives another type
    client: Client,
    path: str | os.PathLike[str],
    mode: str,
    buffering: Literal[0],
    *,
    perm: int = 0o666,
    direct: bool = False,
) -> RawFile: ...


@overload
def open(  # noqa: A001
    client: Client,
    path: str | os.PathLike[str],
    mode: str = "r",
    buffering: int = -1,
    *,
    perm: int = 0o666,
    direct: bool = False,
) -> BinaryIO: ...


def open(  # noqa: A001 - as the builtin, which it stands for
    client: Client,
    path: str | os.PathLike[str],
    mode: str = "r",
    buffering: int = -1,
    *,
    perm: int = 0o666,
    direct: bool = False,
) -> BinaryIO | RawFile:
    """A file as the builtin has it, but of "EXPORT/PATH" and always binary.

    `buffering`: bytes of the buffer; -1: BUFFER_BYTES; 0: a RawFile without one. The rest is as Client.open() has it.
    Returns io.BufferedReader, io.BufferedWriter, io.BufferedRandom or RawFile. Raises ValueError for `buffering` of 1
    (there are no lines) or less than -1, besides what Client.open() raises.
    """
    if buffering < -1 or buffering == 1:
        raise ValueError(f"buffering {buffering}: -1, 0 or a number of bytes above 1")
    file = client.open(path, mode, perm, direct=direct)
    try:
        raw = RawFile(file)
    except BaseException:
        file.close()
        raise
    size = BUFFER_BYTES if buffering < 0 else buffering
    if size == 0:
        return raw
    if raw.readable() and raw.writable():
        return io.BufferedRandom(raw, size)
    return io.BufferedReader(raw, size) if raw.readable() else io.BufferedWriter(raw, size)
