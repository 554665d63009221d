"""Blocks that contain their address and generation, and an oracle of the contents that they may have."""

from __future__ import annotations

import struct
import zlib

BLOCK_BYTES = 4096

_HEAD = struct.Struct("<QQI")  # address, generation, checksum of all the rest


def make(address: int, generation: int) -> bytes:
    """Content of the block number `address` after the write `generation`."""
    filling = struct.pack("<QQ", address, generation) * ((BLOCK_BYTES - _HEAD.size) // 16 + 1)
    rest = filling[: BLOCK_BYTES - _HEAD.size]
    return _HEAD.pack(address, generation, zlib.crc32(rest)) + rest


def generation_of(block: bytes, address: int) -> int | None:
    """Generation of the block: 0: never written; None: it is torn, or at the wrong address."""
    if block == bytes(BLOCK_BYTES):
        return 0
    found, generation, checksum = _HEAD.unpack_from(block)
    return generation if found == address and zlib.crc32(block[_HEAD.size :]) == checksum else None


class Oracle:
    """Acknowledged and possible writes of one file. One thread."""

    def __init__(self, count: int) -> None:
        """The file has `count` blocks, all zeroes."""
        self._acknowledged = [0] * count
        self._possible: list[set[int]] = [set() for _ in range(count)]

    def acknowledged(self, address: int, generation: int) -> None:
        """The write was acknowledged."""
        self._acknowledged[address] = generation
        self._possible[address].clear()

    def unknown(self, address: int, generation: int) -> None:
        """The outcome of the write is unknown."""
        self._possible[address].add(generation)

    def check(self, address: int, block: bytes) -> str:
        """Describes the error in a block that was read; empty: it is valid."""
        generation = generation_of(block, address)
        if generation is None:
            return f"block {address} is torn, or another one"
        if generation != self._acknowledged[address] and generation not in self._possible[address]:
            known = f"{self._acknowledged[address]} was acknowledged, {sorted(self._possible[address])} are possible"
            return f"block {address} has generation {generation}: {known}"
        return ""
