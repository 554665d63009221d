"""Shared by the sections of the configuration: types of values, bounds, and the base class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from aiod.config.user_database import gid_of, owner_of, uid_of
from aiod.engine_api.settings import RateLimits

if TYPE_CHECKING:
    from collections.abc import Callable

KIB: Final = 1024
MIB: Final = 1024 * 1024
BYTES_LIMIT: Final = 1024 * 1024 * MIB
"""Upper bound of every number of bytes (1 TiB): a larger one is a typing error."""

THREADS_MAX: Final = 4096
"""Most workers of one pool (AIOD_THREADS_MAX in core/pool/pool.h)."""


def _known(find: Callable[[str], object]) -> AfterValidator:
    """Accepts the names for which `find` does not raise ValueError."""

    def check(name: str) -> str:
        find(name)
        return name

    return AfterValidator(check)


User = Annotated[str, _known(uid_of)]
Group = Annotated[str, _known(gid_of)]
Owner = Annotated[str, _known(owner_of)]


def _no_directory_link(name: str) -> str:
    if name in {".", ".."}:
        raise ValueError(f'"{name}" cannot be a name, since names become parts of paths')
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$"), AfterValidator(_no_directory_link)]


class Section(BaseModel):
    """Base of the sections: immutable, without unknown keys, and without conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Rated(Protocol):
    iops_max: int
    bytes_per_second_max: int
    burst_s: float


def rate_of(section: _Rated) -> RateLimits:
    """The rate limits in a section."""
    return RateLimits(section.iops_max, section.bytes_per_second_max, round(section.burst_s * 1000))
