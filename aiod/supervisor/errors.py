"""Errors of asking an engine."""

from __future__ import annotations


class EngineUnavailableError(OSError):
    """The engine does not answer: it is not running, or it is stuck."""


class EngineRefusedError(EngineUnavailableError):
    """The engine has answered that it cannot do what it was asked for."""
