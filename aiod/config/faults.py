"""Faults of an export: what goes wrong on purpose, so that programs can be tested against it."""

from __future__ import annotations

import errno

from pydantic import Field, field_validator

from aiod.config.fields import Section
from aiod_protocol.operations import PROPERTIES, OpProperty, op_name

_NUMBERS = {op_name(op): int(op) for op, properties in PROPERTIES.items() if OpProperty.PATH not in properties}
_ERRNOS = {name: number for number, name in errno.errorcode.items()}


class FaultConfig(Section):
    """One entry of `faults`."""

    operations: list[str] = Field(
        default=[], description="a list of operations such as read, write, append and flush; empty: all"
    )
    every: int = Field(default=1, ge=1, le=10**9, description="integer from 1 (each request of a file) to 1000000000")
    delay_ms: int = Field(default=0, ge=0, le=60_000, description="integer from 0 to 60000 (ms)")
    errno: str = Field(default="", description='"" for none, or the name of an errno such as "EIO" or "ENOSPC"')
    after_bytes: int = Field(default=0, ge=0, le=2**62, description="integer from 0 (bytes written before the error)")

    @field_validator("operations")
    @classmethod
    def _are_known(cls, operations: list[str]) -> list[str]:
        for name in operations:
            if name not in _NUMBERS:
                raise ValueError(f"no operation has the name {name}: they are {', '.join(_NUMBERS)}")
        return operations

    @field_validator("errno")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name and name not in _ERRNOS:
            raise ValueError(f"no errno has the name {name}")
        return name

    def settings(self) -> tuple[int, int, int, int, int]:
        """For the engine: (bits 1 << Op, every, delay in ms, errno, bytes)."""
        bits = sum(1 << _NUMBERS[name] for name in set(self.operations or _NUMBERS))
        return bits, self.every, self.delay_ms, _ERRNOS.get(self.errno, 0), self.after_bytes
