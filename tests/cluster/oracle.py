"""What a file may contain after hosts were lost: every flushed write, and no torn or foreign block.

A write is a generation of a block. The block's floor is the newest generation that a successful flush has covered: an
older one is never read again. A block may go back to its floor when a host is lost, but then the next flush has to
fail: otherwise a write was lost without notice. A write of unknown outcome may be carried out any time later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.soak.blocks import generation_of


@dataclass(slots=True)
class _Block:
    floor: int = 0
    acknowledged: int = 0
    since: set[int] = field(default_factory=set)
    """Generations that were acknowledged after the floor."""
    doubtful: set[int] = field(default_factory=set)
    """Generations of unknown outcome."""
    settled: bool = True
    """Whether `acknowledged` must be there; else one of `since`, or the floor."""


class Oracle:
    """The writes of one file. One thread."""

    def __init__(self, count: int) -> None:
        """The file has `count` blocks, all zeroes."""
        self._blocks = [_Block() for _ in range(count)]
        self._unreported: set[int] = set()

    def acknowledged(self, address: int, generation: int) -> None:
        """The write was acknowledged."""
        block = self._blocks[address]
        block.acknowledged, block.settled = generation, True
        block.since.add(generation)

    def unknown(self, address: int, generation: int) -> None:
        """The outcome of the write is unknown."""
        self._blocks[address].doubtful.add(generation)

    def flushed(self) -> list[str]:
        """A flush succeeded. Descriptions of writes that are lost, and that it did not report."""
        silent = [f"block {address} went back, and the next flush succeeded" for address in sorted(self._unreported)]
        self._unreported.clear()
        for block in self._blocks:
            if block.settled:
                block.floor = block.acknowledged
                block.since = {generation for generation in block.since if generation > block.floor}
        return silent

    def flush_failed(self) -> None:
        """A flush reported that writes may be lost."""
        self._unreported.clear()
        for block in self._blocks:
            block.settled = not block.since - {block.floor} and not block.doubtful

    def check(self, address: int, content: bytes) -> str:
        """Describes the error in a block that was read; empty: it is valid."""
        block = self._blocks[address]
        generation = generation_of(content, address)
        if generation is None:
            return f"block {address} is torn, or another one"
        if generation in block.doubtful or (generation == block.acknowledged and block.settled):
            return ""
        if generation == block.floor or generation in block.since:
            if block.settled:
                self._unreported.add(address)
            block.acknowledged, block.settled = generation, True
            return ""
        if generation < block.floor:
            return f"block {address} has generation {generation}: {block.floor} was flushed"
        return f"block {address} has generation {generation}, which was never written"
