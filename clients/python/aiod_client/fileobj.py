"""Files of aiod for code that needs Python's own kind: tarfile, zipfile, shutil.copyfileobj, io.BufferedReader.

    from aiod_client import fileobj

    with fileobj.open(client, "scratch/backup.tar", "w") as f, tarfile.open(fileobj=f, mode="w") as tar:
        tar.add("documents")
    with fileobj.open(client, "scratch/notes.txt", "rt", encoding="utf-8") as text:
        print(text.readline())

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
from typing import IO, TYPE_CHECKING, Any, Final, Literal, overload

from aiod_client.blocking.raw_file import RawFile

if TYPE_CHECKING:
    import os

    from aiod_client.blocking.client import Client

    TextMode = Literal[
        "rt", "tr", "wt", "tw", "xt", "tx", "at", "ta",
        "r+t", "rt+", "w+t", "wt+", "x+t", "xt+", "a+t", "at+",
    ]  # fmt: skip
    ReadMode = Literal["r", "rb", "br"]
    WriteMode = Literal["w", "wb", "bw", "x", "xb", "bx", "a", "ab", "ba"]
    UpdateMode = Literal["r+", "rb+", "r+b", "w+", "wb+", "w+b", "x+", "xb+", "x+b", "a+", "ab+", "a+b"]

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
    timeout: float | None = None,
) -> RawFile: ...


@overload
def open(  # noqa: A001
    client: Client,
    path: str | os.PathLike[str],
    mode: TextMode,
    buffering: int = -1,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> io.TextIOWrapper: ...


@overload
def open(  # noqa: A001
    client: Client,
    path: str | os.PathLike[str],
    mode: ReadMode = "r",
    buffering: int = -1,
    *,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> io.BufferedReader: ...


@overload
def open(  # noqa: A001
    client: Client,
    path: str | os.PathLike[str],
    mode: WriteMode,
    buffering: int = -1,
    *,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> io.BufferedWriter: ...


@overload
def open(  # noqa: A001
    client: Client,
    path: str | os.PathLike[str],
    mode: UpdateMode,
    buffering: int = -1,
    *,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> io.BufferedRandom: ...


@overload
def open(  # noqa: A001
    client: Client,
    path: str | os.PathLike[str],
    mode: str,
    buffering: int = -1,
    *,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> IO[Any]: ...


def open(  # noqa: A001, PLR0913 - as the builtin, which it stands for
    client: Client,
    path: str | os.PathLike[str],
    mode: str = "r",
    buffering: int = -1,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> IO[Any] | RawFile:
    """Open "EXPORT/PATH" as the built-in function opens a file, but as text only with a "t" in `mode`.

    `buffering` is the size of the buffer in bytes; -1: BUFFER_BYTES; 0: a RawFile without a buffer; 1, for text only:
    each line is written when it is complete. `encoding`, `errors` and `newline` are those of the built-in function, for
    text only. `timeout` (seconds) is that of the open and of each request after it; None: the client's. `perm` and
    `direct` are those of Client.open().

    Returns io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper or RawFile. Raises ValueError for
    arguments that do not fit together, and what Client.open() raises.
    """
    text = "t" in mode
    if text and "b" in mode:
        raise ValueError(f"invalid mode {mode!r}: text and binary exclude each other")
    for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
        if value is not None and not text:
            raise ValueError(f"{name} is for text: add a t to the mode {mode!r}")
    if buffering < -1 or buffering == (0 if text else 1):
        raise ValueError(f"buffering {buffering}: -1, {1 if text else 0} or a number of bytes above 1")
    if text:
        io.TextIOWrapper(io.BytesIO(), encoding, errors, newline)  # checks them before a file is truncated
    raw = _open_raw(client, path, mode.replace("t", "", 1), perm, timeout, direct=direct)
    if buffering == 0:
        return raw
    buffered = _buffered(raw, BUFFER_BYTES if buffering in (-1, 1) else buffering)
    if not text:
        return buffered
    wrapper = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
    wrapper.mode = mode  # type: ignore[misc]  # as the built-in function does
    return wrapper


def _open_raw(
    client: Client, path: str | os.PathLike[str], mode: str, perm: int, timeout: float | None, *, direct: bool
) -> RawFile:
    file = client.open(path, mode, perm, direct=direct, timeout=timeout)
    try:
        return RawFile(file, timeout)
    except BaseException:
        file.close()
        raise


def _buffered(raw: RawFile, size: int) -> io.BufferedReader | io.BufferedWriter | io.BufferedRandom:
    if raw.readable() and raw.writable():
        return io.BufferedRandom(raw, size)
    return io.BufferedReader(raw, size) if raw.readable() else io.BufferedWriter(raw, size)
