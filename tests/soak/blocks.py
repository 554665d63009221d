"""Blocks that say who they are, and an oracle that knows what may stand in them."""

from __future__ import annotations

import struct
import zlib

BLOCK_BYTES = 4096

_HEAD = struct.Struct("<QQI")  # address, generation, checksum of all the rest


def make(address: int, generation: int) -> bytes:
    """The block at `address` (its number) as the write `generation` leaves it."""
    filling = struct.pack("<QQ", address, generation) * ((BLOCK_BYTES - _HEAD.size) // 16 + 1)
    rest = filling[: BLOCK_BYTES - _HEAD.size]
    return _HEAD.pack(address, generation, zlib.crc32(rest)) + rest


def generation_of(block: bytes, address: int) -> int | None:
    """Which write has left it: 0 for none yet; None: it is not whole, or stands in the wrong place."""
    if block == bytes(BLOCK_BYTES):
        return 0
    found, generation, checksum = _HEAD.unpack_from(block)
    return generation if found == address and zlib.crc32(block[_HEAD.size :]) == checksum else None


class Oracle:
    """What has been acknowledged of one file, and what may have been done besides. One thread."""

    def __init__(self, count: int) -> None:
        """For a file of `count` blocks, all zeroes."""
        self._acknowledged = [0] * count
        self._possible: list[set[int]] = [set() for _ in range(count)]

    def acknowledged(self, address: int, generation: int) -> None:
        """That write has ended well."""
        self._acknowledged[address] = generation
        self._possible[address].clear()

    def unknown(self, address: int, generation: int) -> None:
        """Nobody knows whether that write was done."""
        self._possible[address].add(generation)

    def check(self, address: int, block: bytes) -> str:
        """What is wrong with what was read; empty: nothing."""
        generation = generation_of(block, address)
        if generation is None:
            return f"block {address} is torn, or another one"
        if generation != self._acknowledged[address] and generation not in self._possible[address]:
            known = f"{self._acknowledged[address]} was acknowledged, {sorted(self._possible[address])} are possible"
            return f"block {address} has generation {generation}: {known}"
        return ""
