"""The payload of a SUBMIT: which frame the bytes of each request are in. Copies as little as the frames allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiod_protocol.wire import FRAMES_MAX, SHARED_FRAME_MAX, SHARED_PAYLOAD_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FRAMES_LEFT: Final = FRAMES_MAX // 2
"""The part of FRAMES_MAX for requests with one frame each: a message has no more such requests."""


class Pieces:
    """The buffers of one vectored request, addressed as one buffer."""

    __slots__ = ("_views", "length")

    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views = views
        self.length = sum(map(len, views))

    def __len__(self) -> int:
        return self.length

    def cut(self, start: int, length: int) -> Iterator[memoryview]:
        """Views of the `length` bytes from `start` on, none of them empty."""
        for view in self._views:
            if length <= 0:
                return
            if start >= len(view):
                start -= len(view)
                continue
            part = view[start : start + length]
            yield part
            start, length = 0, length - len(part)

    def put(self, start: int, data: bytes | memoryview) -> None:
        """Copy `data` to the bytes from `start` on."""
        at = 0
        for part in self.cut(start, len(data)):
            part[:] = data[at : at + len(part)]
            at += len(part)


Buffer = bytes | memoryview | Pieces
"""The bytes of a request, or where they go."""


def put(buffer: Buffer, start: int, data: bytes | memoryview) -> None:
    """Copy `data` into the caller's buffer."""
    if type(buffer) is Pieces:
        buffer.put(start, data)
    else:
        buffer[start : start + len(data)] = data  # type: ignore[index]


class Payload:
    """The payload frames of one SUBMIT under construction."""

    __slots__ = ("_frames", "_shared", "_shared_bytes", "_shared_index")

    def __init__(self) -> None:
        self._frames: list[bytes | memoryview] = []
        self._shared: list[bytes | memoryview] = []  # of the shared frame that is being filled
        self._shared_bytes = 0
        self._shared_index = -1

    def place(self, data: Any) -> tuple[int, int]:
        """Add the bytes of one request, which are not empty; returns (frame, frame_offset)."""
        length = len(data)
        if type(data) is Pieces:
            if length >= SHARED_PAYLOAD_MAX:
                return self._place_pieces(data)
            data = b"".join(data.cut(0, length))
        elif length >= SHARED_PAYLOAD_MAX:
            self._frames.append(data)
            return len(self._frames) - 1, 0
        offset = self._shared_bytes
        if self._shared_index < 0 or offset + length > SHARED_FRAME_MAX:
            self._close_shared()
            offset = 0
        self._shared.append(data)
        self._shared_bytes = offset + length
        return self._shared_index, offset

    def _place_pieces(self, pieces: Pieces) -> tuple[int, int]:
        """Add `pieces`, in consecutive frames; as place()."""
        frames = list(_frames_of(pieces.cut(0, pieces.length)))
        if len(self._frames) + len(frames) > FRAMES_MAX - FRAMES_LEFT:
            frames = [b"".join(frames)]
        self._frames += frames
        return len(self._frames) - len(frames), 0

    def _close_shared(self) -> None:
        """Join the pieces of the shared frame (the only copy made here) and begin another one."""
        if self._shared_index >= 0:
            self._frames[self._shared_index] = b"".join(self._shared)
        self._shared, self._shared_bytes, self._shared_index = [], 0, len(self._frames)
        self._frames.append(b"")  # its place

    def frames(self) -> list[bytes | memoryview]:
        """The frames, all complete."""
        if self._shared_index >= 0:
            self._frames[self._shared_index] = b"".join(self._shared)
        return self._frames


def _frames_of(pieces: Iterator[memoryview]) -> Iterator[bytes | memoryview]:
    """The frames for `pieces`: large pieces as they are, adjacent small ones joined."""
    small: list[memoryview] = []
    small_bytes = 0
    for piece in pieces:
        if len(piece) < SHARED_PAYLOAD_MAX:
            small.append(piece)
            small_bytes += len(piece)
            if small_bytes < SHARED_FRAME_MAX - SHARED_PAYLOAD_MAX:
                continue
        if small:
            yield b"".join(small)
            small, small_bytes = [], 0
        if len(piece) >= SHARED_PAYLOAD_MAX:
            yield piece
    if small:
        yield b"".join(small)
