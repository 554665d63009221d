"""Sets the core's rates as the configuration limits them. Main loop thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiod._core import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiod._core import Core
    from aiod.engine_api.settings import EngineSettings, RateLimits


def set_rate(core: Core, rate: Rate, limits: RateLimits) -> None:
    """Set the limits of `rate`."""
    core.set_rate(
        rate, per_second=limits.per_second, bytes_per_second=limits.bytes_per_second, burst_ms=limits.burst_ms
    )


class ExportRateLimits:
    """One rate per export, for the lifetime of the engine."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rates: dict[str, Rate] = {}
        self._limits: dict[str, RateLimits] = {}

    def apply(self, settings: EngineSettings) -> None:
        """Use the limits of `settings` from now on."""
        for name, export in settings.exports.items():
            if self._limits.get(name) != export.rate:
                self._limits[name] = export.rate
                set_rate(self._core, self.of(name), export.rate)

    @property
    def rates(self) -> Mapping[str, Rate]:
        """The rate of each export, also of those that a reload has removed."""
        return self._rates

    def of(self, export: str) -> Rate:
        """The rate of an export."""
        return self._rates.setdefault(export, Rate())
