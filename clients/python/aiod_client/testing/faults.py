"""What goes wrong on purpose in an export of a private daemon: an entry of `faults` in aiod.toml(5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Every Nth request of some operations on an open file is delayed, or fails."""

    operations: Sequence[str] = field(default=())
    """Names as "read", "write", "append", "flush"; empty: all."""
    every: int = 1
    """1: each of these requests; 3: the third, the sixth ... of an open file."""
    delay_ms: int = 0
    errno: str = ""
    """The name of the errno, as "EIO"; "": the request succeeds."""
    after_bytes: int = 0
    """A write or append that fails has written so many bytes before."""

    def to_toml(self) -> str:
        """As an inline table of the configuration."""
        names = ", ".join(f'"{name}"' for name in self.operations)
        return (
            f"{{ operations = [{names}], every = {self.every}, delay_ms = {self.delay_ms}, "
            f'errno = "{self.errno}", after_bytes = {self.after_bytes} }}'
        )
