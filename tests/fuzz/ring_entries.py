"""Submissions of a ring: whatever a client writes into its ring, each entry is answered once.

An input's first frame is entries, 64 bytes each, and the second one the content of the buffer area. They go through a
real ring of the native core, whose export has a file, a directory, a FIFO, and links that lead out. The core does not
tell its coverage: outcome() stands for it, with a branch for each way in which an entry ends. The export lies in the
current directory, where it stays, since libFuzzer ends the process at once.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiod import _core
from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENTRY: Final = struct.Struct("<QHHIQQQQIIQ")
"""struct aiod_ring_sqe, from its cookie to `reserved`."""
_COMPLETION: Final = struct.Struct("<QqIIQ")
_OFFSETS: Final = struct.Struct("<QQQ")
_SQ_TAIL, _CQ_HEAD, _CQ_TAIL, _OFFSETS_AT = 64, 128, 256, 24
_ENTRIES: Final = 8
_AREA_BYTES: Final = 128 * 1024
_LENT: Final = 4
_NAMES_MAX: Final = 64
_PATIENCE_S: Final = 60.0
_LIMITS: Final = {
    "depth_max": _ENTRIES,
    "bytes_max": 1 << 20,
    "request_bytes_max": 1 << 16,
    "batch_max": _ENTRIES,
    "handles_max": 16,
}
_REASONS: Final = frozenset(map(int, Reason))
_ALL_VERBS: Final = (1 << 32) - 1


def outcome(result: int, reason: int) -> str:
    """The way in which an entry ended."""
    if result >= 0:
        return "bytes" if result > 0 else "done"
    return _by_kernel(-result) if reason == Reason.BY_KERNEL else _refused(reason)


def _refused(reason: int) -> str:
    what = "refused"
    match reason:
        case Reason.BAD_ENTRY:
            what = "bad entry"
        case Reason.NO_HANDLE:
            what = "no handle"
        case Reason.NO_ACCESS:
            what = "no access"
        case Reason.NOT_ALLOWED:
            what = "not allowed"
        case Reason.LIMIT:
            what = "limit"
        case Reason.OUTSIDE:
            what = "outside"
        case Reason.TOO_LONG | Reason.TOO_LARGE:
            what = "too long"
    return what


def _by_kernel(number: int) -> str:
    what = "failed"
    match number:
        case errno.ENOENT:
            what = "no such file"
        case errno.EISDIR | errno.ENOTDIR:
            what = "a directory, or none"
        case errno.ELOOP | errno.ENAMETOOLONG:
            what = "a path that leads nowhere"
        case errno.EEXIST | errno.ENOTEMPTY:
            what = "it exists"
        case errno.EFBIG:
            what = "no room"
        case errno.EINVAL:
            what = "invalid"
    return what


def core_of_one_thread(name: str) -> _core.Core:
    """A core for one input after the other."""
    return _core.Core(
        name,
        max_threads=1,
        min_threads=0,
        idle_timeout_ms=1000,
        spawn_retry_ms=1000,
        inline_read_max=65536,
        buffer_cache_max=1 << 20,
        rings_max=1,
        ring_poll_max_us=0,
    )


class RingOfStranger:
    """A ring, its session with a file and with the names of an export, and that export."""

    def __init__(self) -> None:
        self._core = core_of_one_thread("fuzz-ring")
        self._secret = os.urandom(16)
        self._outside = Path("ring-of-stranger").absolute()
        self._outside.mkdir()
        self._root = self._outside / "root"
        (self._outside / "secret").write_bytes(self._secret)
        self._make_files()
        self._begin()

    def _make_files(self) -> None:
        if self._root.exists():
            self._root.chmod(0o700)
            shutil.rmtree(self._root)
        (self._root / "dir").mkdir(parents=True)
        (self._root / "file").write_bytes(b"data")
        (self._root / "dir" / "inner").write_bytes(b"inner")
        (self._root / "out").symlink_to("../secret")
        (self._root / "up").symlink_to("..")
        (self._root / "around").symlink_to("around")
        os.mkfifo(self._root / "fifo")

    def _begin(self) -> None:
        """A session: its handle 1 is a file, 2 are the names of the export, and the ring opens others."""
        self._session = _core.Session(None, client="", transport="socket", rate=None, **_LIMITS)
        file = os.memfd_create("fuzz")
        status = os.fstat(file)
        self._core.add_handle(
            *(self._session, file, status.st_dev, status.st_ino),
            readable=True,
            writable=True,
            append=False,
            alignment=None,
            ioctls=(),
            size_max=1 << 20,
            name="memory",
        )
        self._core.add_names(
            self._session,
            root=str(self._root),
            links=True,
            writable=True,
            verbs=_ALL_VERBS,
            size_max=1 << 16,
            name="export",
            mode=0o600,
            exact_mode=True,
            uid=-1,
            gid=-1,
            ioctls=(),
            rate=None,
            ioprio=0,
            keep_token=b"",
            keep_record=b"",
        )
        self._attach()

    def _attach(self) -> None:
        ours, self._socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        nbytes = self._core.attach(self._session, ours.fileno(), _ENTRIES, _AREA_BYTES)
        ours.close()
        self._ended = False
        self._attached: list[Sequence[int]] = []
        self._until(lambda: bool(self._attached), "the ring's memory is made")
        error, memory_fd, doorbell = self._attached.pop()
        assert error == 0
        self._doorbell = doorbell
        self._memory = mmap.mmap(memory_fd, nbytes)
        self._sq_offset, self._cq_offset, self._area_offset = _OFFSETS.unpack_from(self._memory, _OFFSETS_AT)
        self._tail = 0

    def _word(self, offset: int) -> int:
        return int.from_bytes(self._memory[offset : offset + 4], "little")

    def _store(self, offset: int, value: int) -> None:
        self._memory[offset : offset + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def _reap(self) -> None:
        """What the engine's main loop does."""
        self._core.spawn()
        *_, broken, attached, to_close = self._core.reap()
        for session, handle in to_close:
            self._core.close_handle(0, session, handle)
        self._attached += [result for _, *result in attached]
        self._ended |= bool(broken)

    def _until(self, done: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + _PATIENCE_S
        while not done() and not self._ended:
            assert time.monotonic() < end_s, what
            self._reap()

    def receive(self, frames: list[bytes]) -> None:
        """Submit the entries, take what they end with, and look whether the engine has kept its promises."""
        entries = [frames[0][at : at + ENTRY.size] for at in range(0, len(frames[0]), ENTRY.size)][:_ENTRIES]
        entries = [entry for entry in entries if len(entry) == ENTRY.size]
        area = b"".join(frames[1:])[:_AREA_BYTES]
        self._memory[self._area_offset : self._area_offset + len(area)] = area
        for number, entry in enumerate(entries, self._tail):
            at = self._sq_offset + ENTRY.size * (number % _ENTRIES)
            self._memory[at : at + ENTRY.size] = entry
        first, self._tail = self._tail, self._tail + len(entries)
        self._store(_SQ_TAIL, self._tail)
        os.eventfd_write(self._doorbell, 1)
        self._until(lambda: self._word(_CQ_TAIL) == self._tail & 0xFFFFFFFF, "each entry is answered")
        assert not self._ended, "no entry breaks a rule for which a session is ended"
        self._take(first, entries)
        self._close_opened()
        self._look_around()

    def _take(self, first: int, entries: list[bytes]) -> None:
        completions = [
            _COMPLETION.unpack_from(self._memory, self._cq_offset + _COMPLETION.size * (number % _ENTRIES))
            for number in range(first, self._tail)
        ]
        self._store(_CQ_HEAD, self._tail)
        assert sorted(each[0] for each in completions) == sorted(ENTRY.unpack(entry)[0] for entry in entries)
        for _, result, _, reason, _ in completions:
            assert result >= -4095
            assert result >= 0 or reason in _REASONS
            outcome(result, reason)

    def _close_opened(self) -> None:
        for handle, _, fd, *_ in self._core.collect_opened(self._session, everything=True, again=False):
            if fd >= 0:
                os.close(fd)
            self._core.close_handle(0, self._session, handle)
        self._until(lambda: self._core.inflight == 0, "what is closed is closed")
        self._core.lend_handles(self._session, _LENT - self._core.lent)

    def _look_around(self) -> None:
        """Nothing outside the export is read or changed, and the next input finds what it expects."""
        area = self._memory[self._area_offset : self._area_offset + _AREA_BYTES]
        assert self._secret not in area
        assert {path.name for path in self._outside.iterdir()} == {"root", "secret"}
        assert (self._outside / "secret").read_bytes() == self._secret
        self._root.chmod(0o700)
        names = {path.name for path in self._root.iterdir()}
        if len(names) > _NAMES_MAX or not names >= {"file", "dir", "out", "up", "around", "fifo"}:
            self._make_files()
