"""How much may be done a second: the core's rates, by the configuration. Main loop thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiod._core import Rate

if TYPE_CHECKING:
    from aiod._core import Core
    from aiod.engine_api.settings import EngineSettings, RateLimits


def set_rate(core: Core, rate: Rate, limits: RateLimits) -> None:
    """Have `rate` be what `limits` says."""
    core.set_rate(
        rate, per_second=limits.per_second, bytes_per_second=limits.bytes_per_second, burst_ms=limits.burst_ms
    )


class ExportRates:
    """One rate for each export, as long as the engine lives."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rates: dict[str, Rate] = {}
        self._limits: dict[str, RateLimits] = {}

    def apply(self, settings: EngineSettings) -> None:
        """Limit the exports as they are configured now."""
        for name, export in settings.exports.items():
            if self._limits.get(name) != export.rate:
                self._limits[name] = export.rate
                set_rate(self._core, self.of(name), export.rate)

    def of(self, export: str) -> Rate:
        """That of an export."""
        return self._rates.setdefault(export, Rate())
