"""Files of aiod for code that needs Python's own kind: tarfile, zipfile, shutil.copyfileobj, io.BufferedReader.

    from aiod_client import fileobj

    with fileobj.open(client, "scratch/backup.tar", "w") as f, tarfile.open(fileobj=f, mode="w") as tar:
        tar.add("documents")

Data is in the daemon after flush(), as it is in the kernel with Python's own files; it is durable only after sync().

Writes that fail. A write that fails part-way is a short write, as of Python's own raw files: write() returns the bytes
known to be written, and the next write(), truncate(), flush(), sync() or close() raises the error, so that a caller
that checks no counts (shutil.copyfileobj) notices it, too. io's buffers then keep exactly the bytes that are not
written; a later flush() or close() writes these and nothing twice. In append mode an append with an unknown outcome
(the session was lost, a timeout, a device error, a signal handler that raised) is never repeated: every later write()
raises AiodError (EIO). Check the file, and open it again to continue.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, overload

from aiod_client.blocking.raw_file import RawFile

if TYPE_CHECKING:
    import os

    from aiod_client.blocking.client import Client

BUFFER_BYTES: Final = 256 * 1024
"""Default size of a buffer (bytes): it keeps the cost of round trips below that of copying."""

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
    """Open "EXPORT/PATH" as the built-in function opens a file, but always in binary mode.

    `buffering` is the size of the buffer in bytes; -1: BUFFER_BYTES; 0: a RawFile without a buffer. The other arguments
    are those of Client.open(). Returns io.BufferedReader, io.BufferedWriter, io.BufferedRandom or RawFile. Raises
    ValueError for a `buffering` of 1 (there are no lines) or less than -1, and what Client.open() raises.
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
