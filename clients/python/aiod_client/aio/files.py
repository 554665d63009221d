r"""Files with a position for asyncio, by the interface of aiofiles.

    from aiod_client.aio import files as aiofiles

    async with aiofiles.open("scratch/notes.txt", "w") as f:
        await f.write("one line\n")
    async with aiofiles.open("scratch/notes.txt") as f:
        async for line in f:
            print(line)

Without a client open() uses one of its own for each event loop, connected to the daemon that connect() would take.
"""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, overload

from aiod_client.aio.binary_file import BUFFER_BYTES, BinaryFile
from aiod_client.aio.client import Client
from aiod_client.aio.text_file import TextFile
from aiod_client.base_client import TIMEOUT_S, restore
from aiod_client.endpoint import default_endpoint

if TYPE_CHECKING:
    import os
    from collections.abc import Coroutine, Generator
    from types import TracebackType

    TextMode = Literal[
        "r", "w", "x", "a", "r+", "w+", "x+", "a+",
        "rt", "tr", "wt", "tw", "xt", "tx", "at", "ta",
        "r+t", "rt+", "w+t", "wt+", "x+t", "xt+", "a+t", "at+",
    ]  # fmt: skip
    BinaryMode = Literal[
        "rb", "br", "wb", "bw", "xb", "bx", "ab", "ba",
        "r+b", "rb+", "w+b", "wb+", "x+b", "xb+", "a+b", "ab+",
    ]  # fmt: skip

__all__ = ["BUFFER_BYTES", "BinaryFile", "Opening", "TextFile", "open"]

F = TypeVar("F", bound=BinaryFile | TextFile)

_clients: Final[dict[asyncio.AbstractEventLoop, Client]] = {}


class Opening(Generic[F]):
    """What open() returns: awaited it gives a file; in `async with` the file is closed at the end."""

    def __init__(self, opening: Coroutine[Any, Any, F]) -> None:
        self._opening = opening
        self._file: F | None = None

    def __await__(self) -> Generator[Any, None, F]:
        """Open the file."""
        return self._opening.__await__()

    async def __aenter__(self) -> F:
        """Open the file."""
        self._file = await self._opening
        return self._file

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        if self._file is not None:
            await self._file.close()


@overload
def open(  # noqa: A001 - as aiofiles
    path: str | os.PathLike[str],
    mode: TextMode = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    client: Client | None = None,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> Opening[TextFile]: ...


@overload
def open(  # noqa: A001
    path: str | os.PathLike[str],
    mode: BinaryMode,
    buffering: int = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    *,
    client: Client | None = None,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> Opening[BinaryFile]: ...


@overload
def open(  # noqa: A001
    path: str | os.PathLike[str],
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    client: Client | None = None,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> Opening[Any]: ...


def open(  # noqa: A001, PLR0913
    path: str | os.PathLike[str],
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    client: Client | None = None,
    perm: int = 0o666,
    direct: bool = False,
    timeout: float | None = None,
) -> Opening[Any]:
    """Open "EXPORT/PATH" as the built-in function and aiofiles.open() do: `await` it, or use it in `async with`.

    `buffering` is the size of the buffer in bytes; -1: BUFFER_BYTES; 0, for bytes only: no buffer; 1, for text only:
    each line is written when it is complete. `timeout` (seconds) is that of the open and of each later request; None:
    the client's. `perm` and `direct` are those of Client.open(), `client` is its client; None: one of the loop's own.

    Gives a TextFile, with a "b" in `mode` a BinaryFile. Raises ValueError for arguments that do not fit together, and
    what Client.open() raises.
    """
    binary = "b" in mode
    if binary and "t" in mode:
        raise ValueError(f"invalid mode {mode!r}: text and binary exclude each other")
    for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
        if value is not None and binary:
            raise ValueError(f"{name} is for text, and the mode {mode!r} is binary")
    if buffering < -1 or buffering == (1 if binary else 0):
        raise ValueError(f"buffering {buffering}: -1, {0 if binary else 1} or a number of bytes above 1")
    size = BUFFER_BYTES if buffering == -1 or (buffering == 1 and not binary) else buffering
    opening = _open_binary(path, mode, size, client, perm, timeout, direct=direct)
    if binary:
        return Opening(opening)
    try:
        codec = io.TextIOWrapper(io.BytesIO(), encoding, errors, newline)
    except BaseException:
        opening.close()
        raise
    return Opening(_open_text(opening, mode, codec, newline, line_buffering=buffering == 1))


async def _open_binary(
    path: str | os.PathLike[str],
    mode: str,
    size: int,
    client: Client | None,
    perm: int,
    timeout: float | None,  # noqa: ASYNC109
    *,
    direct: bool,
) -> BinaryFile:
    client = client or await _client_of_loop()
    file = await client.open(path, mode.replace("t", "", 1), perm, direct=direct, timeout=timeout)
    try:
        position = await file.size(timeout=timeout) if "a" in mode else 0
    except BaseException:
        await file.close()
        raise
    return BinaryFile(file, mode, size, position, timeout)


async def _open_text(
    opening: Coroutine[Any, Any, BinaryFile],
    mode: str,
    codec: io.TextIOWrapper,
    newline: str | None,
    *,
    line_buffering: bool,
) -> TextFile:
    return TextFile(await opening, mode, codec, newline, line_buffering=line_buffering)


async def _client_of_loop() -> Client:
    """The client of the running loop. Those of loops that have ended are closed."""
    loop = asyncio.get_running_loop()
    for ended in [each for each in list(_clients) if each.is_closed()]:
        client = _clients.pop(ended, None)
        if client is not None:
            await client.close()
    client = _clients.get(loop)
    if client is None or client.closed or client._is_forked():  # noqa: SLF001 - one package
        made = restore(Client, default_endpoint(), TIMEOUT_S, "auto", None, None, None)
        assert isinstance(made, Client)  # noqa: S101 - for the type checker
        client = _clients[loop] = made
    return client
