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

    __slots__ = ("list", "shared", "shared_bytes", "shared_index")

    def __init__(self) -> None:
        self.list: list[bytes | memoryview] = []
        """The frames. That of `shared_index` is made at the end."""
        self.shared: list[bytes | memoryview] = []
        """The pieces of the shared frame that is being filled, whose number is `shared_index`."""
        self.shared_bytes = 0
        self.shared_index = -1

    def place(self, data: Any) -> tuple[int, int]:
        """Add the bytes of one request, which are not empty; returns (frame, frame_offset)."""
        length = len(data)
        if type(data) is Pieces:
            if length >= SHARED_PAYLOAD_MAX:
                return self._place_pieces(data)
            data = b"".join(data.cut(0, length))
        elif length >= SHARED_PAYLOAD_MAX:
            self.list.append(data)
            return len(self.list) - 1, 0
        offset = self.shared_bytes
        if self.shared_index < 0 or offset + length > SHARED_FRAME_MAX:
            self.begin_shared()
            offset = 0
        self.shared.append(data)
        self.shared_bytes = offset + length
        return self.shared_index, offset

    def _place_pieces(self, pieces: Pieces) -> tuple[int, int]:
        """Add `pieces`, in consecutive frames; as place()."""
        frames = list(_frames_of(pieces.cut(0, pieces.length)))
        if len(self.list) + len(frames) > FRAMES_MAX - FRAMES_LEFT:
            frames = [b"".join(frames)]
        self.list += frames
        return len(self.list) - len(frames), 0

    def begin_shared(self) -> None:
        """Begin a shared frame; the one before is joined of its pieces (the only copy made here)."""
        if self.shared_index >= 0:
            self.list[self.shared_index] = b"".join(self.shared)
        self.shared, self.shared_bytes, self.shared_index = [], 0, len(self.list)
        self.list.append(b"")  # its place

    def frames(self) -> list[bytes | memoryview]:
        """The frames, all complete."""
        if self.shared_index >= 0:
            self.list[self.shared_index] = b"".join(self.shared)
        return self.list


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
