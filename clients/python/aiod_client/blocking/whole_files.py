"""Whole files and stats by path, for the blocking client: by the ring where it can, else by messages."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod_client.blocking.export_names import by_message, names_of
from aiod_client.records import FileStat, parse_stat
from aiod_client.requests.paths import parse_path
from aiod_client.requests.whole_files import UNKNOWN_SIZE_PART, directory_of, temporary_name, too_large
from aiod_client.ring.paths import STAT_BYTES, WITH_STAT, failed_on_path, larger_room
from aiod_protocol.operations import Op, OpFlag
from aiod_protocol.wire import STAT

if TYPE_CHECKING:
    from aiod_client.blocking.file import File
    from aiod_client.blocking.link import Link
    from aiod_protocol.key_files import StrPath

_READ_FILE: Final = int(Op.READ_FILE)
_STAT_NAME: Final = int(Op.STAT_NAME)
_WRITE_FILE: Final = int(Op.WRITE_FILE)
_DURABLE: Final = int(OpFlag.FUA)
_EXCLUSIVE: Final = int(OpFlag.EXCLUSIVE)
_TRIES: Final = 8
"""How often READ_FILE is tried of a file that grows."""


class Client(Protocol):
    """The methods of Client that are used here."""

    def open(self, path: StrPath, mode: str = "r", *, timeout: float | None = None) -> File:
        """Open a file."""

    def rename(self, path: str, new_path: str, *, replace: bool = True, timeout: float | None = None) -> None:
        """Rename a file."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def sync(self, path: str, *, timeout: float | None = None) -> None:
        """Make the entries of a directory durable."""

    def _link(self, export: str, deadline_s: float) -> Link:
        """The session where `export` is served."""


def read_file(client: Client, path: StrPath, max_bytes: int, timeout_s: float, flags: int = 0) -> bytes:
    """See Client.read_file(). With `flags` WITH_STAT the record of STAT comes before the bytes."""
    export, inside = parse_path(path)
    deadline_s = time.monotonic() + timeout_s
    room: int | None = None
    for _ in range(_TRIES):
        link, paths, handle = names_of(client, export, deadline_s)
        if paths is None:
            break
        room = room or paths.room
        found = paths.ring.on_path(_READ_FILE, flags, handle, inside, None, room, deadline_s - time.monotonic())
        if type(found) is bytes:
            length = len(found) - (STAT_BYTES if flags else 0)
            if length > max_bytes:
                raise too_large(os.fspath(path), length, max_bytes)
            return found
        if type(found) is not tuple or by_message(link, paths, export, handle, found):
            break
        size = larger_room(found, room)
        if size is None:
            raise failed_on_path("read", os.fspath(path), found, timeout_s)
        if size > max_bytes:
            raise too_large(os.fspath(path), size, max_bytes)
        room = paths.room_for(inside, size)
        if room is None:
            break
    with client.open(path, timeout=_left_s(deadline_s)) as file:
        record = STAT.pack(*file.stat(timeout=_left_s(deadline_s))) if flags else b""
        data = _read_opened(file, os.fspath(path), max_bytes, deadline_s)
        return record + data if flags else data


def read_file_and_stat(client: Client, path: StrPath, max_bytes: int, timeout_s: float) -> tuple[bytes, FileStat]:
    """See Client.read_file_and_stat()."""
    found = read_file(client, path, max_bytes, timeout_s, WITH_STAT)
    return found[STAT_BYTES:], parse_stat(found[:STAT_BYTES])


def _left_s(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())


def _read_opened(file: File, path: str, max_bytes: int, deadline_s: float) -> bytes:
    size = file.size(timeout=_left_s(deadline_s))
    if size > max_bytes:
        raise too_large(path, size, max_bytes)
    if size > 0:
        return file.pread(size, 0, timeout=_left_s(deadline_s))
    parts = bytearray()
    while part := file.pread(UNKNOWN_SIZE_PART, len(parts), timeout=_left_s(deadline_s)):
        parts += part
        if len(parts) > max_bytes:
            raise too_large(path, len(parts), max_bytes)
    return bytes(parts)


def stat(client: Client, path: StrPath, timeout_s: float) -> bytes | None:
    """The record of Client.stat(), by the ring; None: by message."""
    export, inside = parse_path(path)
    link, paths, handle = names_of(client, export, time.monotonic() + timeout_s)
    if paths is None:
        return None
    found = paths.ring.on_path(_STAT_NAME, 0, handle, inside, None, STAT_BYTES, timeout_s)
    if type(found) is bytes:
        return found
    if type(found) is not tuple or by_message(link, paths, export, handle, found):
        return None
    raise failed_on_path("stat", os.fspath(path), found, timeout_s)


def write_file(client: Client, path: StrPath, data: Any, timeout_s: float, *, durable: bool, exclusive: bool) -> None:
    """See Client.write_file()."""
    export, inside = parse_path(path)
    deadline_s = time.monotonic() + timeout_s
    link, paths, handle = names_of(client, export, deadline_s)
    if paths is not None:
        flags = (_DURABLE if durable else 0) | (_EXCLUSIVE if exclusive else 0)
        found = paths.ring.on_path(_WRITE_FILE, flags, handle, inside, data, 0, _left_s(deadline_s))
        if type(found) is int:
            return
        if type(found) is tuple and not by_message(link, paths, export, handle, found, may_repeat=False):
            raise failed_on_path("write", os.fspath(path), found, timeout_s)
    _write_by_messages(client, os.fspath(path), data, deadline_s, durable=durable, exclusive=exclusive)


def _write_by_messages(
    client: Client, path: str, data: Any, deadline_s: float, *, durable: bool, exclusive: bool
) -> None:
    temporary = temporary_name(path)
    file = client.open(temporary, "x", timeout=_left_s(deadline_s))
    try:
        with file:
            file.pwrite(data, 0, timeout=_left_s(deadline_s))
            if durable:
                file.flush(timeout=_left_s(deadline_s))
        client.rename(temporary, path, replace=not exclusive, timeout=_left_s(deadline_s))
    except BaseException:
        with contextlib.suppress(OSError):
            client.remove(temporary)
        raise
    if durable:
        client.sync(directory_of(path), timeout=_left_s(deadline_s))
