"""Fixtures for pytest: `pytest_plugins = ["aiod_client.testing.fixtures"]` in conftest.py."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from aiod_client.testing.daemon import run_daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiod_client.testing.daemon import PrivateDaemon


@pytest.fixture(scope="session")
def aiod_daemon() -> Iterator[PrivateDaemon]:
    """A private daemon, the same for all tests of the session."""
    with run_daemon() as daemon:
        yield daemon


@pytest.fixture
def run_aiod_daemon() -> Iterator[Callable[..., PrivateDaemon]]:
    """Starts a daemon with the arguments of run_daemon(), for this test."""
    with contextlib.ExitStack() as stack:

        def run(*arguments: Any, **options: Any) -> PrivateDaemon:
            return stack.enter_context(run_daemon(*arguments, **options))

        yield run
