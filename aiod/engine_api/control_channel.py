"""The control channel between the supervisor and one engine: length-prefixed msgpack maps on a socketpair.

The supervisor asks `{"id": n, "verb": ...}`; the engine answers `{"id": n, "ok": bool, "body": ..., "error": message}`,
and sends events `{"event": name, ...}` without an id. End of file means that the other process has gone.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Final, Self

import msgpack

if TYPE_CHECKING:
    import socket

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Largest message (bytes). The `clients` answer of a thousand sessions with their histograms is far smaller."""

_LENGTH: Final = struct.Struct("<I")

Message = dict[str, Any]


class ChannelError(OSError):
    """The other end has sent a malformed message, and the channel is unusable."""


class Channel:
    """One end of a control channel. Main loop thread only; one task may iterate over it, any may send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Self:
        """A channel on `end` of a socketpair; the channel owns it from now on."""
        reader, writer = await asyncio.open_connection(sock=end)
        return cls(reader, writer)

    async def send(self, message: Message) -> None:
        """Send one message. Raises ConnectionError when the other process has gone."""
        packed: bytes = msgpack.packb(message, use_bin_type=True)
        if len(packed) > MESSAGE_BYTES_MAX:
            raise ChannelError(f"a control message of {len(packed)} bytes: at most {MESSAGE_BYTES_MAX} are accepted")
        # One call of write(), so that messages of several tasks never interleave.
        self._writer.write(_LENGTH.pack(len(packed)) + packed)
        await self._writer.drain()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message. The iteration ends at end of file, even in the middle of a message.

        Raises ChannelError for a malformed message.
        """
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > MESSAGE_BYTES_MAX:
                raise ChannelError(f"a control message of {length} bytes announced: at most {MESSAGE_BYTES_MAX}")
            packed = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise StopAsyncIteration from None
        return _unpack(packed)

    def close(self) -> None:
        """Close this end; messages sent before are still delivered. Idempotent."""
        self._writer.close()


def _unpack(packed: bytes) -> Message:
    try:
        message = msgpack.unpackb(packed, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ChannelError(f"a control message is not msgpack: {error}") from error
    if not isinstance(message, dict):
        raise ChannelError(f"a control message must be a map, not {type(message).__name__}")
    return message
