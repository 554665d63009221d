"""The operations of a submission record, and what they have in common; docs/operations.md says what each means.

The list is protocol/operations.def; a test holds this one equal to it.
"""

from __future__ import annotations

import enum
from typing import Final


class Op(enum.IntEnum):
    """An operation's number in a submission record."""

    READ = 1
    WRITE = 2
    FLUSH = 3
    SIZE = 4
    DISCARD = 5
    WRITE_ZEROES = 6
    TRUNCATE = 7
    ALLOCATE = 8
    EXTENTS = 9
    COPY_RANGE = 10
    PREFETCH = 11
    STAT = 12
    IOCTL = 13
    APPEND = 14
    READ_FILE = 15
    STAT_NAME = 16
    WRITE_FILE = 17
    OPEN_FILE = 18
    CLOSE_FILE = 19
    NAME = 20
    OPEN_WRITABLE = 21


class OpFlag(enum.IntFlag):
    """Bits of a submission record's flags."""

    FUA = 1
    UNMAP = 2
    KEEP_SIZE = 4
    EXCLUSIVE = 8
    FAST = 16
    REPEAT = 0x8000


class OpProperty(enum.Flag):
    """Properties of an operation; protocol/op_properties.h says what they mean."""

    CHARGED = enum.auto()
    BOUNDED = enum.auto()
    PAYLOAD = enum.auto()
    REPLIES = enum.auto()
    COSTS = enum.auto()
    MOVES = enum.auto()
    ENLARGES = enum.auto()
    CHANGES = enum.auto()
    REPEATABLE = enum.auto()
    GROUPED = enum.auto()
    PATH = enum.auto()
    RING_ONLY = enum.auto()
    RANGE = enum.auto()
    """It is about a range: uses `offset` and `length` of the record."""
    RING = enum.auto()
    """A ring carries it."""


_P: Final = OpProperty

PROPERTIES: Final[dict[Op, OpProperty]] = {
    Op.READ: _P.RANGE | _P.CHARGED | _P.REPLIES | _P.COSTS | _P.MOVES | _P.RING,
    Op.WRITE: (
        _P.RANGE | _P.CHARGED | _P.PAYLOAD | _P.COSTS | _P.MOVES | _P.ENLARGES | _P.CHANGES | _P.REPEATABLE | _P.RING
    ),
    Op.FLUSH: _P.GROUPED | _P.RING,
    Op.SIZE: _P.RING,
    Op.DISCARD: _P.RANGE | _P.CHANGES | _P.REPEATABLE | _P.RING,
    Op.WRITE_ZEROES: _P.RANGE | _P.BOUNDED | _P.COSTS | _P.ENLARGES | _P.CHANGES | _P.REPEATABLE | _P.RING,
    Op.TRUNCATE: _P.ENLARGES | _P.CHANGES | _P.RING,
    Op.ALLOCATE: _P.RANGE | _P.ENLARGES | _P.CHANGES | _P.RING,
    Op.EXTENTS: _P.RANGE | _P.REPLIES | _P.RING,
    Op.COPY_RANGE: _P.RANGE | _P.BOUNDED | _P.COSTS | _P.MOVES | _P.ENLARGES | _P.CHANGES | _P.REPEATABLE | _P.RING,
    Op.PREFETCH: _P.RANGE | _P.RING,
    Op.STAT: _P.REPLIES | _P.RING,
    Op.IOCTL: _P.RANGE | _P.CHARGED | _P.PAYLOAD | _P.REPLIES | _P.CHANGES,
    Op.APPEND: _P.CHARGED | _P.PAYLOAD | _P.COSTS | _P.MOVES | _P.CHANGES | _P.RING,
    Op.READ_FILE: _P.CHARGED | _P.REPLIES | _P.COSTS | _P.MOVES | _P.PATH | _P.RING,
    Op.STAT_NAME: _P.REPLIES | _P.PATH | _P.RING,
    Op.WRITE_FILE: (_P.CHARGED | _P.PAYLOAD | _P.COSTS | _P.MOVES | _P.ENLARGES | _P.CHANGES | _P.PATH | _P.RING),
    Op.OPEN_FILE: _P.REPLIES | _P.PATH | _P.RING,
    Op.CLOSE_FILE: _P.CHANGES | _P.RING_ONLY | _P.RING,
    Op.NAME: _P.REPLIES | _P.CHANGES | _P.PATH | _P.RING,
    Op.OPEN_WRITABLE: _P.REPLIES | _P.CHANGES | _P.PATH | _P.RING,
}

_NAMES: Final = {int(op): op.name.lower() for op in Op}


def operations_with(wanted: OpProperty) -> frozenset[int]:
    """The numbers of the operations that have `wanted`."""
    return frozenset(int(op) for op, properties in PROPERTIES.items() if wanted in properties)


# What is asked about each request is looked up in a set of numbers.
_UNCHANGING: Final = frozenset(map(int, PROPERTIES)) - operations_with(OpProperty.CHANGES)
_REPEATABLE: Final = operations_with(OpProperty.REPEATABLE)


def changes_file(op: int) -> bool:
    """Whether it may change a file. An operation that the table does not list may."""
    return op not in _UNCHANGING


def may_repeat(op: int) -> bool:
    """Whether it may be executed twice. An operation that the table does not list may not."""
    return op in _UNCHANGING or op in _REPEATABLE


def op_name(op: int) -> str:
    """As in statistics and messages: "write_zeroes"."""
    return _NAMES.get(op, "unknown operation")
