"""[sessions]: limits of each session."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from aiod.config.fields import BYTES_LIMIT, KIB, MIB, THREADS_MAX, Section


class SessionsConfig(Section):
    """[sessions]: limits of each session."""

    depth_max: int = Field(default=256, ge=1, le=65536, description="integer from 1 to 65536 (requests)")
    bytes_max: int = Field(
        default=32 * MIB, ge=64 * KIB, le=BYTES_LIMIT, description="integer from 65536 to 1099511627776 (bytes)"
    )
    request_bytes_max: int = Field(
        default=4 * MIB,
        ge=64 * KIB,
        le=256 * MIB,
        description="integer from 65536 to 268435456, at most bytes_max (bytes)",
    )
    batch_max: int = Field(default=256, ge=1, le=256, description="integer from 1 to 256 (requests)")
    active_max: int = Field(default=0, ge=0, le=THREADS_MAX, description="integer from 0 (no limit) to 4096 (requests)")
    active_bytes_max: int = Field(
        default=MIB, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes)"
    )
    handles_max: int = Field(default=4096, ge=1, le=65535, description="integer from 1 to 65535 (open files)")
    sessions_max: int = Field(default=1024, ge=1, le=65536, description="integer from 1 to 65536 (sessions)")
    heartbeat_s: float = Field(default=2.0, ge=0.01, le=3600, description="from 0.01 to 3600 (seconds)")
    session_timeout_s: float = Field(
        default=30.0, gt=0, le=86400, description="at least twice heartbeat_s, at most 86400 (seconds)"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.request_bytes_max > self.bytes_max:
            raise ValueError(f"request_bytes_max ({self.request_bytes_max}) is above bytes_max ({self.bytes_max})")
        if self.session_timeout_s < 2 * self.heartbeat_s:
            raise ValueError(f"session_timeout_s ({self.session_timeout_s}) is below twice heartbeat_s")
        return self
