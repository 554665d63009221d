"""[engine.NAME]: one engine process, its pool and its memory."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from aiod.config.cpus import forbidden_cpus, online_cpus, parse_cpus
from aiod.config.fields import BYTES_LIMIT, KIB, MIB, THREADS_MAX, Section


class EngineConfig(Section):
    """[engine.NAME]: one engine process and its pool."""

    max_threads: int = Field(default=64, ge=1, le=THREADS_MAX, description="integer from 1 to 4096 (worker threads)")
    min_threads: int = Field(
        default=0, ge=0, le=THREADS_MAX, description="integer from 0 to max_threads (worker threads)"
    )
    idle_timeout_s: float = Field(default=10.0, gt=0, le=86400, description="above 0, at most 86400 (seconds)")
    cpus: str = Field(default="", description='"" to inherit, or CPU numbers of this machine such as "2-5,7"')
    affinity: Literal["inherit", "follow"] = Field(default="inherit", description='"inherit" or "follow"')
    spawn_retry_ms: int = Field(default=1000, ge=1, le=600_000, description="integer from 1 to 600000 (milliseconds)")
    reserve_threads: int = Field(default=4, ge=0, le=THREADS_MAX, description="integer from 0 to 4096 (worker threads)")
    slow_request_ms: int = Field(
        default=10_000, ge=0, le=86_400_000, description="integer from 0 (never) to 86400000 (milliseconds)"
    )
    stuck_threads_max: int = Field(
        default=16, ge=0, le=THREADS_MAX, description="integer from 0 to 4096 (worker threads)"
    )
    open_timeout_s: float = Field(default=30.0, ge=0, le=86400, description="from 0 (none) to 86400 (seconds)")
    tcp_port: int = Field(default=0, ge=0, le=65535, description="integer from 0 (any that is free) to 65535")
    inline_read_max: int = Field(default=64 * KIB, ge=0, le=MIB, description="integer from 0 to 1048576 (bytes)")
    buffer_cache_max: int = Field(
        default=64 * MIB, ge=0, le=BYTES_LIMIT, description="integer from 0 to 1099511627776 (bytes)"
    )
    bytes_inflight_max: int = Field(
        default=256 * MIB, ge=MIB, le=BYTES_LIMIT, description="integer from 1048576 to 1099511627776 (bytes)"
    )
    memory_max: int = Field(
        default=1024 * MIB, ge=64 * MIB, le=BYTES_LIMIT, description="integer from 67108864 to 1099511627776 (bytes)"
    )

    rings_max: int = Field(
        default=64, ge=0, le=4096, description="integer from 0 to 4096 (shared-memory rings; 0: clients use ZeroMQ)"
    )
    ring_bytes_max: int = Field(
        default=1024 * MIB, ge=MIB, le=BYTES_LIMIT, description="integer from 1048576 to 1099511627776 (bytes)"
    )
    ring_poll_max_us: int = Field(
        default=200, ge=0, le=1_000_000, description="integer from 0 to 1000000 (microseconds; 0: never spin)"
    )

    @field_validator("cpus")
    @classmethod
    def _cpus_exist(cls, cpus: str) -> str:
        missing = set(parse_cpus(cpus)) - set(online_cpus())
        if missing:
            raise ValueError(f"this machine has no CPU {min(missing)}")
        forbidden = forbidden_cpus(parse_cpus(cpus))
        if forbidden:
            raise ValueError(
                f"this process may not use CPU {min(forbidden)}: outside its cpuset (systemd: AllowedCPUs=)"
            )
        return cpus

    @model_validator(mode="after")
    def _min_at_most_max(self) -> Self:
        check_threads(self.max_threads, self.min_threads)
        return self


def check_threads(max_threads: Any, min_threads: Any) -> None:
    """Raise ValueError with a message unless a pool can have these limits."""
    if type(max_threads) is not int or type(min_threads) is not int:
        raise ValueError("max_threads and min_threads are integers")
    if not 1 <= max_threads <= THREADS_MAX:
        raise ValueError(f"max_threads is {max_threads}; allowed: 1 to {THREADS_MAX} (worker threads)")
    if min_threads < 0:
        raise ValueError(f"min_threads is {min_threads}; allowed: 0 to max_threads (worker threads)")
    if min_threads > max_threads:
        raise ValueError(f"min_threads ({min_threads}) is above max_threads ({max_threads})")
