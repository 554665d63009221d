"""[users.NAME]: limits of each user."""

from __future__ import annotations

from pydantic import Field

from aiod.config.fields import BYTES_LIMIT, Section, rate_of
from aiod.engine_api.settings import UserLimits


class UserConfig(Section):
    """[users.NAME]: limits of one user in each engine, over all its sessions."""

    sessions_max: int = Field(default=0, ge=0, le=65536, description="integer from 0 (no limit) to 65536 (sessions)")
    handles_max: int = Field(
        default=0, ge=0, le=2**31, description="integer from 0 (no limit) to 2147483648 (open files)"
    )
    requests_max: int = Field(
        default=0, ge=0, le=2**31, description="integer from 0 (no limit) to 2147483648 (requests)"
    )
    bytes_max: int = Field(
        default=0, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes)"
    )
    rings_max: int = Field(default=0, ge=0, le=4096, description="integer from 0 (no limit) to 4096 (rings)")
    ring_bytes_max: int = Field(
        default=0, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes)"
    )
    messages_per_second_max: int = Field(
        default=0, ge=0, le=10_000_000, description="integer from 0 (no limit) to 10000000 (messages a second)"
    )

    iops_max: int = Field(
        default=0, ge=0, le=10**9, description="integer from 0 (no limit) to 1000000000 (requests a second)"
    )
    bytes_per_second_max: int = Field(
        default=0, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes a second)"
    )
    burst_s: float = Field(default=0.1, ge=0.001, le=60, description="from 0.001 to 60 (seconds)")

    def settings(self) -> UserLimits:
        """The limits for the engines."""
        plain = self.model_dump(exclude={"iops_max", "bytes_per_second_max", "burst_s"})
        return UserLimits(**plain, rate=rate_of(self))
